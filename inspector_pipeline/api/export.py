"""Export a judge as a plain sequence classifier, which transformers and serving engines run without any code of ours.

A `...ForSequenceClassification` model has one shape: the decoder, its final norm, one linear map without a bias, and
the result of the last token that is not padding. A judge has that shape where all its aspects are regressions on one
RMS-normed last-token state, uncentred and without an intercept: the final norm's weight is then 1, and every aspect is
a row of the linear map. Its logits are the judge's decision values, that is predicted scores before they are held
within the lowest and the highest class.
"""

import copy
import json
import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from string import Template
from typing import Any, cast

import torch
from torch import Tensor, nn
from transformers import AutoModelForSequenceClassification, AutoTokenizer, PreTrainedModel
from transformers.utils import logging as hf_logging

from ..batches import collate
from ..errors import BackboneError, JudgeConfigError
from ..features import Feature, rms_normalize
from ..heads import LinearProbe, probe_key
from ..modeling_inspector import InspectorModel
from ..pair_tokenizer import PairTokenizer
from ..pipeline_inspector import InspectorPipeline
from ..template import PairTemplate
from ..truncation import find_decoder_parts
from .load import EVIDENCE, evidence_path

README_TEMPLATE = Path(__file__).parents[1] / "assets" / "sequence_classification.md"
SCORE = "score"  # what transformers calls the linear map

# How far the export may be from the judge: exact in float32, within what batching alone moves in half precision.
TOLERANCE = 1e-4
HALF_TOLERANCE = 0.1

_TRIED = (
    ("What is 2 + 2?", "2 + 2 = 4, so the answer is 4."),
    ("A train goes 60 miles in an hour. How far does it go in three?", "180"),
)


def export_sequence_classification(judge: InspectorPipeline, output: str | os.PathLike[str]) -> Path:
    """Write a judge as a plain `...ForSequenceClassification` checkpoint with tokenizer, README and its evidence.

    The written folder is loaded again by plain transformers and compared with the judge before it is put in its place.

    Args:
        judge: A loaded judge. The export has the dtype that the judge was loaded in, and float32 probes.
        output: A folder that does not exist yet, or is empty.

    Returns:
        The folder.

    Raises:
        JudgeConfigError: The judge is not of the shape that can be exported; the message says why.
        BackboneError: Its backbone has no sequence classifier in transformers, or one of another shape.
        FileExistsError: The folder holds something.

    Example:
        >>> export_sequence_classification(load_judge("org/inspector-last"), "plain")  # doctest: +SKIP
    """
    target = Path(output)
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise FileExistsError(f"An export expects a new or empty folder, but {target} holds something.")
    feature = exported_feature(judge.model)
    template = judge.encode.encoders[feature.reading].template
    _require(
        not template.question_only, "a reading with question and prediction, but this judge's holds the question alone"
    )
    _require(not template.slots, f"a reading of question and prediction, but this judge's holds {template.slots} too")
    tokenizer = _exported_tokenizer(judge, template)
    model = _sequence_classifier(judge.model, tokenizer.pad_token_id)
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}.") as scratch:
        folder = Path(scratch) / "export"
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        (folder / "README.md").write_text(_readme(judge, template, type(model).__name__), encoding="utf-8")
        evidence = evidence_path(judge.model)
        if evidence is not None:
            shutil.copyfile(evidence, folder / EVIDENCE)
        _compare(judge, folder, feature.reading)
        if target.exists():
            target.rmdir()
        folder.rename(target)
    return target


def exported_feature(model: InspectorModel) -> Feature:
    """Return the one feature of a judge that can be exported.

    Raises:
        JudgeConfigError: The judge is of another shape; the message says where.
    """
    _require(not model.config.engine, "a judge in floating point, but this one's probes were fitted in whole numbers")
    _require(
        len(model.features) == 1,
        f"aspects that all read one feature, but this judge's read {len(model.features)}",
    )
    _require(not model.checks, "probes that read hidden states alone, but this one's read checks of the response too")
    _require(not model.level_maps, "a judge that was not calibrated, but this one was: its map is no part of that form")
    feature = model.features[0]
    for name, expected in (("layer", model.config.depth), ("pooling", "last"), ("state", "rms_normed")):
        found = getattr(feature, name)
        _require(found == expected, f"a feature of {name} {expected}, but this judge's has {name} {found}")
    _require(not model.centers.any(), "states that are not centred, but this judge's are: its centers are not zero")
    for aspect in model.aspects:
        rule, probe = aspect.head.rule, _probe(model, aspect.name)
        _require(rule == "regression", f"the rule regression, but {aspect.name} has {rule}")
        _require(not probe.bias.any(), f"no intercept, but that of {aspect.name} is {probe.bias.item():.4g}")
        levels = probe.get_parameter("levels").tolist()
        _require(
            levels == [float(c) for c in aspect.classes],
            f"levels that are the classes, but those of {aspect.name} are {levels}",
        )
    return feature


