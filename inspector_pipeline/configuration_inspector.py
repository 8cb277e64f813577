"""The judge's config: backbone, depth, readings and aspects, strictly checked."""

from collections.abc import Iterable
from dataclasses import dataclass, field, fields
from functools import partial
from math import inf
from typing import Any

from huggingface_hub.dataclasses import strict
from huggingface_hub.errors import StrictDataclassError
from transformers import AutoConfig, PreTrainedConfig
from transformers.configuration_utils import SubConfigSpec

from .calibration import LEVEL_MAP_FIELDS, OPTIONAL_LEVEL_MAP_FIELDS, LevelMap
from .decisions import PREFERENCE, RULES
from .encoded import CHECKS
from .errors import JudgeConfigError, ReadingError
from .familiarity import STATISTICS, Bounds
from .features import POOLINGS, STATE_KINDS, Feature
from .heads import AGGREGATIONS, SCORE_RULES, STACKED_RULES
from .int8 import ENGINE_SETTINGS, STATE_ERROR
from .results import rank_choices
from .template import PairTemplate, take_fields

HEADS = {"linear": 1, "score_tokens": 1, "stacked": 2}  # and the first format_version that has each
HEAD_FIELDS: dict[str, dict[str, type]] = {
    "linear": {"type": str, "rule": str, "members": int},
    "score_tokens": {"type": str, "rule": str, "aggregation": str, "token_ids": list},
    "stacked": {"type": str, "rule": str, "token_ids": list, "n_probe_features": int},
}
HEAD_RULES = {"linear": tuple(RULES), "score_tokens": SCORE_RULES, "stacked": STACKED_RULES}
FEATURE_FIELDS = {"reading": str, "layer": int, "pooling": str, "state": str}
ASPECT_FIELDS = {"name": str, "features": list, "head": dict, "classes": list, "counts_in_total": bool}
FAMILIAR_FIELDS = {"features": list, "n_components": int, "n_words": int, "threshold": int | float, "text": dict}
FITTED_ON_VERSION = 3  # the first format_version that says what a judge was fitted on
LEVELS_VERSION = 4  # the first format_version with scores that are words or no whole numbers
CALIBRATED_VERSION = 5  # the first one whose judges can be calibrated on labels of a domain
ENGINE_VERSION = 6  # the first one whose judges say which arithmetic they were fitted in
CHECKS_VERSION = 7  # the first one whose probes may read checks of a response's text
FORMAT_VERSION = max(*HEADS.values(), CHECKS_VERSION)
LARGEST_CLASS = 2**31 - 1
RESERVED_NAMES = ("question", "prediction", "total_score", "truncated")
REQUIRED_FIELDS = (
    *("backbone_config", "backbone_id", "backbone_revision", "fused", "depth"),
    *("readings", "aspects", "max_length", "format_version"),
)
ADDED_FIELDS = ("rank_by", "familiar", "n_seen_questions", "calibration", "engine")  # to the first layout
FIELDS_OF_TRANSFORMERS = {
    *("model_type", "auto_map", "custom_pipelines", "torch_dtype", "attn_implementation", "output_attentions"),
    *("_name_or_path", "_commit_hash", "_attn_implementation", "_attn_implementation_autoset", "_from_model_config"),
    *("tie_last_hidden_states", "quantization_config"),
}


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
        words: What a result calls each class, where the labels were words; empty where it gives the class itself.
    """

    name: str
    features: tuple[Feature, ...]
    head: Head
    classes: tuple[Any, ...]
    counts_in_total: bool = True
    words: tuple[str, ...] = ()

    @property
    def levels(self) -> tuple[Any, ...]:
        """What a result calls each class."""
        return self.words or self.classes

    @property
    def has_plain_scores(self) -> bool:
        """Whether all scores are whole numbers, and what is expected is their mean."""
        return not self.words and _are_whole(self.classes) and self.head.rule != PREFERENCE

    def number(self, level: Any) -> Any:
        """Return the class that a result calls so."""
        return self.classes[self.levels.index(level)]

    @property
    def probe_features(self) -> tuple[Feature, ...]:
        """What a probe reads, centred."""
        return self.features if self.head.type == "linear" else self.features[: self.head.n_probe_features]

    @property
    def token_features(self) -> tuple[Feature, ...]:
        """The states that score tokens are read from, as they are."""
        return self.features[len(self.probe_features) :]


@dataclass(frozen=True)
class Familiar:
    """What a judge takes for pairs like those that it was fitted on, see `familiarity.py`.

    Attributes:
        features: Whose distance is measured, of those that aspects read.
        n_components: Directions inside which it is measured one by one.
        n_words: How many words are not new.
        threshold: The largest distance of a familiar pair.
        text: Bounds of statistics of a pair's texts, each lowest and highest; None is no bound.
    """

    features: tuple[Feature, ...]
    n_components: int
    n_words: int
    threshold: float
    text: dict[str, Bounds]


def unique_features(aspects: Iterable[Aspect]) -> tuple[Feature, ...]:
    """Return every feature that one of these aspects reads, once, in order of first appearance."""
    return tuple(dict.fromkeys(feature for aspect in aspects for feature in aspect.features))


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
        format_version: The first version of this layout that has all that the judge has.
        rank_by: The field that the judge ranks responses by: `expected_total`, or `expected_` and an aspect. None,
            which is not written, is `expected_total` where an aspect counts.
        familiar: JSON object of a `Familiar`; None, which is not written, where the judge cannot tell.
        n_seen_questions: How many questions the judge names as those that it was fitted on; 0, which is not written,
            where it names none.
        calibration: Aspect -> JSON object of a `LevelMap`; None, which is not written, where there is none.
        engine: The arithmetic that the judge was fitted in and runs in, `int8.ENGINE_SETTINGS`, and how far its
            features were from those of float32; None, which is not written, is torch's own in the judge's dtype.

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
    rank_by: str | None = None
    familiar: dict[str, Any] | None = None
    n_seen_questions: int = 0
    calibration: dict[str, Any] | None = None
    engine: dict[str, Any] | None = None

    def __post_init__(self, **kwargs: Any) -> None:
        """Build the backbone's config; run our installed code, not a repo's, where both are there."""
        if not type(self).__module__.startswith("transformers_modules"):
            kwargs.pop("custom_pipelines", None)
        super().__post_init__(**kwargs)

    @classmethod
    def get_config_dict(cls, *args: Any, **kwargs: Any) -> Any:
        """Read a config.json.

        Raises:
            JudgeConfigError: It nests too deep to be one.
        """
        try:
            return super().get_config_dict(*args, **kwargs)
        except (RecursionError, AttributeError, TypeError) as error:
            raise JudgeConfigError(f"config.json expects a JSON object, but could not be read: {error}.") from error

    @classmethod
    def from_dict(cls, config_dict: dict[str, Any], **kwargs: Any) -> Any:
        """Build a config from a config.json's object; every field of the judge must be there.

        Raises:
            JudgeConfigError: A field is missing, wrong or unknown.
        """
        _require(isinstance(config_dict, dict), f"config.json expects an object, but got {config_dict!r:.80}.")
        version, model_type = config_dict.get("format_version"), config_dict.get("model_type")
        _require(
            not isinstance(version, int) or version <= FORMAT_VERSION,
            f"This version reads judges up to format_version {FORMAT_VERSION}, but got {version}. Upgrade "
            "inspector-pipeline.",
        )
        _require(
            model_type == cls.model_type,
            f"model_type expects {cls.model_type!r}, but got {model_type!r}. This is no judge.",
        )
        missing = [name for name in REQUIRED_FIELDS if name not in config_dict]
        _require(not missing, f"A judge's config needs the field(s) {', '.join(missing)}, which are missing.")
        unknown = sorted(set(config_dict) - {item.name for item in fields(cls)} - FIELDS_OF_TRANSFORMERS)
        _require(not unknown, f"A judge's config has no field(s) named {', '.join(unknown)}. Check the spelling.")
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
        _require(self.max_length >= 1, f"max_length expects a positive number of tokens, but got {self.max_length}.")
        aspects = self.parsed_aspects
        _require(bool(aspects), "aspects expects at least one aspect, but got none.")
        _require(self.n_seen_questions >= 0, f"n_seen_questions expects 0 or more, but got {self.n_seen_questions}.")
        version = self.needed_version
        _require(self.format_version == version, f"format_version expects {version}, but got {self.format_version!r}.")
        names = {aspect.name for aspect in aspects}
        _require(len(names) == len(aspects), "aspects expects distinct names, but some are equal.")
        features = [feature for aspect in aspects for feature in aspect.features]
        unread = sorted(self.readings.keys() - {feature.reading for feature in features if not feature.is_check})
        _require(not unread, f"readings expects only readings that a feature reads, but got also {unread}.")
        asked = {name for name, reading in self.parsed_readings.items() if reading.question_only}
        blind = [feature.pooling for feature in features if feature.is_check and feature.reading in asked]
        _require(not blind, f"A check expects a reading that holds the response, but {blind[:1]} has one without it.")
        depth = max(1, *(feature.layer for feature in features))
        _require(
            self.depth == depth, f"depth expects {depth}, the deepest layer a feature reads, but got {self.depth}."
        )
        error = (self.engine or {}).get(STATE_ERROR, 0.0)
        engines = (None, ENGINE_SETTINGS, {**ENGINE_SETTINGS, STATE_ERROR: error})
        _require(
            self.engine in engines and isinstance(error, float),
            f"engine expects {ENGINE_SETTINGS}, or nothing, but got {self.engine!r}. Upgrade inspector-pipeline, or "
            "load the judge where it was made.",
        )
        _one_of(self.rank_by, (None, *rank_choices(aspects)), "rank_by")
        layers = getattr(self.backbone_config, "num_hidden_layers", None)
        _require(layers == depth, f"backbone_config.num_hidden_layers expects depth = {self.depth}, but got {layers}.")

    @property
    def needed_version(self) -> int:
        """The first version of this layout that has all that the judge has."""
        aspects, fitted_on = self.parsed_aspects, self.parsed_familiar is not None or self.n_seen_questions > 0
        levels = LEVELS_VERSION * any(not aspect.has_plain_scores for aspect in aspects)
        added = max(FITTED_ON_VERSION * fitted_on, levels, CALIBRATED_VERSION * bool(self.parsed_calibration))
        checks = any(feature.is_check for aspect in aspects for feature in aspect.features)
        added = max(added, ENGINE_VERSION * bool(self.engine), CHECKS_VERSION * checks)
        return max(added, *(HEADS[aspect.head.type] for aspect in aspects))

    @property
    def parsed_readings(self) -> dict[str, PairTemplate]:
        """The readings by name.

        Raises:
            JudgeConfigError: A reading is malformed.
        """
        try:
            return {name: PairTemplate.from_dict(data, f"readings.{name}") for name, data in self.readings.items()}
        except ReadingError as error:
            raise JudgeConfigError(str(error)) from error

    @property
    def parsed_aspects(self) -> tuple[Aspect, ...]:
        """The aspects, in the order of the result.

        Raises:
            JudgeConfigError: An aspect is malformed; the message names the field.
        """
        readings = tuple(self.parsed_readings)
        return tuple(_parse_aspect(data, f"aspects[{i}]", readings) for i, data in enumerate(self.aspects))

    @property
    def parsed_familiar(self) -> Familiar | None:
        """What the judge takes for familiar pairs; None where it cannot tell.

        Raises:
            JudgeConfigError: The field is malformed.
        """
        if self.familiar is None:
            return None
        return _parse_familiar(self.familiar, tuple(self.parsed_readings), unique_features(self.parsed_aspects))

    @property
    def parsed_calibration(self) -> dict[str, LevelMap]:
        """Aspect -> the levels and probabilities of a domain; empty where they are as the judge was fitted.

        Raises:
            JudgeConfigError: The field is malformed.
        """
        # A preference's score is no mean of levels, which a map could begin with.
        own = [aspect for aspect in self.parsed_aspects if aspect.head.rule != PREFERENCE]
        sizes = {aspect.name: len(aspect.classes) for aspect in own}
        found = {}
        for name, data in (self.calibration or {}).items():
            _one_of(name, tuple(sizes), "calibration")
            where = f"calibration.{name}"
            values = _take(data, where, LEVEL_MAP_FIELDS, optional=OPTIONAL_LEVEL_MAP_FIELDS)
            found[name] = LevelMap.from_dict(values, where, sizes[name])
        return found

    def to_dict(self) -> dict[str, Any]:
        """Return the fields, without those that were added later where they say nothing: older judges stay the same."""
        found: dict[str, Any] = super().to_dict()
        return {name: value for name, value in found.items() if name not in ADDED_FIELDS or value}

    @property
    def rms_norm_eps(self) -> float:
        """The epsilon of the backbone's norms, which rms_normed states use too."""
        return norm_eps(self.backbone_config)


