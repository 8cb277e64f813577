r"""Degenerate answers: what must not stand above worked right solutions, made from verified answers with honest labels.

A question with at least one right and one wrong verified answer gives one worked solution of each kind, and from them
the forms of `FORMS`. `correctness` of a form says whether the answer is right, as a careful reader would: right bare
numbers are right; what states no answer, states another, or has false work is not. Numbers that are put for an answer
differ from it as numbers, options are other options of the question, other answers (of code, say) are those that
verified wrong answers to the question state. Where a form cannot be made honestly, a question does without.

All chance is drawn from seed, question and form, so that a row depends neither on the other forms nor on the order of
the rows.
"""

import ast
import hashlib
import random
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

from inspector_pipeline.errors import DataFileError
from inspector_pipeline.files.entries import Row

from ..rows.answers import as_number, find_numbers, mentions
from ..rows.contrast import verified_rows
from ..rows.correctness import CORRECTNESS
from ..rows.records import normal_text
from . import phrases
from .arithmetic import CONSTANTS, other_values
from .rationale import NUMBER, calculations, equalities, replace_values, value_of, values, written

MIN_WORDS = 12  # of a worked solution
LONGEST_ANSWER = 300  # characters of a final answer
STATEMENTS = ("The answer is {}.",) * 3 + ("Answer: {}", "So the final answer is {}.", "It is {}.", "The result is {}.")
_SENTENCE = re.compile(r"(?<=[.!?])\s+|\n+")
_OPTION = re.compile(r"^\s*\(?([A-J])[.):]\s", re.MULTILINE)
_BOX = re.compile(r"\\boxed\{[^{}]*\}")
_KEYBOARD = ("qwertyuiop", "asdfghjkl;", "zxcvbnm,./")


@dataclass(frozen=True)
class Case:
    """A question with what its forms are made from.

    Attributes:
        question: Its text.
        answer: The right final answer, as the data write it.
        right: A worked right solution.
        wrong: A worked wrong one.
        stated: Final answers that the question's verified wrong answers state.
        donor: The worked right solution of another question, with another answer; empty where there is none.
    """

    question: str
    answer: str
    right: str
    wrong: str
    stated: tuple[str, ...]
    donor: str

    @property
    def number(self) -> Fraction | None:
        """The answer as a number; None where it is none."""
        return as_number(self.answer)

    @property
    def options(self) -> list[str]:
        """The letters of the question's options, where the answer is one of them."""
        found = _OPTION.findall(self.question)
        return found if self.answer in found else []

    def wrong_answer(self, rng: random.Random) -> str | None:
        """Draw a plausible wrong answer, written as the right one is; None where none is known."""
        if self.options:
            return rng.choice([letter for letter in self.options if letter != self.answer])
        stated = [text for text in self.stated if differs(text, self.answer)]
        if (value := self.number) is None:
            return rng.choice(stated) if stated else None
        sign = -1 if value < 0 else 1
        sources = [
            [number for text in stated if (number := as_number(text)) is not None],
            [sign * number for number in sorted(values(self.question) | values(self.right))],
            [sign * number for degree in (1, 2, 3) for number in other_values(abs(value), degree, rng)],
        ]
        rng.shuffle(sources)
        for source in sources:
            fitting = [number for number in source if _may_stand_for(number, value)]
            if fitting:
                return written(rng.choice(fitting), self.answer)
        return None


Form = Callable[[Case, random.Random], str | None]
"""Makes an answer; None where that is not possible."""


def _stated(right: bool) -> Form:
    def make(case: Case, rng: random.Random) -> str | None:
        statement = rng.choice(STATEMENTS)  # drawn first: the right and the wrong one of a question are worded alike
        answer = case.answer if right else case.wrong_answer(rng)
        return None if answer is None else statement.format(f"({answer})" if case.options else answer)

    return make


def _echo_answer(case: Case, rng: random.Random) -> str | None:
    answer = case.wrong_answer(rng)
    return None if answer is None else f"{case.question} The answer is {answer}."


def _cut(case: Case, rng: random.Random) -> str | None:
    """Cut at a third of the characters, at a word's end; earlier where the answer would stand there."""
    end = len(case.right) // 3
    if case.number not in values(case.question):  # a given is no answer yet
        end = min([end, *answer_places(case.right, case.answer)])
    kept = case.right[:end]
    if not case.right[end : end + 1].isspace():
        kept = kept[: max((space.start() for space in re.finditer(r"\s", kept)), default=0)]
    return kept.rstrip() if len(kept.split()) >= MIN_WORDS // 3 else None


