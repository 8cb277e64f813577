"""Labelled pairs, read from a probing set in the published format.

A probing set is JSON: aspect -> rows of {"id", "eval_prompt", "score"}. Each prompt is a rubric around a question and a
response; the texts common to an aspect's prompts are the rubric, what differs is the pair.
"""

import os
import random
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from inspector_pipeline.errors import DataFileError
from inspector_pipeline.files.tables import read_json
from inspector_pipeline.template import PairTemplate

from .records import LabelledPair, normal_text, read_records

ASPECTS = ("semantic_consistency", "logicality", "informativeness", "fluency", "factuality")  # in published order


def read_questions(path: str | os.PathLike[str]) -> list[str]:
    """Read a dataset's distinct questions, one row with a `question` each, in order.

    Raises:
        DataFileError: The file is missing, or a row has no question.
    """
    questions = [row["question"] for row in read_records(path, ("question",))]
    if not questions or not all(isinstance(question, str) for question in questions):
        raise DataFileError(f"{path} expects a question of text in every row. Is it the dataset's file?")
    return list(dict.fromkeys(questions))


def is_probing_set(path: str | os.PathLike[str]) -> bool:
    """Whether a file is JSON with an object at its top, as of the formats only a probing set has.

    Raises:
        DataFileError: It is named as JSON but cannot be read.
    """
    return Path(path).suffix.lower() == ".json" and isinstance(read_json(path), dict)


def read_probing_set(path: str | os.PathLike[str]) -> tuple[list[LabelledPair], dict[str, PairTemplate]]:
    """Read a probing set.

    Args:
        path: A JSON file in the published format.

    Returns:
        The distinct pairs in order of first appearance, each with all its labels, and every aspect's rubric.

    Raises:
        DataFileError: The file is not in that format, or a pair carries two different labels of one aspect.
    """
    data = read_json(path)
    if not isinstance(data, dict) or not all(isinstance(rows, list) and rows for rows in data.values()):
        raise DataFileError(f"{path} expects an object of non-empty lists by aspect. Is it a probing set?")
    pairs: dict[tuple[Any, str, str], LabelledPair] = {}
    readings = {}
    for aspect, rows in data.items():
        for i, row in enumerate(rows):
            if not isinstance(row, dict) or {"id", "eval_prompt", "score"} - row.keys():
                raise DataFileError(
                    f"{path}: {aspect}[{i}] expects the keys id, eval_prompt and score, but got {row!r:.80}."
                )
        readings[aspect] = find_rubric([row["eval_prompt"] for row in rows])
        for row in rows:
            question, prediction = split_prompt(row["eval_prompt"], readings[aspect])
            pair = pairs.setdefault((row["id"], question, prediction), LabelledPair(row["id"], question, prediction))
            if pair.scores.setdefault(aspect, row["score"]) != row["score"]:
                raise DataFileError(
                    f"{path}: the pair with id {row['id']} has two labels for {aspect}, {pair.scores[aspect]} and "
                    f"{row['score']}. Keep one."
                )
    return list(pairs.values()), readings


def read_rubrics(path: str | os.PathLike[str]) -> dict[str, PairTemplate]:
    """Read each aspect's rubric from a probing set, or from JSON of readings by aspect.

    Raises:
        DataFileError: It is neither.
        ReadingError: A reading is malformed.
    """
    data = read_json(path)
    if isinstance(data, dict) and data and all(isinstance(entry, dict) for entry in data.values()):
        return {aspect: PairTemplate.from_dict(entry) for aspect, entry in data.items()}
    return read_probing_set(path)[1]


