"""Inspector as a metric of the `evaluate` library: mean scores of responses, from a judge's hidden states."""

import json
from collections.abc import Iterable
from typing import Any

import datasets
import evaluate

from inspector_pipeline.api.mean_scores import mean_scores

_DESCRIPTION = """\
Scores responses to questions by linear probes on the hidden states of a small frozen language model, one score per
aspect (with the embedded judge: semantic consistency, factuality, informativeness, fluency and logicality, 1 to 5).
"""

_KWARGS_DESCRIPTION = """
Args:
    predictions (list of str or turns): the responses, or the assistant's turns; a blank one is an error.
    questions (list of str or turns): their questions, or conversations (`messages`).
    reference, context (list of str, optional): for judges that read reference answers, or what answers should rest on.
    judge (str, optional): Hub id or folder of a judge; the embedded one where it is not given.
    batch_size (int, optional): pairs that are scored together; by default 256.
    return_pairs (bool): whether to give every pair's result too.
    seed (int): of the bootstrap.
    rank_by (str, optional): the field to compare sets of responses by; by default what the judge ranks by.

Returns:
    scores, expected: for each aspect, mean, low and high (95 % bootstrap interval); total_score, expected_total: the
    same of the sums; n: number of pairs; truncated: how many were too long and were cut; unfamiliar, seen: how many are
    unlike what the judge was fitted on, and ask what it was fitted on; ranked: the field that the judge ranks by, with
    and without those; pairs: where asked for, every pair's result.
"""

_CITATION = """\
@inproceedings{inspector2026,
  title = {Representation-as-a-Judge},
  booktitle = {International Conference on Learning Representations},
  year = {2026},
  url = {https://arxiv.org/abs/2601.22588}
}
"""


@evaluate.utils.file_utils.add_start_docstrings(_DESCRIPTION, _KWARGS_DESCRIPTION)
class InspectorScore(evaluate.Metric):
    """Mean scores of responses."""

    def _info(self) -> evaluate.MetricInfo:
        """Describe the metric and its inputs."""
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation=_CITATION,
            inputs_description=_KWARGS_DESCRIPTION,
            features=datasets.Features(
                {"predictions": datasets.Value("string"), "questions": datasets.Value("string")}
            ),
        )

    def add_batch(self, **columns: Any) -> None:
        """Add pairs of texts or turns; what is neither is the library's to refuse."""
        known = {name: own for name, own in columns.items() if own is not None}
        super().add_batch(**{name: [_as_json(one) for one in own] for name, own in known.items()})

    def add(self, **pair: Any) -> None:
        """Add a pair."""
        super().add(**{name: _as_json(one) for name, one in pair.items()})

    def _compute(self, predictions: Iterable[str], questions: Iterable[str], **options: Any) -> dict[str, Any]:
        """Score and average; see `inspector_pipeline.api.mean_scores`."""
        return mean_scores([*map(json.loads, predictions)], [*map(json.loads, questions)], **options)


def _as_json(value: Any) -> Any:
    """Write a text or turns as JSON, each in a way that the other cannot be taken for: the columns hold strings."""
    return json.dumps(value) if isinstance(value, (str, list)) else value
