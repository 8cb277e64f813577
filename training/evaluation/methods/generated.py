"""Prompting: the backbone's whole model is asked for a score and writes a reply, which is read strictly.

Zero-shot, with examples out of the training rows, or with reasons first (chain of thought).
"""

import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from inspector_pipeline.api.load import load_judge
from inspector_pipeline.batches import windows
from inspector_pipeline.encoded import EncodedPair
from inspector_pipeline.errors import SettingsError
from inspector_pipeline.pair_tokenizer import PairTokenizer
from inspector_pipeline.pipeline_inspector import InspectorPipeline
from inspector_pipeline.template import PairTemplate

from ...labelling.journal import Journal
from ...labelling.rubrics import Rubric
from ...probing.table import Labels
from ...rows.records import LabelledPair
from ...runs.manifest import FOLDERS_MANIFEST, Manifest
from ...score_tokens.feedback import generate_replies, load_causal
from ...score_tokens.prompts import ANSWER, rubric_reading
from ..cost import Cost, mean_tokens, pass_flops, seconds_each
from .base import Fold, Method, Predicted, nearest

KEPT_AT_ONCE = 32  # replies, the most that a kill loses
QUESTION = "Question:\n"  # what a rubric's reading has right before the question
LAST_SCORE = re.compile(r"score\W{0,8}(\d+)\b(?![.,]\d)", re.IGNORECASE)


@dataclass(frozen=True)
class GeneratedConfig:
    """Free generation of a score by the backbone's whole model.

    Attributes:
        max_new_tokens: Longest reply.
        folds: How many of the folds to run; null for all. There is nothing to fit, so it only saves time.
    """

    max_new_tokens: int = 16
    folds: int | None = None


@dataclass(frozen=True)
class PromptedConfig(GeneratedConfig):
    """The same with more in the prompt or in the reply.

    Attributes:
        shots: Examples out of the training rows, spread over their scores; 0 for none.
        reasoning: Whether the reply first justifies the score, which then is the last one that it names.
    """

    shots: int = 0
    reasoning: bool = False

    def __post_init__(self) -> None:
        """Refuse examples of reasons, which the training rows do not have.

        Raises:
            SettingsError: They are asked for, or fewer than none.
        """
        if self.shots < 0 or (self.shots and self.reasoning):
            raise SettingsError(
                f"shots expects 0 or more, and 0 with reasoning, since labels bring no reasons, but got {self.shots}."
            )

    @property
    def described(self) -> str:
        """What it is, in a few words."""
        if self.reasoning:
            return "the backbone justifies a score and then writes it; a reply without one is a failure"
        return f"the backbone writes a score after {self.shots} examples of the training rows"


