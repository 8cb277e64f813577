"""A probe that reads questions alone: how far a judge's choices are no more than knowing which questions are hard.

Fitted on the share of right answers to other questions, from the same frozen states with no answer in them. Among all
answers to many questions it finds those to easy ones; between answers to one question it knows nothing.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from sklearn.linear_model import RidgeCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from inspector_pipeline.errors import DataFileError
from inspector_pipeline.features import Feature
from inspector_pipeline.files.entries import Row
from inspector_pipeline.wheel_backbone import EMBEDDED_BACKBONE_ID, EMBEDDED_BACKBONE_REVISION

from ..features.extract import extract
from ..features.plan import ExtractConfig
from ..features.store import QUESTION, load_features
from ..rows.contrast import verified_rows
from ..rows.correctness import CORRECTNESS
from ..rows.records import matching_files, question_id, read_records, write_records
from .metrics import Array

logger = logging.getLogger(__name__)

POOLINGS = ("mean", "last")
STATE = "rms_normed"
PENALTIES = np.logspace(0, 7, 15)
LEAST_QUESTIONS = 10


@dataclass(frozen=True)
class QuestionOnlyConfig:
    """What a question-only probe is fitted on, and what it reads.

    Attributes:
        answers: Files of verified answers to other questions; those to questions that are asked about are left out.
        backbone_id: Hub id, folder, `pypi:` or `gguf:` id.
        backbone_revision: Its revision.
        layers: Whose states to read, by the mean over the question's tokens and the last one.
    """

    answers: tuple[Path, ...]
    backbone_id: str = EMBEDDED_BACKBONE_ID
    backbone_revision: str | None = EMBEDDED_BACKBONE_REVISION
    layers: tuple[int, ...] = (4, 8, 12, 16, 20, 24)


def question_values(rows: Sequence[Row], config: QuestionOnlyConfig, folder: Path) -> Array:
    """Predict each row's chance to be right from its question alone.

    Args:
        rows: With question.
        config: What to fit on, and what to read.
        folder: For the questions and their features, which are read once.

    Returns:
        (rows,) float64; the same for all rows of a question.

    Raises:
        DataFileError: The answers cannot be read, or are to too few other questions.
        BackboneError: The backbone cannot be loaded.
    """
    asked = {question_id(str(row["question"])): str(row["question"]) for row in rows}
    share, n, questions = _shares(config, set(asked))
    if len(questions) < LEAST_QUESTIONS:
        raise DataFileError(
            f"question_only.answers expects answers to {LEAST_QUESTIONS} or more questions other than those that were "
            f"scored, but got {len(questions)}. Give those that the judge was fitted on."
        )
    x = _features({**questions, **asked}, config, folder)
    values = ridge_values(x[: len(questions)], share, n, x[len(questions) :])
    place = {name: i for i, name in enumerate(asked)}
    logger.info("A question-only probe was fitted on %d questions.", len(questions))
    return values[[place[question_id(str(row["question"]))] for row in rows]]


def ridge_values(x: Array, share: Array, n: Array, new: Array) -> Array:
    """Fit a ridge on standardised features, its penalty by left-out errors, and predict.

    Args:
        x: (questions, features) to fit on.
        share: (questions,) of right answers.
        n: (questions,) answers to each, its weight.
        new: (others, features) to predict.

    Returns:
        (others,).
    """
    model = make_pipeline(StandardScaler(), RidgeCV(alphas=PENALTIES))
    return np.asarray(model.fit(x, share, ridgecv__sample_weight=n).predict(new), dtype=np.float64)


def _shares(config: QuestionOnlyConfig, without: set[str]) -> tuple[Array, Array, dict[str, str]]:
    """Return the share of right answers to each other question, their number, and the questions by id."""
    paths = matching_files(config.answers)
    read = [row for path in paths for row in read_records(path, ("question", "prediction"))]
    right: dict[str, list[int]] = {}
    questions: dict[str, str] = {}
    for row in verified_rows(read, ", ".join(map(str, paths))):
        if row["id"] not in without:
            right.setdefault(row["id"], []).append(row["scores"][CORRECTNESS])
            questions.setdefault(row["id"], row["question"])
    found = [right[name] for name in questions]
    return np.array([np.mean(own) for own in found]), np.array([len(own) for own in found], dtype=float), questions


def _features(questions: dict[str, str], config: QuestionOnlyConfig, folder: Path) -> Array:
    """Read questions by themselves, or take what was read before: (questions, features)."""
    rows = folder / "questions.jsonl"
    write_records([{"id": name, "question": text} for name, text in questions.items()], rows)
    extract(
        ExtractConfig(
            str(rows),
            str(folder / "features"),
            backbone_id=config.backbone_id,
            backbone_revision=config.backbone_revision,
            layers=config.layers,
            poolings=POOLINGS,
            states=(STATE,),
            readings=(QUESTION,),
        )
    )
    features = load_features(folder / "features")
    read = (Feature(QUESTION, layer, pooling, STATE) for layer in config.layers for pooling in POOLINGS)
    return np.concatenate([features.matrix(one) for one in read], axis=1).astype(np.float64)
