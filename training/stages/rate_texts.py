r"""Compare judges of a text's rating with labels that none of them was tuned on.

    python -m training rate_texts --rows work/emotion/rows.jsonl --without work/emotion/few.jsonl \
        --judges work/emotion/zero work/emotion/tuned --aspect valence

For each judge Spearman's rho of the expected score with a 95 % percentile bootstrap interval, and the mean distance
from the label; for comparison the rho of the number of words, and the distance of the labels' own median. JSON on
standard output.
"""

import json
import sys
from dataclasses import dataclass
from typing import Any

import numpy as np

from inspector_pipeline.api.load import load_judge
from inspector_pipeline.errors import DataFileError

from ..evaluation.metrics import Array, Index, spearman
from ..rows.records import labelled_pairs, read_records

LEAST = 5


@dataclass(frozen=True)
class Config:
    """Settings of the rate_texts stage.

    Attributes:
        rows: Labelled rows of texts.
        judges: Folders of judges.
        aspect: What is rated.
        without: Rows to leave out, by their ids: those that a judge was tuned on.
        n_resamples: Bootstrap samples.
        seed: Of the bootstrap.
    """

    rows: str
    judges: tuple[str, ...]
    aspect: str
    without: str | None = None
    n_resamples: int = 1000
    seed: int = 0


def run(config: Config) -> dict[str, Any]:
    """Run the stage: rate the rows by each judge, compare with their labels, and print what was found.

    Returns:
        `n`, and for each judge `spearman` (value, low, high) and `mae`; so for `words` and `median`.

    Raises:
        DataFileError: A file cannot be read, or too few rows are left.
    """
    left_out = {row["id"] for row in read_records(config.without)} if config.without else set()
    found = labelled_pairs(read_records(config.rows), question_only=True)
    pairs = [pair for pair in found if config.aspect in pair.scores and pair.id not in left_out]
    if len(pairs) < LEAST:
        raise DataFileError(f"{config.rows} expects {LEAST} or more labels of {config.aspect}, but has {len(pairs)}.")
    labels = np.array([pair.scores[config.aspect] for pair in pairs])
    draws = np.random.default_rng(config.seed).multinomial(
        len(pairs), np.full(len(pairs), 1 / len(pairs)), config.n_resamples
    )
    weights = np.vstack([np.ones(len(pairs)), draws])
    words = np.array([len(pair.question.split()) for pair in pairs], dtype=float)
    report: dict[str, Any] = {"n": len(pairs), "words": {"spearman": _interval(labels, words, weights)}}
    report["median"] = {"mae": float(np.abs(labels - np.median(labels)).mean())}
    for folder in config.judges:
        results = load_judge(folder)([{"question": pair.question} for pair in pairs])
        expected = np.array([result["expected"][config.aspect] for result in results])
        rho = _interval(labels, expected, weights)
        report[folder] = {"spearman": rho, "mae": float(np.abs(labels - expected).mean())}
    sys.stdout.write(json.dumps(report, indent=1) + "\n")
    return report


def _interval(labels: Index, values: Array, weights: Array) -> dict[str, float]:
    """Compute rho on all rows, which the first weights are, and its interval over the others."""
    with np.errstate(invalid="ignore"):  # of a constant value, whose rho is 0
        rho = spearman(labels, values, weights)
    low, high = np.percentile(rho[1:], [2.5, 97.5])
    return {"value": float(rho[0]), "low": float(low), "high": float(high)}