class GeneratedMethod(Method):
    """The model is asked for a score and writes a reply, which is read strictly."""

    description = "the backbone writes a score; what is no score of the scale is a failure"

    def __init__(
        self,
        config: GeneratedConfig,
        judge: str,
        rubrics: Sequence[Rubric],
        pairs: Sequence[LabelledPair],
        labels: Labels,
        sample: int,
        *,
        name: str = "generated",
        keep: Path | None = None,
    ) -> None:
        """Load the whole model of a judge's backbone.

        Args:
            config: Settings.
            judge: A judge of score tokens, whose backbone is asked.
            rubrics: Of the aspects that are asked for.
            pairs: All pairs.
            labels: Their labels, out of which examples are taken.
            sample: Number of pairs that are timed.
            name: Its name in the table.
            keep: Folder that keeps replies, so that a killed run goes on.
        """
        self.name, self.keep, self.n_folds, self.max_new_tokens = name, keep, config.folds, config.max_new_tokens
        self.pairs, self.labels, self.sample = pairs, labels, sample
        self.asked = config if isinstance(config, PromptedConfig) else PromptedConfig(config.max_new_tokens)
        if isinstance(config, PromptedConfig):
            self.description = config.described
        self.budget = f"{self.asked.shots} labels as examples" if self.asked.shots else "no labels"
        self.judge: InspectorPipeline = load_judge(judge)
        self.manifest = Manifest.of("replies", {"max_new_tokens": self.max_new_tokens}, [Path(judge, FOLDERS_MANIFEST)])
        self.model, tokenizer = load_causal(self.judge), self.judge.tokenizer
        self.scales = {rubric.name: rubric.scores for rubric in rubrics}
        how = {"feedback": True} if self.asked.reasoning else {"answer": ""}
        self.readings = {rubric.name: rubric_reading(rubric, tokenizer, **how) for rubric in rubrics}
        self.failures = {name: {"failed": 0, "of": 0} for name in self.scales}

    def fit(self, fold: Fold) -> Callable[[Labels], Predicted]:
        """There is nothing to fit but to choose examples."""
        encoders = self._encoders(fold.train)
        return lambda rows: self._predict(encoders, rows)

    def _encoders(self, train: Labels) -> dict[str, PairTokenizer]:
        length, tokenizer = self.judge.model.config.max_length, self.judge.tokenizer
        readings = {name: self._with_examples(name, reading, train) for name, reading in self.readings.items()}
        return {name: PairTokenizer(reading, tokenizer, length) for name, reading in readings.items()}

    def _with_examples(self, name: str, reading: PairTemplate, train: Labels) -> PairTemplate:
        """Put examples before the question, spread over the scores of an aspect's training rows."""
        rows = np.flatnonzero((train.aspect == train.names.index(name)) & ~train.auxiliary)
        if not self.asked.shots or not len(rows):
            return reading
        by_score = rows[np.lexsort((train.row[rows], train.score[rows]))]
        chosen = by_score[np.linspace(0, len(rows) - 1, min(self.asked.shots, len(rows))).round().astype(int)]
        control = self.judge.tokenizer.all_special_tokens
        shown = ""
        for pair, score in zip(train.pair[chosen], train.score[chosen], strict=True):
            one = self.pairs[pair]
            text = f"{QUESTION}{one.question}\n\nResponse:\n{one.prediction}\n\n{ANSWER}{score}\n\n"
            shown += "" if any(token in text for token in control) else text  # in a prompt it would be a control token
        return replace(reading, prefix=f"{reading.prefix.removesuffix(QUESTION)}{shown}{QUESTION}")

    def _predict(self, encoders: Mapping[str, PairTokenizer], rows: Labels) -> Predicted:
        """Ask for the scores of rows; those whose reply fails have no prediction."""
        read = read_last_score if self.asked.reasoning else read_score
        for name, scale in self.scales.items():
            asked = np.flatnonzero(rows.aspect == rows.names.index(name))
            encoded = [encoders[name](**self.pairs[i].texts) for i in rows.pair[asked]]
            scores = [read(reply, scale) for reply in self._replies(encoded)]
            self.failures[name]["of"] += len(scores)
            self.failures[name]["failed"] += scores.count(None)
            kept = [i for i, score in enumerate(scores) if score is not None]
            yield rows.row[asked[kept]], nearest(np.array([scores[i] for i in kept], dtype=float), np.array(scale))

    def _replies(self, prompts: Sequence[EncodedPair]) -> list[str]:
        """Return replies; those that a killed run had are taken from its journal."""
        if self.keep is None:
            return self._written(prompts)
        keys = [(hashlib.sha256(repr(prompt.input_ids).encode()).hexdigest(),) for prompt in prompts]
        with Journal(self.keep / f"{self.name}.replies", self.manifest) as journal:
            missing = {key: prompt for key, prompt in zip(keys, prompts, strict=True) if key not in journal.entries}
            for window in windows(missing.items(), KEPT_AT_ONCE):
                replies = self._written([prompt for _, prompt in window])
                told = zip(window, replies, strict=True)
                journal.append(*({"key": list(key), "reply": reply} for (key, _), reply in told))
            return [journal.entries[key]["reply"] for key in keys]

    def _written(self, prompts: Sequence[EncodedPair]) -> list[str]:
        replies = generate_replies(self.model, self.judge.tokenizer, prompts, self.max_new_tokens)
        return list(self.judge.tokenizer.batch_decode(replies, skip_special_tokens=True))

    def cost(self, _notes: Mapping[str, Any]) -> Cost:
        """Time the replies on a sample of pairs, for all aspects."""
        sample, encoders = self.pairs[: self.sample], self._encoders(self.labels)
        prompts = {name: [encode(**pair.texts) for pair in sample] for name, encode in encoders.items()}
        seconds = seconds_each(lambda: [self._written(own) for own in prompts.values()], len(sample))
        lengths = [mean_tokens(own) + self.max_new_tokens for own in prompts.values()]
        flops = sum(pass_flops(self.model.config, length) for length in lengths)
        return Cost(seconds, flops, sum(parameter.numel() for parameter in self.model.parameters()))

    def notes(self) -> dict[str, Any]:
        """The failures of each aspect."""
        return {"failures": self.failures}


def read_last_score(reply: str, scores: Sequence[int]) -> int | None:
    """Read the last score that a reply names after the word "score"; None where it names none of the scale."""
    found = LAST_SCORE.findall(reply)
    return int(found[-1]) if found and int(found[-1]) in scores else None


def read_score(reply: str, scores: Sequence[int]) -> int | None:
    """Read a reply strictly: a score of the scale, after "Score:" or alone, and nothing else; else None."""
    found = re.fullmatch(r"\s*(?:score\s*:)?\s*(\d+)\s*\.?\s*", reply, re.IGNORECASE)
    return int(found[1]) if found and int(found[1]) in scores else None