def norm_eps(backbone_config: PreTrainedConfig) -> float:
    """Return the epsilon of a backbone's norms, or 1e-6 where its config names none."""
    names = ("rms_norm_eps", "layer_norm_epsilon", "layer_norm_eps", "norm_epsilon")
    values = (getattr(backbone_config, name, None) for name in names)
    return float(next((value for value in values if value is not None), 1e-6))


_take = partial(take_fields, error=JudgeConfigError)


def _require(holds: bool, message: str) -> None:
    """Raise where a condition on the config does not hold."""
    if not holds:
        raise JudgeConfigError(message)


def _one_of(value: Any, choices: tuple[str | None, ...], where: str) -> None:
    told = ", ".join(filter(None, choices)) or "nothing"
    _require(value in choices, f"{where} expects one of {told}, but got {value!r}.")


def _parse_feature(data: Any, where: str, readings: tuple[str, ...]) -> Feature:
    feature = Feature(**_take(data, where, FEATURE_FIELDS))
    for name, choices in (("reading", readings), ("pooling", (*POOLINGS, *CHECKS)), ("state", STATE_KINDS)):
        _one_of(getattr(feature, name), choices, f"{where}.{name}")
    _require(feature.layer >= 0, f"{where}.layer expects 0 or more, but got {feature.layer}.")
    _require(
        not feature.is_check or (feature.layer, feature.state) == (0, "raw"),
        f"{where} expects layer 0 and state raw of a check, but got {feature.layer} and {feature.state}.",
    )
    return feature