def _probe(model: InspectorModel, aspect_name: str) -> LinearProbe:
    return cast(LinearProbe, model.probes[probe_key(aspect_name)])


def _require(holds: bool | Tensor, reason: str) -> None:
    """Refuse a judge of another shape."""
    if not holds:
        raise JudgeConfigError(
            f"An export to sequence-classification expects {reason}. Its one shape is a linear map, without a bias, of "
            "the RMS-normed last token of the deepest layer: fit a judge for it, or run this one with "
            "inspector_pipeline."
        )


def _exported_tokenizer(judge: InspectorPipeline, template: PairTemplate) -> Any:
    """Copy the tokenizer, with a pad token that no pair ends on and the judge's template as its chat template.

    Plain classifiers find the last token as the last one that is not the pad id. Where a reading ends on the pad token,
    as SmolLM2's does, they would read one token early.
    """
    tokenizer = copy.deepcopy(judge.tokenizer)
    encoder = PairTokenizer(template, tokenizer, judge.model.config.max_length)
    last = {encoder(*pair).input_ids[-1] for pair in _TRIED}
    n_rows = judge.model.config.backbone_config.vocab_size
    preferred = (tokenizer.pad_token_id, tokenizer.unk_token_id, *sorted(encoder.control_ids, reverse=True))
    fit = [i for i in preferred if i in encoder.control_ids and i not in last and i < n_rows]
    if not fit:
        raise JudgeConfigError(
            "An export to sequence-classification expects a tokenizer with a special token that no pair ends on, to "
            f"pad with, but got only {tokenizer.all_special_tokens}. Add one to the backbone's tokenizer."
        )
    tokenizer.pad_token = tokenizer.convert_ids_to_tokens(fit[0])
    tokenizer.padding_side = "right"
    tokenizer.chat_template = None if template.add_special_tokens else _chat_template(template)
    return tokenizer


def _chat_template(template: PairTemplate) -> str:
    """Write a judge's template as a chat template: a user's and an assistant's turn, verbatim between its literals."""
    # JSON's escapes are Jinja's too, as long as no character is written as two surrogates.
    prefix, middle, suffix = (
        json.dumps(text, ensure_ascii=False) for text in (template.prefix, template.middle or "", template.suffix)
    )
    return (
        "{% if messages | map(attribute='role') | list != ['user', 'assistant'] %}"
        "{{ raise_exception('A judge expects one user turn and one assistant turn.') }}{% endif %}"
        f"{{{{ {prefix} + messages[0]['content'] + {middle} + messages[1]['content'] + {suffix} }}}}"
    )


def _sequence_classifier(judge: InspectorModel, pad_token_id: int) -> PreTrainedModel:
    """Build the plain model; its decoder's weights are the judge's own tensors."""
    backbone = judge.backbone
    if backbone is None:
        raise BackboneError("An export expects a judge with its backbone, but this one holds probes only.")
    if getattr(backbone.config, "quantization_config", None) is not None:
        raise BackboneError(
            "An export expects a backbone in plain weights, but this one is quantised. Load it without."
        )
    names = {i: aspect.name for i, aspect in enumerate(judge.aspects)}
    config = copy.deepcopy(judge.config.backbone_config)
    config.update(
        {
            "id2label": names,
            "label2id": {name: i for i, name in names.items()},
            "problem_type": "regression",
            "pad_token_id": pad_token_id,
        }
    )
    config.dtype = backbone.dtype
    try:
        with torch.device("meta"):
            model: PreTrainedModel = AutoModelForSequenceClassification.from_config(config)
    except ValueError as error:
        raise BackboneError(
            "An export expects a backbone with a sequence classifier in transformers, but "
            f"{config.model_type} has none."
        ) from error
    base = model.base_model_prefix
    parts = find_decoder_parts(getattr(model, base), config.num_hidden_layers)
    norm_path = ".".join(filter(None, (base, parts.path, parts.norm_name)))
    state = {f"{base}.{name}": tensor for name, tensor in backbone.state_dict().items()}
    for name, tensor in _plain_rms_norm(model.get_submodule(norm_path), judge.config.rms_norm_eps).items():
        state[f"{norm_path}.{name}"] = tensor.to(backbone.dtype)
    state[f"{SCORE}.weight"] = torch.cat([_probe(judge, aspect.name).weight.flatten(1) for aspect in judge.aspects])
    found = model.load_state_dict(state, strict=False, assign=True)
    if found.missing_keys or found.unexpected_keys:
        raise BackboneError(
            f"An export expects {type(model).__name__} to have the decoder's weights, its norm's and {SCORE}.weight, "
            f"but it differs in {', '.join([*found.missing_keys, *found.unexpected_keys][:5])}."
        )
    return model.eval()


