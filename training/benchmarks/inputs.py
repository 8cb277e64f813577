"""What every case of a run reads: the same pairs, the same judge, the same whole backbone."""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoTokenizer

from inspector_pipeline.api.load import judge_name, load_judge
from inspector_pipeline.backbone import backbone_location
from inspector_pipeline.configuration_inspector import InspectorConfig
from inspector_pipeline.errors import DataFileError
from inspector_pipeline.pipeline_inspector import InspectorPipeline
from inspector_pipeline.template import PairTemplate, PairTokenizer

from ..evaluation.cost import LayerShape
from ..rows.probing_set import drop_foreign, read_probing_set, read_questions
from .config import BenchmarkConfig

Pair = dict[str, str]

RUBRIC_JUDGE = "rubric_judge"


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

    @property
    def rubric_folder(self) -> Path:
        """Where the rubric judge lies, by what it is made of."""
        backbone = (self.judge_config.backbone_id, self.judge_config.backbone_revision)
        made_of = json.dumps([self.config.seed, *backbone, self.pairs, sorted(self.rubrics)])
        return Path(self.config.output) / f"{RUBRIC_JUDGE}-{hashlib.sha256(made_of.encode()).hexdigest()[:8]}"

    @cached_property
    def judge_config(self) -> InspectorConfig:
        """The judge's config."""
        found: InspectorConfig = InspectorConfig.from_pretrained(self.judge_id)
        return found

    @cached_property
    def _set(self) -> tuple[list[Pair], dict[str, PairTemplate]]:
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

    def load_judge(self, dtype: str, name: str | None = None) -> InspectorPipeline:
        """Load the judge that is measured, or another one."""
        return load_judge(name or self.judge_id, dtype=getattr(torch, dtype))

    def pairs_of(self, n_tokens: int, n_pairs: int) -> Iterator[Pair]:
        """Make up pairs of a given length out of the set's own words; no two begin alike.

        Args:
            n_tokens: Tokens in the chat reading; missed by a few where the tokenizer merges across borders.
            n_pairs: How many.
        """
        words = [word for pair in self.all_pairs for word in pair["prediction"].split()]
        overhead = len(self.chat("a", "a").input_ids)
        wanted = max(2, n_tokens - overhead)
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
            if len(self.chat(*_texts(words[:middle], number)).input_ids) <= n_tokens:
                low = middle
            else:
                high = middle - 1
        return dict(zip(("question", "prediction"), _texts(words[:low], number), strict=True))


def _texts(words: list[str], number: int) -> tuple[str, str]:
    border = max(1, len(words) // 5)
    return " ".join([f"{number}:", *words[:border]]), " ".join(words[border:])