def _parse_aspect(data: Any, where: str, readings: tuple[str, ...]) -> Aspect:
    values = _take(data, where, ASPECT_FIELDS | {"words": list}, optional=("words",))
    name, classes, described = values["name"], values["classes"], values["features"]
    _require(
        bool(name.strip()) and name.isprintable() and "." not in name and name not in RESERVED_NAMES,
        f"{where}.name expects a name without dots and control characters, other than {', '.join(RESERVED_NAMES)}, but "
        f"got {name!r}.",
    )
    features = tuple(_parse_feature(item, f"{where}.features[{i}]", readings) for i, item in enumerate(described))
    states = [feature for feature in features if not feature.is_check]
    _require(bool(states), f"{where}.features expects at least one feature of hidden states, but got none.")
    head = _parse_head(values["head"], f"{where}.head")
    _require(
        _are_numbers(classes)
        and len(classes) >= 2
        and sorted(set(classes)) == classes
        and all(abs(value) <= LARGEST_CLASS for value in classes),
        f"{where}.classes expects two or more ascending numbers of 32 bits, but got {classes!r:.200}.",
    )
    words = values.get("words", [])
    _require(
        not words or (len(set(words)) == len(words) == len(classes) and all(isinstance(w, str) and w for w in words)),
        f"{where}.words expects a different word for each of {len(classes)} classes, but got {words!r}.",
    )
    _require(
        head.rule != PREFERENCE or (classes == [0, 1] and not values["counts_in_total"]),
        f"{where} expects the classes 0 and 1, and not to count in the total, where its rule is {PREFERENCE}.",
    )
    aspect = Aspect(name, features, head, tuple(classes), values["counts_in_total"], tuple(words))
    if head.type != "linear":
        _check_score_tokens(aspect, where)
    return aspect