def _plain_rms_norm(norm: nn.Module, eps: float) -> dict[str, Tensor]:
    """Find the parameters that make a backbone's norm a plain RMS norm.

    A weight of 1 does in most; of 0, where the norm multiplies by 1 + weight.

    Args:
        norm: The final norm, on the meta device.
        eps: The epsilon of the judge's RMS-normed states.

    Returns:
        float32 tensors by the parameter's name.

    Raises:
        BackboneError: None do, as with a LayerNorm.
    """
    norm = copy.deepcopy(norm).to_empty(device="cpu").float()
    parameters = dict(norm.named_parameters())
    width = max((parameter.numel() for parameter in parameters.values()), default=64)
    generator = torch.Generator().manual_seed(0)
    states = torch.randn(5, width, generator=generator) + 0.5  # not of mean zero, which a LayerNorm subtracts
    states = states * torch.logspace(-3, 3, 5).unsqueeze(1)  # small ones tell epsilons apart
    for weight in (1.0, 0.0):
        filled = {name: torch.full_like(p, weight if name == "weight" else 0.0) for name, p in parameters.items()}
        norm.load_state_dict(filled, strict=False)
        with torch.no_grad():
            if torch.allclose(norm(states), rms_normalize(states, eps), rtol=1e-5, atol=1e-6):
                return filled
    raise BackboneError(
        "An export to sequence-classification expects a backbone whose final norm is an RMS norm of the judge's "
        f"epsilon, but {type(norm).__name__} divides by something else. Run this judge with inspector_pipeline."
    )


def _compare(judge: InspectorPipeline, folder: Path, reading_name: str) -> None:
    """Load an export as anyone would, and refuse one that does not give the judge's decision values."""
    encoder = judge.encode.encoders[reading_name]
    dtype, device = judge.model.dtype, judge.model.device
    tolerance = TOLERANCE if dtype == torch.float32 else HALF_TOLERANCE
    hf_logging.disable_progress_bar()
    try:
        model = AutoModelForSequenceClassification.from_pretrained(folder, dtype=dtype).eval().to(device)
    finally:
        hf_logging.enable_progress_bar()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    texts = [encoder.template.text(*pair) for pair in _TRIED]
    plain = tokenizer(
        texts, padding=True, return_tensors="pt", add_special_tokens=encoder.template.add_special_tokens
    ).to(device)
    batch = collate([encoder(*pair) for pair in _TRIED], tokenizer.pad_token_id)
    with torch.no_grad():
        logits = model(plain["input_ids"], attention_mask=plain["attention_mask"]).logits.float()
        output = judge.model(**{name: tensor.to(device) for name, tensor in batch.items()})
    difference = (logits - torch.cat(output.decision_values, dim=1)).abs().max().item()
    if not difference <= tolerance:
        raise BackboneError(
            f"An export expects logits within {tolerance:g} of the judge's decision values, but {type(model).__name__} "
            f"differs by {difference:.3g} in {dtype}: it reads its states otherwise. Run this judge with "
            "inspector_pipeline."
        )


def _readme(judge: InspectorPipeline, template: PairTemplate, class_name: str) -> str:
    config, aspects = judge.model.config, judge.model.aspects
    rows = [
        f"| {i} | {a.name} | {', '.join(map(str, a.classes))} | {'yes' if a.counts_in_total else 'no'} |"
        for i, a in enumerate(aspects)
    ]
    values: Mapping[str, Any] = {
        "class_name": class_name,
        "depth": config.depth,
        "backbone": config.backbone_id or "its backbone",
        "aspects": "\n".join(rows),
        "prefix": repr(template.prefix),
        "middle": repr(template.middle),
        "suffix": repr(template.suffix),
        "add_special_tokens": template.add_special_tokens,
        "add_special_tokens_json": json.dumps(template.add_special_tokens),
        "lowest": [a.classes[0] for a in aspects],
        "highest": [a.classes[-1] for a in aspects],
        "max_length": config.max_length,
    }
    return Template(README_TEMPLATE.read_text(encoding="utf-8")).substitute(values)