def _exchanged(case: Case, rng: random.Random) -> str | None:
    """State another answer in the last sentence that states one, in what follows it, and in boxes."""
    other, start = case.wrong_answer(rng), conclusion(case.right, case.answer)
    if other is None or start is None:
        return None
    before = _BOX.sub(lambda box: _replaced(box[0], case, other), case.right[:start])
    after = _replaced(case.right[start:], case, other)
    return None if answer_places(after, case.answer) else before + after


def _replaced(text: str, case: Case, other: str) -> str:
    """Write another answer wherever a text states the right one."""
    value, new = case.number, as_number(other)
    if value is not None and new is not None:
        return replace_values(text, {abs(value): abs(new)})
    for start, end in reversed(_spans(text, case.answer)):
        text = text[:start] + other + text[end:]
    return text


def _step(case: Case, rng: random.Random) -> str | None:
    """Change one number before the conclusion: a result, so that its equation is false, else a given."""
    end = conclusion(case.right, case.answer)
    if end is None:
        return None
    taken = values(case.question) | values(case.right)
    places = [
        found
        for found in NUMBER.finditer(case.right, 0, end)
        if value_of(found[0]) != case.number and _stands_alone(case.right, found.start(), found.end())
    ]
    rng.shuffle(places)
    results = [found for found in places if re.search(r"=[\s$]*$", case.right[: found.start()])]
    for found in [*results, *places]:
        changed = _changed(case, found, taken, rng)
        if changed and (found not in results or _breaks(case.right, changed, found.start())):
            return changed
    return None


def _stands_alone(text: str, start: int, end: int) -> bool:
    """Whether a number is neither a list's, nor part of a name, an exponent or an index."""
    listed = re.match(r"[.):]\s", text[end:]) and not re.search(r"[\w=]\s*\$?$", text[:start])
    return not (listed or re.search(r"[\w_^{'\"]$", text[:start]) or re.match(r"[\w'\"]|[.,]\d", text[end:]))


def _changed(case: Case, found: re.Match[str], taken: set[Fraction], rng: random.Random) -> str | None:
    """Write another number at a place of the right solution; None where it is no result and no given."""
    value = value_of(found[0])
    given = value in values(case.question) - CONSTANTS
    others = [new for new in other_values(value, rng.choice((1, 2)), rng) if new not in taken | {case.number}]
    if not others or not (given or re.search(r"=[\s$]*$", case.right[: found.start()])):
        return None
    return case.right[: found.start()] + written(others[0], found[0]) + case.right[found.end() :]


def _breaks(text: str, changed: str, place: int) -> bool:
    """Whether an equation of the line of a change held before and does no longer."""
    start = text.rfind("\n", 0, place) + 1
    lines = [version[start:].partition("\n")[0] for version in (text, changed)]
    held, hold = (sum(bool(holds) for holds in equalities(line)) for line in lines)
    return held > hold


def _terse(case: Case, rng: random.Random) -> str | None:
    """Leave the last calculation that gives the answer; where there is none, the last sentence before the answer."""
    found = [left for left, result in calculations(case.right) if result == case.number]
    if found and len(found[-1]) <= 80:
        text = rng.choice(("{} = {}. The answer is {}.", "{} = {}", "{} = {}, so the answer is {}."))
        return text.format(found[-1], case.answer, case.answer)
    start = conclusion(case.right, case.answer)
    sentences = [text.strip() for text in _SENTENCE.split(case.right[:start]) if re.search(r"\w{2}", text)]
    last = sentences[-1] if start is not None and sentences else ""
    fits = not re.search(r"\([A-J]\)", last) if case.options else bool(answer_places(last, case.answer))
    if not fits or not MIN_WORDS // 3 <= len(last.split()) <= 40:
        return None
    return f"{last} The answer is {f'({case.answer})' if case.options else case.answer}."


def _empty_talk(case: Case, rng: random.Random) -> str:
    return " ".join(rng.choice(group) for group in phrases.TALK if rng.random() < 0.85) or phrases.TALK[0][0]


def _repetition(case: Case, rng: random.Random) -> str | None:
    """Repeat one sentence, which does not state the answer, to the solution's length."""
    sentences = [text.strip() for text in _SENTENCE.split(case.right)]
    usable = [text for text in sentences if len(text.split()) >= 4 and not answer_places(text, case.answer)]
    if not usable:
        return None
    text = rng.choice(usable)
    return " ".join([text] * max(3, min(40, round(len(case.right) / (len(text) + 1)))))


def _language(case: Case, rng: random.Random) -> str:
    talk, statement = rng.choice(phrases.LANGUAGES)
    answer = case.wrong_answer(rng)
    kinds = (talk,) if answer is None else (talk, statement.format(n=answer), f"{talk} {statement.format(n=answer)}")
    return rng.choice(kinds)


