"""Damages to steps and their wording.

Steps are invented, dropped, put out of order, cut off, left out, or those of another question; words get typos, go
missing or change places, and whatever carries mathematics is left alone.
"""

import random
import re
from fractions import Fraction

from ..rows.answers import mentions
from .rationale import Damaged, Source, equations, evaluate, plain, values, written

_PEOPLE = ("Bertil", "Carlota", "Dmitri", "Eunice", "Farouk", "Hamish", "Ingrid", "Joaquin", "Mirela", "Nikhil")
_THINGS = ("coupons", "tickets", "pencils", "boxes", "coins", "jars", "tokens", "stamps", "ribbons", "bricks", "plates")
_UNUSED = (
    "{person} also has {number} {things}.",
    "We are told that {person} gave away {number} {things} the day before.",
    "Another {number} {things} were bought by {person} earlier.",
    "Note that {number} {things} are kept aside by {person}.",
    "There are {number} {things} that belong to {person}, as stated.",
    "{person} had already counted {number} {things} that morning.",
    "The problem also mentions {person}, who brings {number} {things}.",
    "Last week {person} lost {number} {things}.",
)
_USED = (
    "Since {person} adds {number} more, the total is {old} + {number} = {new}.",
    "{person} brings another {number}, so we get {old} + {number} = {new}.",
    "We must also count the {number} from {person}, which gives {old} + {number} = {new}.",
    "Adding the {number} that {person} had before, this becomes {old} + {number} = {new}.",
    "There are {number} more because of {person}, hence {old} + {number} = {new}.",
)
_KEPT = {1: 0.75, 2: 0.5, 3: 0.25}  # share of the words that a truncated solution keeps
_WORD = re.compile(r"[A-Za-z]{2,}[.,;:!?]?")  # no digit, operator or LaTeX
_FUNCTION_WORDS = frozenset(
    ("a", "an", "the", "is", "are", "was", "were", "be", "of", "to", "in", "on", "at", "for", "from", "by", "with")
    + ("and", "so", "that", "this", "there", "it", "he", "she", "they", "has", "have", "had", "will", "each", "her")
)
_FORMULA = re.compile(r"\$[^$]*\$|\\\(.*?\\\)|\\\[.*?\\\]")
_TYPOS = {1: 0.25, 2: 0.4, 3: 0.4}  # share of the words that get a typo
_MISSING = {1: 0.0, 2: 0.5, 3: 0.5}  # share of the function words that go
_GARBLED = ("typos", "typos, words missing", "words shuffled")
MIN_WORDS = 6  # a solution of fewer words, formulas aside, is too short to garble


def invented_fact(source: Source, degree: int, rng: random.Random) -> Damaged | None:
    """Assert quantities that the question does not give: 1 one, 2 two, 3 one that changes the answer."""
    lines = source.rationale.plain_lines
    person, second = rng.sample([name for name in _PEOPLE if name not in source.question], 2)
    taken = values(source.question + " " + " ".join(lines))
    number, other = rng.sample([n for n in range(3, 60) if Fraction(n) not in taken], 2)
    if degree == 3:
        final = evaluate(source.rationale.final)
        if final is None or final <= 0 or (final * 100).denominator != 1 or final + number in taken:
            return None
        new = written(final + number)
        used = rng.choice(_USED).format(person=person, number=number, old=written(final), new=new)
        return Damaged((*lines, used), new, f"used: {used}")
    first = rng.choice(_UNUSED)
    invented = [first.format(person=person, number=number, things=rng.choice(_THINGS))]
    if degree == 2:
        again = rng.choice([text for text in _UNUSED if text != first])
        invented.append(again.format(person=second, number=other, things=rng.choice(_THINGS)))
    for sentence in invented:
        lines.insert(rng.randrange(len(lines)), sentence)
    return Damaged(tuple(lines), source.rationale.final, " ".join(invented))


def dropped_step(source: Source, degree: int, rng: random.Random) -> Damaged | None:
    """Leave out as many steps as the degree says, each one whose result a later step uses."""
    lines = source.rationale.lines
    needed = [i for i, line in enumerate(lines) if any(_uses(later, line) for later in lines[i + 1 :])]
    if len(needed) < degree:
        return None
    dropped = sorted(rng.sample(needed, degree))
    kept = tuple(plain(line) for i, line in enumerate(lines) if i not in dropped)
    return Damaged(kept, source.rationale.final, " | ".join(plain(lines[i]) for i in dropped))


