"""What every case of a run reads: the same pairs, the same judge, the same whole backbone, the same rubric judge."""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import cycle, islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel, AutoTokenizer, PreTrainedModel

from inspector_pipeline.api.load import EXAMPLES, judge_name, load_judge
from inspector_pipeline.backbone import backbone_location
from inspector_pipeline.configuration_inspector import InspectorConfig
from inspector_pipeline.devices import token_budget
from inspector_pipeline.errors import DataFileError
from inspector_pipeline.features import Feature
from inspector_pipeline.heads import probe_key
from inspector_pipeline.int8 import is_int8
from inspector_pipeline.modeling_inspector import InspectorModel
from inspector_pipeline.pair_tokenizer import PairTokenizer
from inspector_pipeline.pipeline_inspector import InspectorPipeline
from inspector_pipeline.template import PairTemplate

from ..evaluation.cost import LayerShape
from ..judges.build import AspectHead, BackboneSpec, judge_config
from ..rows.probing_set import drop_foreign, read_probing_set, read_questions
from .config import BenchmarkConfig
from .measure import Work

Pair = dict[str, str]

# Of the published gsm8k_multi classifiers, on a backbone of 30 layers; informativeness, as the others' middle, is ours.
PUBLISHED_LAYERS = {
    "semantic_consistency": (16, 28),
    "logicality": (17,),
    "informativeness": (16,),
    "fluency": (2,),
    "factuality": (16, 20),
}
PUBLISHED_DEPTH = 30
STANDARDISED_ON = 8  # pairs


@dataclass(frozen=True)
class Inputs:
    """What a case works on.

    Attributes:
        config: Settings of the run.
    """

    config: BenchmarkConfig

    @property
    def judge_id(self) -> str:
        """Folder or id of the judge that is measured."""
        return judge_name(self.config.judge)

    @cached_property
    def judge_config(self) -> InspectorConfig:
        """The judge's config."""
        found: InspectorConfig = InspectorConfig.from_pretrained(self.judge_id)
        return found

    @cached_property
    def _set(self) -> tuple[list[Pair], dict[str, PairTemplate]]:
        if self.config.probing_set is None:
            rows = (json.loads(line) for line in EXAMPLES.read_text(encoding="utf-8").splitlines())
            return [{key: row[key] for key in ("question", "prediction")} for row in rows], {}
        pairs, readings = read_probing_set(self.config.probing_set)
        if self.config.questions:
            pairs, _ = drop_foreign(pairs, read_questions(self.config.questions))
        if not pairs:
            raise DataFileError(f"{self.config.probing_set} expects pairs of a known question, but holds none.")
        return [{"question": pair.question, "prediction": pair.prediction} for pair in pairs], readings

    @property
    def all_pairs(self) -> list[Pair]:
        """Every pair of the set, in its order."""
        return self._set[0]

    @property
    def rubrics(self) -> dict[str, PairTemplate]:
        """Aspect -> its rubric reading."""
        return self._set[1]

    @property
    def pairs(self) -> list[Pair]:
        """The pairs of the throughput cases: the first of the set."""
        return self.all_pairs[: self.config.pairs]

    @cached_property
    def location(self) -> tuple[str, dict[str, Any]]:
        """The judge's whole backbone: a folder or Hub id, and what pins it."""
        return backbone_location(self.judge_config.backbone_id, self.judge_config.backbone_revision, None)

    @cached_property
    def tokenizer(self) -> Any:
        """The whole backbone's tokenizer."""
        name, pinned = self.location
        return AutoTokenizer.from_pretrained(name, **pinned)

    @cached_property
    def backbone_config(self) -> Any:
        """The whole backbone's config."""
        name, pinned = self.location
        return AutoConfig.from_pretrained(name, **pinned).get_text_config()

    @property
    def shape(self) -> LayerShape:
        """Sizes of the backbone's layers."""
        return LayerShape.of(self.backbone_config)

    @cached_property
    def chat(self) -> PairTokenizer:
        """The chat reading of the whole backbone."""
        max_length = self.backbone_config.max_position_embeddings
        return PairTokenizer(PairTemplate.from_chat_template(self.tokenizer), self.tokenizer, max_length)

    def chat_lengths(self, pairs: list[Pair]) -> list[int]:
        """Return the tokens of each pair in the chat reading."""
        return [len(self.chat(pair["question"], pair["prediction"]).input_ids) for pair in pairs]

    def load_judge(
        self, dtype: str, name: str | Path | None = None, device: str = "cpu", engine: str | None = None
    ) -> InspectorPipeline:
        """Load the judge that is measured, or another one."""
        return load_judge(name or self.judge_id, dtype=getattr(torch, dtype), device=device, engine=engine)

    def pairs_of(self, n_tokens: int, n_pairs: int) -> Iterator[Pair]:
        """Make up pairs of a given length out of the set's own words; no two begin alike.

        Args:
            n_tokens: Tokens in the chat reading; missed by a few where the tokenizer merges across borders.
            n_pairs: How many.
        """
        words = [word for pair in self.all_pairs for word in pair["prediction"].split()]
        wanted = max(2, n_tokens - len(self.chat("a", "a").input_ids))
        per_word = len(self.tokenizer(" ".join(words[:2000]))["input_ids"]) / min(len(words), 2000)
        for i in range(n_pairs):
            # Steps of a large prime, so that pairs begin at different places and few words stand first twice.
            stream = islice(cycle(words), i * 7919 % len(words), None)
            yield self._cut(list(islice(stream, int(wanted / per_word * 2) + 8)), i, n_tokens)

    def _cut(self, words: list[str], number: int, n_tokens: int) -> Pair:
        """Take the first words that fill a pair of some tokens; the first fifth is the question."""
        low, high = 2, len(words)
        while low < high:
            middle = (low + high + 1) // 2
            fits = self.chat_lengths([_pair_of(words[:middle], number)])[0] <= n_tokens
            low, high = (middle, high) if fits else (low, middle - 1)
        return _pair_of(words[:low], number)


