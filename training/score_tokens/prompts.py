"""Readings that end right before a score, the tokens that a score begins with there, and LAGER's own whole prompts."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from string import ascii_uppercase
from typing import NamedTuple

from transformers import PreTrainedTokenizerBase

from inspector_pipeline.errors import ReadingError, SettingsError
from inspector_pipeline.pair_tokenizer import PairTokenizer
from inspector_pipeline.template import PREDICTION_MARK, QUESTION_MARK, PairTemplate

from ..features.plan import task_reading
from ..labelling.rubrics import Rubric

logger = logging.getLogger(__name__)

ANSWER = "Score: "
TASK = (
    "Read a question and a response to it, and score the response on one aspect: {name}.\n\n"
    "{description}\n\n{levels}\n\n"
    f"Question:\n{QUESTION_MARK}\n\nResponse:\n{PREDICTION_MARK}\n\n"
)
TEXT_TASK = (
    f"Read a text and score it on one aspect: {{name}}.\n\n{{description}}\n\n{{levels}}\n\nText:\n{QUESTION_MARK}\n\n"
)
ONLY_SCORE = "Reply with the {what} and nothing else, as: Score: <{form}>"
FEEDBACK_FIRST = (
    "First justify the score in a few sentences, then write {what} on a line of its own, as: Score: <{form}>"
)
PROMPT = "prompt"  # the aspect that whole prompts are read as
_SAMPLE = ("What is asked?", "This is said.")
_LONG = 1_000_000


class ScoreReading(NamedTuple):
    """A reading that ends right before a score.

    Attributes:
        reading: The reading; white space at its end may have gone over to the scores.
        token_ids: For each score, the id of the token that follows the reading where that score is written.
    """

    reading: PairTemplate
    token_ids: list[int]


class AskedAspect(NamedTuple):
    """An aspect, its scale, and the reading that asks for it.

    Attributes:
        name: The aspect's name.
        scores: The scale, ascending.
        asked: The reading and the score tokens that follow it.
    """

    name: str
    scores: list[int]
    asked: ScoreReading


def ask_aspects(
    rubrics: Sequence[Rubric],
    templates: Mapping[str, PairTemplate],
    tokenizer: PreTrainedTokenizerBase,
    *,
    question_only: bool = False,
) -> list[AskedAspect]:
    """Ask for every aspect by its template, or by its rubric, in letters where its scores are no single tokens.

    Args:
        rubrics: The aspects.
        templates: Aspect -> reading that ends right before the score.
        tokenizer: The backbone's.
        question_only: Whether the question alone is the text that is scored.

    Raises:
        SettingsError: A template has no aspect, or not all readings hold the same.
        ReadingError: A template does not fit the tokenizer, or scores cannot be told apart by their first token.
    """
    unknown = sorted(templates.keys() - {rubric.name for rubric in rubrics})
    if unknown:
        raise SettingsError(f"templates expects names of the aspects, but got {unknown[0]!r}.")
    if any(reading.question_only != question_only for reading in templates.values()):
        raise SettingsError(f"templates expects question_only as the stage has it, {question_only}, but one differs.")
    found = []
    for rubric in rubrics:
        reading = templates.get(rubric.name)
        letters = () if reading else score_letters(rubric, tokenizer)
        if letters:
            meant = ", ".join(f"{letter} = {score}" for letter, score in zip(letters, rubric.scores, strict=True))
            logger.info("%s is asked for in letters, since not every score is one token: %s.", rubric.name, meant)
        reading = reading or rubric_reading(rubric, tokenizer, question_only=question_only, letters=letters)
        asked = score_reading(reading, tokenizer, letters or rubric.scores)
        found.append(AskedAspect(rubric.name, rubric.scores, asked))
    return found


def rubric_reading(
    rubric: Rubric,
    tokenizer: PreTrainedTokenizerBase,
    *,
    feedback: bool = False,
    answer: str = ANSWER,
    question_only: bool = False,
    letters: Sequence[str] = (),
) -> PairTemplate:
    """Ask for a score by a rubric in the tokenizer's chat template, or in plain text where it has none.

    Args:
        rubric: The aspect.
        tokenizer: The backbone's.
        feedback: Whether the model is to write feedback first; the reading then ends where the reply begins.
        answer: What the reply to the score alone begins with.
        question_only: Whether the question alone is the text that is scored.
        letters: What each score is written as, of `score_letters`; none where it is written as its number.
    """
    wanted, what = ONLY_SCORE, "letter of the score" if letters else "score"
    if feedback:
        wanted, what = FEEDBACK_FIRST, "its letter" if letters else "it"
    asked = wanted.format(what=what, form=f"letter from {letters[0]} to {letters[-1]}" if letters else rubric.form)
    task = TEXT_TASK if question_only else TASK
    texts = {"name": rubric.name, "description": rubric.description, "levels": _levels(rubric, letters)}
    for name, text in texts.items():
        task = task.replace(f"{{{name}}}", text)
    task = task.replace("\n\n\n\n", "\n\n") + asked
    return task_reading(task, tokenizer, "" if feedback else answer, question_only=question_only)


def score_letters(rubric: Rubric, tokenizer: PreTrainedTokenizerBase) -> tuple[str, ...]:
    """Choose what a rubric's scores are written as: letters where a number is not one token that no other begins with.

    Args:
        rubric: The aspect.
        tokenizer: The backbone's.

    Returns:
        Nothing where every score has a token of its own; else A, B, C, ..., one for each score, ascending.

    Raises:
        SettingsError: There are more scores than letters.
    """
    ending = task_reading(f"{QUESTION_MARK}{PREDICTION_MARK}", tokenizer, ANSWER)  # only how it ends matters
    _, ids, _ = before_own_tokens(ending, tokenizer, [str(score) for score in rubric.scores]) or (ending, [], "")
    if {len(own) for own in ids} == {1} and len({own[0] for own in ids}) == len(rubric.scores):
        return ()
    if len(rubric.scores) > len(ascii_uppercase):
        raise SettingsError(
            f"The rubric of {rubric.name} expects at most {len(ascii_uppercase)} scores, since this tokenizer has no "
            f"token of its own for each and they are asked for as letters, but has {len(rubric.scores)}. Give fewer as "
            "its values, such as 0, 25, 50, 75 and 100."
        )
    return tuple(ascii_uppercase[: len(rubric.scores)])


def _levels(rubric: Rubric, letters: Sequence[str]) -> str:
    """Describe the scores, one in a line; with letters all of them, so that each letter has its meaning."""
    if not letters:
        return "\n".join(f"{score}: {words}" for score, words in sorted(rubric.levels.items()))
    named = {score: f"{letter} = {score}" for letter, score in zip(letters, rubric.scores, strict=True)}
    return "\n".join(
        f"{name}: {rubric.levels[score]}" if score in rubric.levels else name for score, name in named.items()
    )


def score_reading(
    reading: PairTemplate, tokenizer: PreTrainedTokenizerBase, scores: Sequence[int] | Sequence[str]
) -> ScoreReading:
    """Find the token that each score begins with right after a reading.

    Tokenizers differ in whether "5" after a space is the token "5" or one with the space in it. So the whole text with
    the score is tokenised, as the backbone saw such text when it was trained, and the token that follows is taken.
    Where the space would merge into the score's token, it moves from the reading's end into the score; where it merges
    with some scores and not with others, it is left out.

    Args:
        reading: It ends right before the score.
        tokenizer: The backbone's.
        scores: The scale, ascending, or what each of its scores is written as.

    Raises:
        ReadingError: Scores cannot be told apart by their first token, as 1 and 10 where each digit is a token; or the
            reading ends with the response.
    """
    if not reading.suffix.strip():
        raise ReadingError(
            f"A reading for score tokens expects text after the response, such as {ANSWER!r}, but ends on "
            f"{reading.suffix!r}. Add it."
        )
    written = [str(score) for score in scores]
    ended = before_own_tokens(reading, tokenizer, written)
    if ended is None:
        raise ReadingError(
            f"A reading for score tokens expects an end after which a score is a token of its own, but "
            f"{reading.suffix!r} merges with the score in this tokenizer. End the reading with a colon or a line break."
        )
    seen: dict[int, str] = {}
    for score, (token_id, *_) in zip(written, ended[1], strict=True):
        if token_id in seen:
            raise ReadingError(
                f"Score tokens expect scores that begin with different tokens, but {seen[token_id]} and {score} both "
                f"begin with {tokenizer.decode([token_id])!r} in this tokenizer, and one state says nothing of the "
                "tokens after it. Take a scale of single digits, such as 0 to 9, or let the rubric ask, without a "
                "template: it asks for letters then."
            )
        seen[token_id] = score
    return ScoreReading(ended[0], list(seen))


def before_own_tokens(
    reading: PairTemplate, tokenizer: PreTrainedTokenizerBase, scores: Sequence[str]
) -> tuple[PairTemplate, list[list[int]], str] | None:
    """End a reading so that each score has tokens of its own after it; return it, these, and what goes before one."""
    stripped = replace(reading, suffix=reading.suffix.rstrip())
    gap = reading.suffix[len(stripped.suffix) :]
    for candidate, before in ((reading, ""), (stripped, gap), (stripped, "")):
        found = [ids_after(candidate, f"{before}{score}", tokenizer) for score in scores]
        if all(ids and tokenizer.decode(ids[:1]).strip() for ids in found):
            return candidate, found, before
    return None


def ids_after(reading: PairTemplate, text: str, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Return the tokens of a text after a reading; none where it merges with the reading's own last token."""
    shorter, longer = (
        PairTokenizer(replace(reading, suffix=reading.suffix + end), tokenizer, _LONG)(*_SAMPLE).input_ids
        for end in ("", text)
    )
    return longer[len(shorter) :] if longer[: len(shorter)] == shorter else []


def prompt_reading(tokenizer: PreTrainedTokenizerBase, answer: str | None = None) -> PairTemplate:
    """Read a whole prompt, in two halves, as the user's turn.

    Args:
        tokenizer: The backbone's.
        answer: What the reply begins with; by default the score itself, after "Score: " where there is no chat
            template.
    """
    if answer is None:
        answer = "" if tokenizer.chat_template else ANSWER
    return task_reading(f"{QUESTION_MARK}{PREDICTION_MARK}", tokenizer, answer)
