"""The judge's config: backbone, depth, readings and aspects, strictly checked."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from huggingface_hub.dataclasses import strict
from huggingface_hub.errors import StrictDataclassError
from transformers import AutoConfig, PreTrainedConfig
from transformers.configuration_utils import SubConfigSpec

from .decisions import RULES
from .errors import JudgeConfigError, ReadingError
from .features import POOLINGS, STATE_KINDS, Feature
from .heads import AGGREGATIONS, SCORE_RULES, STACKED_RULES
from .template import PairTemplate

HEADS = {"linear": 1, "score_tokens": 1, "stacked": 2}  # and the first format_version that has each
FORMAT_VERSION = max(HEADS.values())
RESERVED_NAMES = ("question", "prediction", "total_score", "truncated")
REQUIRED_FIELDS = (
    "backbone_config",
    "backbone_id",
    "backbone_revision",
    "fused",
    "depth",
    "readings",
    "aspects",
    "max_length",
    "format_version",
)


@dataclass(frozen=True)
class Head:
    """How an aspect's decision values come about and what they mean.

    Attributes:
        type: `linear`, a probe: center, then one linear map over the concatenated features; `score_tokens`, LAGER: the
            unembedding of the score tokens at each feature, weighted and summed; or `stacked`: the value of a probe on
            the first features, plus the weighted scores that the tokens expect at each of the others.
        rule: How decision values become a score and probabilities: one of `decisions.RULES`; for score tokens
            `expectation` or `argmax`; for a stacked head `ordinal`.
        members: How many fits a calibrated rule averages.
        aggregation: What score tokens sum over features: `logits` or `probabilities`.
        token_ids: The id of each score token, in ascending order of the scores: of the classes, or in a stacked head of
            the scale that the reading asks for. Empty for a probe.
        n_probe_features: How many of the features, from the first on, a stacked head's probe reads.
    """

    type: str = "linear"
    rule: str = "logistic"
    members: int = 1
    aggregation: str = "logits"
    token_ids: tuple[int, ...] = ()
    n_probe_features: int = 0


@dataclass(frozen=True)
class Aspect:
    """What is scored.

    Attributes:
        name: The key in every result.
        features: The vectors that its head reads, concatenated in this order.
        head: The head's type and decision rule.
        classes: The scores OBSERVED when the head was fitted, ascending; no other score is ever given.
        counts_in_total: Whether the score is part of `total_score`.
    """

    name: str
    features: tuple[Feature, ...]
    head: Head
    classes: tuple[int, ...]
    counts_in_total: bool = True

    @property
    def probe_features(self) -> tuple[Feature, ...]:
        """What a probe reads, centred."""
        return self.features if self.head.type == "linear" else self.features[: self.head.n_probe_features]

    @property
    def token_features(self) -> tuple[Feature, ...]:
        """The states that score tokens are read from, as they are."""
        return self.features[len(self.probe_features) :]


@strict
class InspectorConfig(PreTrainedConfig):
    """Config of a judge.

    Args:
        backbone_config: Config of the decoder, cut to `depth` layers.
        backbone_id: Hub id (or `pypi:` id, see `wheel_backbone.py`) that the backbone came from.
        backbone_revision: Revision of that id: a commit, a tag or a version.
        fused: Whether the judge's own files hold the truncated backbone; else it is loaded by id and revision.
        depth: Number of decoder layers that are built and run.
        readings: Name -> the JSON object of a `PairTemplate`.
        aspects: JSON objects of `Aspect`, in the order of the result.
        max_length: Upper bound on the tokens of one pair under one reading.
        format_version: The first version of this layout that has all the judge's heads.

    Raises:
        JudgeConfigError: A field is wrong, missing or unknown; the message names it. A bare `InspectorConfig()`, which
            transformers builds for its own ends, is allowed; a model is not built from it.
    """

    model_type = "inspector"
    sub_configs_defaults = {"backbone_config": SubConfigSpec(AutoConfig, model_type="qwen3")}

    backbone_config: Any = None
    backbone_id: str = ""
    backbone_revision: str | None = None
    fused: bool = True
    depth: int = 0
    readings: dict[str, Any] = field(default_factory=dict)
    aspects: list[Any] = field(default_factory=list)
    max_length: int = 2048
    format_version: int = 1

    def __post_init__(self, **kwargs: Any) -> None:
        """Build the backbone's config; run our installed code, not a repo's, where both are there."""
        if not type(self).__module__.startswith("transformers_modules"):
            kwargs.pop("custom_pipelines", None)
        super().__post_init__(**kwargs)

    @classmethod
    def from_dict(cls, config_dict: dict[str, Any], **kwargs: Any) -> Any:
        """Build a config from a config.json's object; every field of the judge must be there.

        Raises:
            JudgeConfigError: A field is missing, wrong or unknown.
        """
        version = config_dict.get("format_version")
        if isinstance(version, int) and version > FORMAT_VERSION:
            raise JudgeConfigError(
                f"This version reads judges up to format_version {FORMAT_VERSION}, but got {version}. Upgrade "
                "inspector-pipeline."
            )
        if config_dict.get("model_type") != cls.model_type:
            raise JudgeConfigError(
                f"model_type expects {cls.model_type!r}, but got {config_dict.get('model_type')!r}. This is no judge."
            )
        missing = [name for name in REQUIRED_FIELDS if name not in config_dict]
        if missing:
            raise JudgeConfigError(f"A judge's config needs the field(s) {', '.join(missing)}, which are missing.")
        unknown = set(config_dict) - _known_top_level(cls)
        if unknown:
            raise JudgeConfigError(
                f"A judge's config has no field(s) named {', '.join(sorted(unknown))}. Check the spelling."
            )
        try:
            result = super().from_dict(config_dict, **kwargs)
        except JudgeConfigError:
            raise
        except (StrictDataclassError, AttributeError, KeyError, TypeError, ValueError) as error:
            raise JudgeConfigError(f"A judge's config has a field of the wrong kind. {error!r}") from error
        (result[0] if isinstance(result, tuple) else result).check()
        return result

    def check(self) -> None:
        """Check the whole config.

        Raises:
            JudgeConfigError: A field is wrong or missing; the message names it.
        """
        if self.max_length < 1:
            raise JudgeConfigError(f"max_length expects a positive number of tokens, but got {self.max_length}.")
        aspects = self.parsed_aspects
        if not aspects:
            raise JudgeConfigError("aspects expects at least one aspect, but got none.")
        version = max(HEADS[aspect.head.type] for aspect in aspects)
        if self.format_version != version:
            raise JudgeConfigError(f"format_version expects {version}, but got {self.format_version!r}.")
        if len({aspect.name for aspect in aspects}) != len(aspects):
            raise JudgeConfigError("aspects expects distinct names, but some are equal.")
        unread = self.readings.keys() - {feature.reading for aspect in aspects for feature in aspect.features}
        if unread:
            raise JudgeConfigError(
                f"readings expects only readings that a feature reads, but got also {sorted(unread)}."
            )
        deepest = max(feature.layer for aspect in aspects for feature in aspect.features)
        if self.depth != max(deepest, 1):
            raise JudgeConfigError(
                f"depth expects {max(deepest, 1)}, the deepest layer a feature reads, but got {self.depth}."
            )
        layers = getattr(self.backbone_config, "num_hidden_layers", None)
        if layers != self.depth:
            raise JudgeConfigError(f"backbone_config.num_hidden_layers expects depth = {self.depth}, but got {layers}.")

    @property
    def parsed_readings(self) -> dict[str, PairTemplate]:
        """The readings by name.

        Raises:
            JudgeConfigError: A reading is malformed.
        """
        try:
            return {
                name: PairTemplate.from_dict(_mapping(data, f"readings.{name}")) for name, data in self.readings.items()
            }
        except ReadingError as error:
            raise JudgeConfigError(f"readings: {error}") from error

    @property
    def parsed_aspects(self) -> tuple[Aspect, ...]:
        """The aspects, in the order of the result.

        Raises:
            JudgeConfigError: An aspect is malformed; the message names the field.
        """
        names = self.parsed_readings.keys()
        return tuple(_parse_aspect(data, f"aspects[{i}]", names) for i, data in enumerate(self.aspects))

    @property
    def rms_norm_eps(self) -> float:
        """The epsilon of the backbone's norms, which rms_normed states use too."""
        return norm_eps(self.backbone_config)