def reordered_steps(source: Source, degree: int, rng: random.Random) -> Damaged | None:
    """Put steps before those they need: 1 two neighbours, 2 shuffled, 3 all reversed."""
    lines = list(source.rationale.lines)
    if degree == 1:
        places = [i for i in range(len(lines) - 1) if _uses(lines[i + 1], lines[i])]
        if not places:
            return None
        at = rng.choice(places)
        lines[at], lines[at + 1] = lines[at + 1], lines[at]
    elif len(lines) < 3:
        return None
    elif degree == 2:
        rng.shuffle(lines)
    else:
        lines.reverse()
    broken = sum(_uses(line, later) for i, line in enumerate(lines) for later in lines[i + 1 :])
    if broken < min(degree, 2):
        return None
    return Damaged(tuple(plain(line) for line in lines), source.rationale.final, f"{broken} steps before what they use")


def answer_only(source: Source, degree: int, rng: random.Random) -> Damaged | None:
    """Leave nothing but the answer: 1 in a sentence, 2 bare."""
    return Damaged((), source.rationale.final, "no derivation", bare=degree == 2)


def truncated(source: Source, degree: int, rng: random.Random) -> Damaged | None:
    """Stop in the middle of a sentence, before the answer stands anywhere."""
    lines = source.rationale.plain_lines
    total = sum(len(line.split()) for line in lines)
    keep = round(total * _KEPT[degree] * rng.uniform(0.9, 1.1))
    kept: list[str] = []
    for line in lines:
        words = line.split()
        if keep <= 0:
            break
        kept.append(line if len(words) < keep else " ".join(words[: min(keep, len(words) - 1)]))
        keep -= len(words)
    final = evaluate(source.rationale.final)
    if final is None or len(" ".join(kept).split()) < 5 or mentions(" ".join(kept), final):
        return None
    return Damaged(tuple(kept), None, f"{len(' '.join(kept).split())} of {total} words")


def off_topic(source: Source, degree: int, rng: random.Random) -> Damaged | None:
    """Give the solution of another question, which has another answer."""
    donor = source.donor
    if donor.lines == source.rationale.lines or evaluate(donor.final) == evaluate(source.rationale.final):
        return None
    return Damaged(tuple(donor.plain_lines), donor.final, f"answers {donor.final}")


def clean(source: Source, degree: int, rng: random.Random) -> Damaged:
    """Leave the solution as it is."""
    return Damaged(tuple(source.rationale.plain_lines), source.rationale.final, "undamaged")


def garbled_language(source: Source, degree: int, rng: random.Random) -> Damaged | None:
    """Garble the words of every step: 1 typos, 2 more of them and little words missing, 3 in random order as well."""
    lines = source.rationale.plain_lines
    if sum(_is_word(token) for line in lines for token in _tokens(line)) < MIN_WORDS:
        return None
    garbled = [_garble(line, degree, rng) for line in lines]
    if garbled == lines:
        return None
    return Damaged(tuple(garbled), source.rationale.final, _GARBLED[degree - 1])


def _garble(line: str, degree: int, rng: random.Random) -> str:
    kept = [t for t in _tokens(line) if not (t.lower() in _FUNCTION_WORDS and rng.random() < _MISSING[degree])]
    places = [i for i, token in enumerate(kept) if _is_word(token)]
    words = [typo(kept[i], rng) if rng.random() < _TYPOS[degree] else kept[i] for i in places]
    if degree == 3:
        rng.shuffle(words)
    for place, word in zip(places, words, strict=True):
        kept[place] = word
    return " ".join(kept)


def typo(word: str, rng: random.Random) -> str:
    """Swap, drop or double a letter inside a word; its first letter stays."""
    letters = re.sub(r"\W", "", word)
    if len(letters) < 3:
        return word
    at = rng.randrange(1, len(letters) - 1)
    change = rng.choice(("swap", "drop", "double"))
    if change == "swap" and letters[at] != letters[at + 1]:
        garbled = letters[:at] + letters[at + 1] + letters[at] + letters[at + 2 :]
    elif change == "drop":
        garbled = letters[:at] + letters[at + 1 :]
    else:
        garbled = letters[: at + 1] + letters[at:]
    return garbled + word[len(letters) :]


def _tokens(line: str) -> list[str]:
    """Split a line at white space, formulas whole."""
    if "\\" not in line:
        return line.split()
    formulas = iter(_FORMULA.findall(line))
    return [re.sub("\0", lambda _: next(formulas), token) for token in _FORMULA.sub("\0", line).split()]


def _is_word(token: str) -> bool:
    return bool(_WORD.fullmatch(token))


def _uses(line: str, earlier: str) -> bool:
    """Whether a step computes with a result of an earlier one, which it does not derive itself."""
    own = {equation.result for equation in equations(line)}
    operands = {value for equation in equations(line) for value in equation.operands}
    return any(equation.result in operands - own for equation in equations(earlier))