def _parse_head(data: Any, where: str) -> Head:
    kind = data.get("type")
    _one_of(kind, tuple(HEADS), f"{where}.type")
    values = _take(data, where, HEAD_FIELDS[kind], optional=("members",))
    _one_of(values["rule"], HEAD_RULES[kind], f"{where}.rule")
    _one_of(values.get("aggregation", AGGREGATIONS[0]), AGGREGATIONS, f"{where}.aggregation")
    head = Head(**{**values, "token_ids": tuple(values.get("token_ids", ()))})
    _require(
        head.members == 1 or (head.members > 1 and RULES[head.rule].takes_members),
        f"{where}.members expects 1 for the rule {head.rule!r}, but got {head.members}.",
    )
    return head


def _parse_familiar(data: Any, readings: tuple[str, ...], read: tuple[Feature, ...]) -> Familiar:
    where = "familiar"
    values = _take(data, where, FAMILIAR_FIELDS)
    described = values.pop("features")
    features = tuple(_parse_feature(item, f"{where}.features[{i}]", readings) for i, item in enumerate(described))
    _require(
        0 < len(features) == len(set(features))
        and set(features) <= set(read)
        and not any(feature.is_check for feature in features),
        f"{where}.features expects one or more different features of hidden states, each of which an aspect reads, but "
        f"got {described}.",
    )
    for name, least in (("n_components", 1), ("n_words", 0), ("threshold", 0)):
        _require(least <= values[name] < inf, f"{where}.{name} expects {least} or more, but got {values[name]}.")
    for name, bounds in values["text"].items():
        _one_of(name, tuple(STATISTICS), f"{where}.text")
        sides = bounds if isinstance(bounds, list) else []
        numbers = [side for side in sides if isinstance(side, int | float) and not isinstance(side, bool)]
        _require(
            len(sides) == 2 and len(numbers) + sides.count(None) == 2 and sorted(numbers) == numbers,
            f"{where}.text.{name} expects the lowest and the highest value, or null, but got {bounds!r}.",
        )
    text = {name: (low, high) for name, (low, high) in values.pop("text").items()}
    return Familiar(features, **values, text=text)