def norm_eps(backbone_config: PreTrainedConfig) -> float:
    """Return the epsilon of a backbone's norms, or 1e-6 where its config names none."""
    for name in ("rms_norm_eps", "layer_norm_epsilon", "layer_norm_eps", "norm_epsilon"):
        value = getattr(backbone_config, name, None)
        if value is not None:
            return float(value)
    return 1e-6


def _known_top_level(cls: type[PreTrainedConfig]) -> set[str]:
    own = {item.name for item in fields(cls)}
    written_by_transformers = {"model_type", "auto_map", "custom_pipelines", "torch_dtype", "attn_implementation"}
    private = {
        "_name_or_path",
        "_commit_hash",
        "_attn_implementation",
        "_attn_implementation_autoset",
        "_from_model_config",
    }
    return (
        own | written_by_transformers | private | {"output_attentions", "tie_last_hidden_states", "quantization_config"}
    )


def _mapping(data: Any, where: str) -> Mapping[str, Any]:
    if not isinstance(data, Mapping):
        raise JudgeConfigError(f"{where} expects a JSON object, but got {data!r}.")
    return data


def _take(
    data: Mapping[str, Any], where: str, types: dict[str, type], optional: tuple[str, ...] = ()
) -> dict[str, Any]:
    """Check an object's fields by name and type, and return them."""
    for name, value in _mapping(data, where).items():
        if name not in types:
            raise JudgeConfigError(f"{where} has no field named {name!r}; it has {', '.join(types)}.")
        if not isinstance(value, types[name]) or (isinstance(value, bool) and types[name] is not bool):
            raise JudgeConfigError(f"{where}.{name} expects {types[name].__name__}, but got {value!r}.")
    missing = [name for name in types if name not in data and name not in optional]
    if missing:
        raise JudgeConfigError(f"{where} needs the field(s) {', '.join(missing)}, which are missing.")
    return dict(data)