def make_probing_set(
    pairs: Iterable[LabelledPair], rubrics: Mapping[str, PairTemplate], balance_seed: int | None = None
) -> dict[str, list[dict[str, Any]]]:
    """Make a probing set, the inverse of `read_probing_set` where each aspect's rows are sorted by id.

    Args:
        pairs: Labelled pairs.
        rubrics: Aspect -> rubric; one for every aspect that has labels. Their order is the set's.
        balance_seed: Draw as many rows of every score as the rarest has, as the published set was made (with 731);
            None keeps all.

    Returns:
        Aspect -> rows of id, eval_prompt and score, sorted by id: whole numbers first, then texts.

    Raises:
        DataFileError: A labelled aspect has no rubric.
    """
    by_score: dict[str, dict[int, list[dict[str, Any]]]] = {aspect: {} for aspect in rubrics}
    for pair in pairs:
        for aspect, score in pair.scores.items():
            if aspect not in rubrics:
                raise DataFileError(
                    f"A probing set expects a rubric for every aspect, but {aspect!r} has none among "
                    f"{', '.join(map(repr, rubrics))}. Add it, or leave the aspect's labels out."
                )
            prompt = rubrics[aspect].text(pair.question, pair.prediction)
            by_score[aspect].setdefault(score, []).append({"id": pair.id, "eval_prompt": prompt, "score": score})
    made = {}
    for aspect, groups in by_score.items():
        if balance_seed is not None and groups:
            rarest = min(map(len, groups.values()))
            draw = random.Random(balance_seed)
            groups = {score: draw.sample(rows, rarest) for score, rows in groups.items()}
        if rows := [row for group in groups.values() for row in group]:
            made[aspect] = sorted(rows, key=lambda row: (isinstance(row["id"], str), row["id"]))
    return made


def drop_foreign(
    pairs: Iterable[LabelledPair], questions: Iterable[str]
) -> tuple[list[LabelledPair], list[LabelledPair]]:
    """Divide pairs by whether their question, white space aside, stands in the dataset that they are said to come from.

    Returns:
        The pairs to keep and the foreign ones.
    """
    known = {normal_text(question) for question in questions}
    kept: list[LabelledPair] = []
    foreign: list[LabelledPair] = []
    for pair in pairs:
        (kept if normal_text(pair.question) in known else foreign).append(pair)
    return kept, foreign


def find_rubric(prompts: list[str]) -> PairTemplate:
    """Find the literal strings that a set of prompts shares: before, between and after question and response.

    Args:
        prompts: At least two prompts of one aspect.

    Returns:
        The rubric as a reading. Each literal starts or ends at a line's border, so that letters which all questions or
        responses happen to share stay with them.

    Raises:
        DataFileError: The prompts share no text between question and response.
    """
    prefix = os.path.commonprefix(prompts)
    prefix = prefix[: prefix.rfind("\n") + 1]
    suffix = os.path.commonprefix([prompt[::-1] for prompt in prompts])[::-1]
    suffix = suffix[suffix.find("\n") :] if "\n" in suffix else suffix
    cores = [prompt[len(prefix) : len(prompt) - len(suffix)] for prompt in prompts]
    middle = _longest_shared_lines(cores)
    if not middle:
        raise DataFileError(
            f"Expected prompts with a common line between question and response, but {len(prompts)} prompts share none."
        )
    return PairTemplate(prefix, middle, suffix, add_special_tokens=True)


def split_prompt(prompt: str, reading: PairTemplate) -> tuple[str, str]:
    """Take question and response out of a prompt.

    Raises:
        DataFileError: The prompt does not follow the reading.
    """
    core = prompt.removeprefix(reading.prefix).removesuffix(reading.suffix)
    question, middle, prediction = core.partition(reading.middle or "\0")
    if reading.text(question, prediction) != prompt or not middle:
        raise DataFileError(f"Expected a prompt that follows its aspect's rubric, but got {prompt[:80]!r}...")
    return question, prediction


def _longest_shared_lines(texts: list[str]) -> str:
    """Return the first longest run of whole lines, with the line breaks around it, that occurs in every text.

    Letters that all questions share within a line ("Put the final answer in ...") are longer at times than the line
    between question and response, so parts of lines do not count.
    """
    shortest = min(texts, key=len)
    breaks = [i for i, letter in enumerate(shortest) if letter == "\n"]
    runs = dict.fromkeys(shortest[start : end + 1] for start in breaks for end in breaks if end > start)
    shared = (run for run in runs if run.strip() and all(run in text for text in texts))
    return max(shared, key=len, default="")