def _are_whole(values: list[Any] | tuple[Any, ...]) -> bool:
    return all(isinstance(value, int) and not isinstance(value, bool) for value in values)


def _are_numbers(values: list[Any]) -> bool:
    return all(isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < inf for value in values)


def _check_score_tokens(aspect: Aspect, where: str) -> None:
    """Check that score tokens are read where they are produced: at one reading's last token, one state a layer."""
    head, n_probe, n_classes, ids = aspect.head, len(aspect.probe_features), len(aspect.classes), aspect.head.token_ids
    stacked = head.type == "stacked"
    _require(
        not stacked or 0 < head.n_probe_features < len(aspect.features),
        f"{where}.head.n_probe_features expects 1 to {len(aspect.features) - 1}, so that the probe and the score "
        f"tokens both have features, but got {head.n_probe_features}.",
    )
    asked = "2 or more distinct token ids" if stacked else f"{n_classes} distinct token ids, one a class"
    distinct = _are_whole(ids) and min(ids, default=0) >= 0 and len(set(ids)) == len(ids)
    _require(
        distinct and (len(ids) >= 2 if stacked else len(ids) == n_classes),
        f"{where}.head.token_ids expects {asked}, but got {list(ids)}.",
    )
    states = aspect.token_features
    for i, feature in enumerate(states, start=n_probe):
        _one_of(feature.pooling, ("last",), f"{where}.features[{i}].pooling")
        _one_of(feature.state, ("raw", "final_norm"), f"{where}.features[{i}].state")
    _require(
        len({feature.reading for feature in states}) == 1 and len({f.layer for f in states}) == len(states),
        f"{where}.features expects states of one reading, each of another layer.",
    )


InspectorConfig.register_for_auto_class()