def _one_of(value: Any, choices: Any, where: str) -> None:
    if value not in choices:
        raise JudgeConfigError(
            f"{where} expects one of {', '.join(map(str, choices)) or 'nothing'}, but got {value!r}."
        )


def _parse_feature(data: Any, where: str, reading_names: Any) -> Feature:
    feature = Feature(**_take(data, where, {"reading": str, "layer": int, "pooling": str, "state": str}))
    _one_of(feature.reading, reading_names, f"{where}.reading")
    _one_of(feature.pooling, POOLINGS, f"{where}.pooling")
    _one_of(feature.state, STATE_KINDS, f"{where}.state")
    if feature.layer < 0:
        raise JudgeConfigError(f"{where}.layer expects 0 or more, but got {feature.layer}.")
    return feature


def _parse_aspect(data: Any, where: str, reading_names: Any) -> Aspect:
    types = {"name": str, "features": list, "head": dict, "classes": list, "counts_in_total": bool}
    values = _take(data, where, types)
    name = values["name"]
    if not name.strip() or "." in name or name in RESERVED_NAMES:
        raise JudgeConfigError(
            f"{where}.name expects a name without dots other than {', '.join(RESERVED_NAMES)}, but got {name!r}."
        )
    features = [
        _parse_feature(item, f"{where}.features[{i}]", reading_names) for i, item in enumerate(values["features"])
    ]
    if not features:
        raise JudgeConfigError(f"{where}.features expects at least one feature, but got none.")
    head = _parse_head(values["head"], f"{where}.head")
    classes = values["classes"]
    whole = all(isinstance(c, int) and not isinstance(c, bool) for c in classes)
    if not whole or len(classes) < 2 or sorted(set(classes)) != classes:
        raise JudgeConfigError(f"{where}.classes expects two or more ascending whole numbers, but got {classes!r}.")
    aspect = Aspect(name, tuple(features), head, tuple(classes), values["counts_in_total"])
    if head.type != "linear":
        _check_score_tokens(aspect, where)
    return aspect


def _parse_head(data: Any, where: str) -> Head:
    _one_of(_mapping(data, where).get("type"), HEADS, f"{where}.type")
    if data["type"] == "score_tokens":
        values = _take(data, where, {"type": str, "rule": str, "aggregation": str, "token_ids": list})
        _one_of(values["rule"], SCORE_RULES, f"{where}.rule")
        _one_of(values["aggregation"], AGGREGATIONS, f"{where}.aggregation")
        return Head(**{**values, "token_ids": tuple(values["token_ids"])})
    if data["type"] == "stacked":
        values = _take(data, where, {"type": str, "rule": str, "token_ids": list, "n_probe_features": int})
        _one_of(values["rule"], STACKED_RULES, f"{where}.rule")
        return Head(**{**values, "token_ids": tuple(values["token_ids"])})
    head = Head(**_take(data, where, {"type": str, "rule": str, "members": int}, ("members",)))
    _one_of(head.rule, RULES, f"{where}.rule")
    if head.members < 1 or (head.members > 1 and not RULES[head.rule].takes_members):
        raise JudgeConfigError(f"{where}.members expects 1 for the rule {head.rule!r}, but got {head.members}.")
    return head


def _check_score_tokens(aspect: Aspect, where: str) -> None:
    """Check that score tokens are read where they are produced: at one reading's last token, one state a layer."""
    head, n_probe, n_classes = aspect.head, len(aspect.probe_features), len(aspect.classes)
    stacked = head.type == "stacked"
    if stacked and not 0 < head.n_probe_features < len(aspect.features):
        raise JudgeConfigError(
            f"{where}.head.n_probe_features expects 1 to {len(aspect.features) - 1}, so that the probe and the score "
            f"tokens both have features, but got {head.n_probe_features}."
        )
    ids = head.token_ids
    whole = all(isinstance(i, int) and not isinstance(i, bool) and i >= 0 for i in ids)
    if not whole or len(set(ids)) != len(ids) or (len(ids) < 2 if stacked else len(ids) != n_classes):
        asked = "2 or more distinct token ids" if stacked else f"{n_classes} distinct token ids, one a class"
        raise JudgeConfigError(f"{where}.head.token_ids expects {asked}, but got {list(ids)}.")
    for i, feature in enumerate(aspect.token_features, start=n_probe):
        _one_of(feature.pooling, ("last",), f"{where}.features[{i}].pooling")
        _one_of(feature.state, ("raw", "final_norm"), f"{where}.features[{i}].state")
    states = aspect.token_features
    if len({feature.reading for feature in states}) > 1 or len({f.layer for f in states}) != len(states):
        raise JudgeConfigError(f"{where}.features expects states of one reading, each of another layer.")


InspectorConfig.register_for_auto_class()