def _noise(case: Case, rng: random.Random) -> str:
    """Press random keys: of one row of the keyboard, letters as words, or any that print."""
    length = max(3, len(case.right))
    kind = rng.randrange(3)
    if kind == 0:
        return "".join(rng.choice(rng.choice(_KEYBOARD)) for _ in range(length))
    if kind == 1:
        letters = "abcdefghijklmnopqrstuvwxyz"
        words = ("".join(rng.choices(letters, k=rng.randint(1, 10))) for _ in range(max(1, length // 6)))
        return " ".join(words)[:length].rstrip()
    return "".join(chr(rng.randrange(33, 127)) for _ in range(length))


def shuffled(text: str, rng: random.Random) -> str | None:
    """Put the words of a text in random order; None where they have no other order."""
    words = text.split()
    if len(set(words)) < 2:
        return None
    new = list(words)
    while new == words:
        rng.shuffle(new)
    return " ".join(new)


FORMS: Mapping[str, tuple[int, Form]] = {  # form -> correctness, how it is made
    "worked": (1, lambda case, rng: case.right),
    "worked_wrong": (0, lambda case, rng: case.wrong),
    "bare_right": (1, lambda case, rng: case.answer),
    "bare_wrong": (0, lambda case, rng: case.wrong_answer(rng)),
    "sentence_right": (1, _stated(True)),
    "sentence_wrong": (0, _stated(False)),
    "terse_right": (1, _terse),
    "echo": (0, lambda case, rng: case.question),
    "echo_answer": (0, _echo_answer),
    "other_answer": (0, lambda case, rng: case.donor or None),
    "cut": (0, _cut),
    "exchanged": (0, _exchanged),
    "step": (0, _step),
    "empty_talk": (0, _empty_talk),
    "master_key": (0, lambda case, rng: rng.choice([key for key in phrases.MASTER_KEYS if differs(key, case.answer)])),
    "repetition": (0, _repetition),
    "language": (0, _language),
    "noise": (0, _noise),
    "shuffled_question": (0, lambda case, rng: case.right),
    "shuffled_words": (0, lambda case, rng: shuffled(case.right, rng)),
}
WORKED = ("worked", "worked_wrong")
_WORDED_ALIKE = {"sentence_wrong": "sentence_right"}  # forms whose chance is drawn as another's is


def degenerate_rows(
    rows: Iterable[Row],
    source: str,
    *,
    n_questions: int | None = None,
    seed: int = 0,
    forms: Collection[str] = tuple(FORMS),
    per_question: int | None = None,
) -> tuple[list[Row], Counter[str]]:
    """Make degenerate answers from verified ones.

    Args:
        rows: Verified answers: question, prediction, generator, final (what the prediction states), answer (the right
            one), correct (0 or 1); questions are told by their text.
        source: Where they come from, for messages.
        n_questions: How many questions to take, at most; which is drawn by seed and question.
        seed: Of all chance.
        forms: Which forms to make.
        per_question: How many forms a question gives at most, beside the worked solutions, drawn; None gives all.

    Returns:
        Labelled rows {id, question, prediction, sample, generator: "form:NAME", form, scores: {"correctness": 0 or 1}},
        those of a question beside each other, with `source`, the generator of the solution, and `domain` where the
        data have one; and how many rows each form gave ("skipped FORM": questions in which it cannot be made).

    Raises:
        DataFileError: A row lacks a key, a form is unknown, or no question has a right and a wrong worked answer.
    """
    if unknown := set(forms) - FORMS.keys():
        raise DataFileError(f"forms expects some of {', '.join(FORMS)}, but got {', '.join(sorted(unknown))}.")
    usable: dict[str, tuple[Row, Row, list[Row]]] = {}
    for name, answers in _by_question(verified_rows(rows, source)).items():
        worked = [[row for row in answers if is_right(row) == right and _is_worked(row)] for right in (True, False)]
        if all(worked):
            usable[name] = (_draw(worked[0], seed, name), _draw(worked[1], seed, name), answers)
    if not usable:
        raise DataFileError(
            f"{source}: degenerate answers expect a question with a worked right and a worked wrong answer (of "
            f"{MIN_WORDS} words or more, with `final`), but found none. Give verified answers of more generators."
        )
    drawn = sorted(usable, key=lambda name: hashlib.sha256(f"{seed}:{name}".encode()).digest())[:n_questions]
    donors = [(row["prediction"], str(row["answer"])) for _, (row, _, _) in sorted(usable.items())]
    made: list[Row] = []
    counts: Counter[str] = Counter()
    for name in drawn:
        right, wrong, answers = usable[name]
        case = _case(right, wrong, answers, donors, random.Random(f"{seed}:{name}:donor"))
        optional = [form for form in forms if form not in WORKED]
        random.Random(f"{seed}:{name}:forms").shuffle(optional)
        kept = {*optional[:per_question], *WORKED}
        for form in (form for form in FORMS if form in forms and form in kept):
            row = _row(name, case, form, seed)
            counts[form if row else f"skipped {form}"] += 1
            if row:
                origin = wrong if form == "worked_wrong" else right
                more = {"source": origin.get("generator"), "domain": right.get("domain")}
                made.append(row | {key: value for key, value in more.items() if value is not None})
    return made, counts


def _row(name: str, case: Case, form: str, seed: int) -> Row | None:
    rng = random.Random(f"{seed}:{name}:{_WORDED_ALIKE.get(form, form)}")
    label, make = FORMS[form]
    question = shuffled(case.question, rng) if form == "shuffled_question" else case.question
    prediction = make(case, rng)
    if not prediction or question is None:
        return None
    row = {"id": name, "question": question, "prediction": prediction, "sample": 0, "generator": f"form:{form}"}
    return {**row, "form": form, "scores": {CORRECTNESS: label}}


def _by_question(rows: Iterable[Row]) -> dict[str, list[Row]]:
    found = defaultdict(list)
    for row in rows:
        found[str(row["id"])].append(row)
    return found


def is_right(row: Row) -> bool:
    """Whether a verified answer is right."""
    return bool(row["scores"][CORRECTNESS])


def _is_worked(row: Row) -> bool:
    return bool(str(row.get("final") or "").strip()) and len(row["prediction"].split()) >= MIN_WORDS


def _draw(rows: Sequence[Row], seed: int, name: str) -> Row:
    """Draw a row by its text, so that it does not depend on the order of files."""
    ordered = sorted(rows, key=lambda row: (row["prediction"], str(row.get("generator"))))
    return random.Random(f"{seed}:{name}:worked").choice(ordered)


def _case(
    right: Row, wrong: Row, answers: Sequence[Row], donors: Sequence[tuple[str, str]], rng: random.Random
) -> Case:
    answer = normal_text(str(right["answer"]))
    finals = {normal_text(str(row.get("final") or "")) for row in answers if not is_right(row)}
    stated = tuple(sorted(text for text in finals if 0 < len(text) <= LONGEST_ANSWER))
    kind = _kind(answer)
    others = [text for text, other in donors if _kind(other) == kind and differs(other, answer)]
    others = [text for text in rng.sample(others, min(20, len(others))) if not _concludes(text, answer)]
    return Case(right["question"], answer, right["prediction"], wrong["prediction"], stated, (others or [""])[0])


def _kind(answer: str) -> str:
    return "number" if as_number(answer) is not None else "option" if re.fullmatch("[A-J]", answer) else "text"


def differs(text: str, answer: str) -> bool:
    """Whether a text states another answer: another number, another Python value, else other characters."""
    numbers = as_number(text), as_number(answer)
    if None not in numbers:
        return numbers[0] != numbers[1]
    try:
        return bool(ast.literal_eval(text) != ast.literal_eval(answer))
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return _bare(text) != _bare(answer)


def _bare(text: str) -> str:
    return re.sub(r"[\s'\"`\\$()]", "", text).lower()


def _may_stand_for(number: Fraction, answer: Fraction) -> bool:
    """Whether a number can be put for an answer: plainly another one, also as a percentage, and of two decimals."""
    same = {answer, -answer, answer * 100, answer / 100}
    return number not in same and (number * 100).denominator == 1 and abs(number) < 10**12 and number * answer >= 0


def conclusion(solution: str, answer: str) -> int | None:
    """Return where the last sentence that states the answer starts; None where none of the last three does."""
    starts = [0, *(found.end() for found in _SENTENCE.finditer(solution.rstrip()))]
    places = answer_places(solution, answer)
    return next((start for start in starts[:-4:-1] if places and places[-1] >= start), None)


def answer_places(text: str, answer: str) -> list[int]:
    """Return where a text states an answer: a number by its value, an option where it is told as one, else verbatim."""
    return [start for start, _ in _spans(text, answer)]


def _spans(text: str, answer: str) -> list[tuple[int, int]]:
    if (value := as_number(answer)) is not None:
        found = [(number.start, number.end) for number in find_numbers(text) if abs(number.value) == abs(value)]
        if found or not mentions(text, value):
            return found
        return [
            (place.start(), place.end()) for place in re.finditer(r"\b[A-Za-z]+\b", text) if mentions(place[0], value)
        ]
    if re.fullmatch("[A-J]", answer):
        pattern = rf"(?<=\(){answer}(?=\))|(?<=\{{){answer}(?=\}})|(?i:(?<=answer is )|(?<=option )){answer}\b"
        return [found.span() for found in re.finditer(pattern, text)]
    return [found.span() for found in re.finditer(rf"(?<!\w){re.escape(answer)}(?!\w)", text)] if answer else []


def _concludes(solution: str, answer: str) -> bool:
    return conclusion(solution, answer) is not None