def _pair_of(words: list[str], number: int) -> Pair:
    border = max(1, len(words) // 5)
    return {"question": " ".join([f"{number}:", *words[:border]]), "prediction": " ".join(words[border:])}


def rubric_layers(n_layers: int) -> dict[str, tuple[int, ...]]:
    """Return the states that each aspect of the rubric judge reads, of a backbone of some layers."""
    return {
        aspect: tuple(dict.fromkeys(max(1, layer * n_layers // PUBLISHED_DEPTH) for layer in layers))
        for aspect, layers in PUBLISHED_LAYERS.items()
    }


def rubric_config(inputs: Inputs) -> InspectorConfig:
    """Describe the rubric judge: a reading per aspect, mean pooling over all tokens, raw states."""
    whole, judge = inputs.backbone_config, inputs.judge_config
    backbone = BackboneSpec(judge.backbone_id, judge.backbone_revision, max_length=whole.max_position_embeddings)
    head = {"type": "linear", "rule": "logistic", "members": 1}
    aspects = [
        AspectHead(aspect, [Feature(aspect, layer, "mean", "raw") for layer in layers], head, [1, 2, 3, 4, 5])
        for aspect, layers in rubric_layers(whole.num_hidden_layers).items()
    ]
    readings = {aspect.name: inputs.rubrics[aspect.name].to_dict() for aspect in aspects}
    return judge_config(backbone, readings, aspects, whole)


def make_rubric_judge(inputs: Inputs) -> Path:
    """Make a rubric judge with the layers of the published classifiers, for speed and equality alone.

    Its probes are random, fixed by the seed, but on standardised states: each dimension is centred and scaled by what
    the run's first pairs show, so that scores differ between pairs and equality means something. It is of no use as a
    judge. It stands in the output's folder, named by what it is made of, and is not made again.

    Returns:
        Its folder.
    """
    backbone = (inputs.judge_config.backbone_id, inputs.judge_config.backbone_revision)
    made_of = json.dumps([inputs.config.seed, *backbone, inputs.pairs, sorted(inputs.rubrics)])
    folder = Path(inputs.config.output) / f"rubric_judge-{hashlib.sha256(made_of.encode()).hexdigest()[:8]}"
    if folder.is_dir():
        return folder
    model = InspectorModel(rubric_config(inputs))
    generator = torch.Generator().manual_seed(inputs.config.seed)
    centers, scales = _standardisation(inputs, model)
    model.centers.data = centers
    for aspect in model.aspects:
        weight: nn.Parameter = model.probes[probe_key(aspect.name)].get_parameter("weight")
        rows = [model.features.index(feature) for feature in aspect.features]
        directions = torch.randn(weight.shape, generator=generator)
        weight.data = directions / (scales[rows] * weight[0].numel() ** 0.5)
    with TemporaryDirectory(dir=folder.parent) as scratch:  # put in place whole, or not at all
        model.save_pretrained(Path(scratch, folder.name), fused=False)
        Path(scratch, folder.name).rename(folder)
    return folder


def _standardisation(inputs: Inputs, model: InspectorModel) -> tuple[Tensor, Tensor]:
    """Pool states of a few pairs by plain transformers: their mean and spread, (features, hidden) each."""
    name, pinned = inputs.location
    backbone = AutoModel.from_pretrained(name, dtype=torch.float32, **pinned).eval()
    pooled: list[list[Tensor]] = [[] for _ in model.features]
    with torch.inference_mode():
        for pair in inputs.pairs[:STANDARDISED_ON]:
            for reading, rubric in inputs.rubrics.items():
                ids = inputs.tokenizer(rubric.text(**pair), return_tensors="pt")["input_ids"]
                states = backbone(ids, use_cache=False, output_hidden_states=True).hidden_states
                for row, feature in enumerate(model.features):
                    if feature.reading == reading:
                        pooled[row].append(states[feature.layer][0].mean(dim=0))
    stacked = torch.stack([torch.stack(rows) for rows in pooled])
    spread = stacked.std(dim=1, correction=0)
    return stacked.mean(dim=1), spread.clamp_min(1e-3 * spread.amax(dim=1, keepdim=True)).clamp_min(1e-6)


def work_of(inputs: Inputs, loaded: InspectorPipeline, pairs: list[Pair], dtype: str) -> Work:
    """Count what scoring some pairs takes: every reading to its own deepest layer, at least one."""
    backbone: PreTrainedModel = loaded.model.backbone
    budget = token_budget(loaded.device, is_int8(backbone))
    shape = LayerShape.of(backbone.config)
    features = [feature for aspect in loaded.model.aspects for feature in aspect.features]
    encoded = [loaded.encode(pair) for pair in pairs]
    tokens = flops = 0
    for reading in loaded.encode.encoders:
        lengths = [len(own[reading].input_ids) for own in encoded]
        tokens += sum(lengths)
        flops += shape.flops(lengths, max(1, *(f.layer for f in features if f.reading == reading)))
    return Work(
        dtype=dtype,
        pairs=len(pairs),
        tokens=tokens,
        chat_tokens=sum(inputs.chat_lengths(pairs)),
        flops=flops,
        shape=shape,
        batch_tokens=min(budget, tokens),
    )
