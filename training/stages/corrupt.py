"""Make labelled responses with no teacher: gold solutions, damaged in known ways.

Every question gives one undamaged solution and others with one damage each: arithmetic slips, carried on or not,
contradicted givens, invented facts, dropped or reordered steps, garbled language, truncation, the bare answer, another
question's solution. training/corruptions/labels.py says which labels each damage determines, and why; other aspects
have none. The rows are auxiliary: they serve training only and are never scored in an evaluation.

Everything random is seeded by seed, id and kind, so that a row depends neither on the order of the questions nor on
how many are taken; only `off_topic` looks at the others, for another solution to give.

Example:
    python -m training corrupt --questions questions.jsonl --output corrupted.jsonl --n-questions 2000 --per-question 3
"""

import hashlib
import logging
import random
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from transformers.utils import logging as hf_logging

from inspector_pipeline.errors import DataFileError
from inspector_pipeline.files.tables import Row

from ..corruptions import arithmetic, language, structure
from ..corruptions.damage import Damage, Source
from ..corruptions.labels import KINDS, LABELS, degrees
from ..corruptions.rationale import Rationale, read_rationale
from ..corruptions.rendering import random_style, render
from ..rows.records import read_records, write_records
from ..runs.manifest import Manifest

DAMAGES: Mapping[str, Damage] = {
    "clean": structure.clean,
    "arithmetic_slip": arithmetic.arithmetic_slip,
    "arithmetic_slip_carried": arithmetic.arithmetic_slip_carried,
    "contradicted_given": arithmetic.contradicted_given,
    "invented_fact": structure.invented_fact,
    "dropped_step": structure.dropped_step,
    "reordered_steps": structure.reordered_steps,
    "garbled_language": language.garbled_language,
    "answer_only": structure.answer_only,
    "truncated": structure.truncated,
    "off_topic": structure.off_topic,
}
STAGE = "corrupt"
WEIGHTS = MappingProxyType({"answer_only": 0.5, "off_topic": 0.3, "truncated": 0.6})
"""How soon a kind is tried, against 1 for the rest: these always apply and are the easiest to tell."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Config:
    """What to damage.

    Attributes:
        questions: Rows with id, question and answer, the gold solution; final_answer where the answer marks none.
        output: Labelled rows, JSON Lines.
        n_questions: How many questions to take, at most.
        per_question: How many responses a question gives, at most; the first is the undamaged solution.
        seed: What everything random starts from.
    """

    questions: Path
    output: Path
    n_questions: int = 2000
    per_question: int = 3
    seed: int = 731


def run(config: Config) -> Counter[str]:
    """Make the responses and write them, with a manifest.

    Returns:
        How many rows each kind and degree gave ("kind:degree"), and how often a kind did not apply ("skipped kind").

    Raises:
        DataFileError: The file cannot be read, lacks keys, or has no question with a gold solution.
    """
    if config.n_questions < 1 or config.per_question < 1:
        raise DataFileError(
            f"n_questions and per_question expect at least 1, but got {config.n_questions} and {config.per_question}."
        )
    manifest = Manifest.of(STAGE, config, [config.questions])
    if manifest.is_done(config.output):
        return Counter()
    rows, counts = corrupted_rows(read_records(config.questions), config.n_questions, config.per_question, config.seed)
    write_records(rows, config.output)
    manifest.write(config.output, [config.output])
    logger.info("%s: %d rows; %s", config.output, len(rows), dict(sorted(counts.items())))
    return counts


def corrupted_rows(
    questions: Iterable[Row], n_questions: int, per_question: int, seed: int
) -> tuple[list[Row], Counter[str]]:
    """Make damaged responses of questions.

    Args:
        questions: Question rows.
        n_questions: How many to take; a smaller number takes a part of a larger one's.
        per_question: Responses a question.
        seed: The seed.

    Returns:
        Labelled rows, and the counts that `corrupt` returns.

    Raises:
        DataFileError: Two questions share an id, or none has a gold solution.
    """
    read: dict[str, tuple[Row, Rationale | None]] = {}
    for row in questions:
        if str(row["id"]) in read:
            raise DataFileError(f"The questions expect one row an id, but {row['id']!r} names two. Remove one.")
        read[str(row["id"])] = row, read_rationale(row)
    usable = {name: (row, rationale) for name, (row, rationale) in read.items() if rationale}
    if not usable:
        raise DataFileError("Expected questions with an answer, the gold solution, but none has one.")
    counts = Counter({"skipped question without gold solution": len(read) - len(usable)})
    ranked = sorted(usable, key=lambda name: _digest(seed, name))
    rows = []
    for name in hf_logging.tqdm(ranked[:n_questions], desc=STAGE):
        row, rationale = usable[name]
        donor = usable[ranked[_digest(seed, name, "donor") % len(ranked)]][1]
        made = 0
        for kind in _kinds(seed, name):
            if made == per_question:
                break
            damaged = damaged_row(row, Source(row["question"], rationale, donor), kind, seed)
            if damaged is None:
                counts[f"skipped {kind}"] += 1
                continue
            rows.append({**damaged, "sample": made})
            counts[f"{kind}:{damaged['damage']['degree']}"] += 1
            made += 1
    return rows, counts


def damaged_row(question: Row, source: Source, kind: str, seed: int) -> Row | None:
    """Damage one gold solution.

    Args:
        question: The question's row.
        source: Its gold solution, and another question's.
        kind: One of KINDS.
        seed: The seed.

    Returns:
        A labelled row, without its sample number; None where the kind applies in no degree or would change nothing.
    """
    rng = random.Random(f"{seed}:{question['id']}:{kind}")
    style = random_style(rng)
    order = degrees(kind)
    rng.shuffle(order)
    undamaged = render(structure.clean(source, 0, rng), style)
    for degree in order:
        damaged = DAMAGES[kind](source, degree, rng)
        if damaged is None or (kind != "clean" and render(damaged, style) == undamaged):
            continue
        return {
            **{key: value for key, value in question.items() if key != "answer"},
            "sample": 0,
            "prediction": render(damaged, style),
            "generator": f"corrupt:{kind}:{degree}",
            "auxiliary": True,
            "scores": LABELS[kind, degree].scores(),
            "damage": {"kind": kind, "degree": degree, "detail": damaged.detail},
        }
    return None


def _kinds(seed: int, name: str) -> list[str]:
    """Return the kinds in the order in which a question tries them: first clean, then all others at random."""
    rng = random.Random(f"{seed}:{name}")
    rank = {kind: rng.random() ** (1 / WEIGHTS.get(kind, 1.0)) for kind in KINDS}
    return ["clean", *sorted((kind for kind in KINDS if kind != "clean"), key=lambda kind: rank[kind], reverse=True)]


def _digest(seed: int, *parts: str) -> int:
    return int.from_bytes(hashlib.sha256(":".join([str(seed), *parts]).encode()).digest()[:8], "big")
