"""Free generation: the backbone's whole model is asked for a score and writes a reply, which is read strictly."""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from inspector_pipeline.api.load import load_judge
from inspector_pipeline.pipeline_inspector import InspectorPipeline
from inspector_pipeline.template import PairTokenizer

from ...labelling.rubrics import Rubric
from ...probing.table import Labels
from ...rows.records import LabelledPair
from ...score_tokens.feedback import generate_replies, load_causal
from ...score_tokens.prompts import rubric_reading
from ..cost import Cost, mean_tokens, pass_flops, seconds_each
from .base import Fold, Method, Predicted, nearest


@dataclass(frozen=True)
class GeneratedConfig:
    """Free generation of a score by the backbone's whole model.

    Attributes:
        max_new_tokens: Longest reply.
        folds: How many of the folds to run; null for all. There is nothing to fit, so it only saves time.
    """

    max_new_tokens: int = 16
    folds: int | None = None


class GeneratedMethod(Method):
    """The model is asked for a score and writes a reply, which is read strictly."""

    name = "generated"
    description = "the backbone writes a score; what is no score of the scale is a failure"
    budget = "no labels"

    def __init__(
        self, config: GeneratedConfig, judge: str, rubrics: Sequence[Rubric], pairs: Sequence[LabelledPair], sample: int
    ) -> None:
        """Load the whole model of a judge's backbone.

        Args:
            config: Settings.
            judge: A judge of score tokens, whose backbone is asked.
            rubrics: Of the aspects that are asked for.
            pairs: All pairs.
            sample: Number of pairs that are timed.
        """
        self.max_new_tokens, self.n_folds, self.pairs, self.sample = config.max_new_tokens, config.folds, pairs, sample
        self.judge: InspectorPipeline = load_judge(judge)
        self.model, tokenizer = load_causal(self.judge), self.judge.tokenizer
        self.scales = {rubric.name: rubric.scores for rubric in rubrics}
        readings = {rubric.name: rubric_reading(rubric, tokenizer, answer="") for rubric in rubrics}
        length = self.judge.model.config.max_length
        self.encoders = {name: PairTokenizer(reading, tokenizer, length) for name, reading in readings.items()}
        self.failures = {name: {"failed": 0, "of": 0} for name in self.scales}

    def fit(self, _fold: Fold) -> Callable[[Labels], Predicted]:
        """There is nothing to fit."""
        return self._predict

    def _predict(self, rows: Labels) -> Predicted:
        """Ask for the scores of rows; those whose reply fails have no prediction."""
        for name, scale in self.scales.items():
            asked = np.flatnonzero(rows.aspect == rows.names.index(name))
            scores = [read_score(reply, scale) for reply in self._replies(name, rows.pair[asked])]
            self.failures[name]["of"] += len(scores)
            self.failures[name]["failed"] += scores.count(None)
            kept = [i for i, score in enumerate(scores) if score is not None]
            yield rows.row[asked[kept]], nearest(np.array([scores[i] for i in kept], dtype=float), np.array(scale))

    def _replies(self, name: str, units: Iterable[int]) -> list[str]:
        encoded = [self.encoders[name](**self.pairs[i].texts) for i in units]
        replies = generate_replies(self.model, self.judge.tokenizer, encoded, self.max_new_tokens)
        return list(self.judge.tokenizer.batch_decode(replies, skip_special_tokens=True))

    def cost(self, _notes: Mapping[str, Any]) -> Cost:
        """Time the replies on a sample of pairs, for all aspects."""
        units = range(min(self.sample, len(self.pairs)))
        seconds = seconds_each(lambda: [self._replies(name, units) for name in self.scales], len(units))
        flops = 0.0
        for encode in self.encoders.values():
            tokens = mean_tokens([encode(**self.pairs[i].texts) for i in units])
            flops += pass_flops(self.model.config, tokens + self.max_new_tokens)
        return Cost(seconds, flops)

    def notes(self) -> dict[str, Any]:
        """The failures of each aspect."""
        return {"failures": self.failures}


def read_score(reply: str, scores: Sequence[int]) -> int | None:
    """Read a reply strictly: a score of the scale, after "Score:" or alone, and nothing else; else None."""
    found = re.fullmatch(r"\s*(?:score\s*:)?\s*(\d+)\s*\.?\s*", reply, re.IGNORECASE)
    return int(found[1]) if found and int(found[1]) in scores else None
