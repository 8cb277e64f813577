r"""Final answers: the one that a gold solution gives, and the one that a free-text response states.

math-verify compares answers well, but left to itself it takes the last number of a free text, which in "Tim makes $1500
if he sells 30 necklaces." is the wrong one. So what a response states is looked for here first, in this order: the last
\boxed{}, `#### 42`, "the answer is 42", and last the number of the concluding sentence. Of several numbers there, the
answer is the one that stands after the sentence's last "=", else the one that the response's last equation gave, else
the only one in bold, else the only one that the question does not give. Otherwise no answer was found: guessing would
invent a label.
"""

import re
from dataclasses import dataclass
from fractions import Fraction

NUMBER = re.compile(
    r"(?<![\w.,])[-−–]?\s?\$?\s?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?(?:\s?/\s?\d+(?![\d.,]*\d))?|(?<!\d)\.\d+"
)
_MIXED = re.compile(r"(?<![\w.,/])\$?(\d+)(?:\s+|\s*-\s*|\s+and\s+)(\d+)\s?/\s?(\d+)(?!\d)")
_BOX = re.compile(r"\\(?:boxed|fbox)(?![a-zA-Z])\s*")
_HASHES = re.compile(r"####\s*(.+)")
_PHRASE = re.compile(
    r"\banswer(?:\s+to\b[^.:\n]{0,80}?)?(?:\s+(?:is|are|would\s+be|should\s+be)\b\s*:?|\s*\**\s*:)\s*(.+)", re.I
)
_SENTENCE = re.compile(r"(?<=[.!?])[*)\"']*\s+|\n+(?![a-z\n])")  # a line in lower case continues the one before
_CLOCK = re.compile(r"(\d{1,2}):([0-5]\d)(?!\d)")
_VARIABLE = re.compile(r"\d[nxyz]\b(?!\s*[$\d])")  # "$216 + $66x" is no number
_LIST_NUMBER = re.compile(r"^\s*\d+[.)]\s+(?=\D)", re.MULTILINE)
_TWOFOLD = re.compile(
    r"\(or\s[^)]*\d|\d\s+(?:years|months|weeks|days|hours?|minutes|feet|pounds|dollars)\s+and\s+\d", re.I
)
_ASIDE = re.compile(r"\([^()]*\)")
_RESULT = re.compile(r"[=≈]\s*[^\d=\n-]{0,6}(?=[-\d.])")
_BOLD = re.compile(r"\*\*(.+?)\*\*")
_SCALES = {"hundred": 10**2, "thousand": 10**3, "million": 10**6, "billion": 10**9, "dozen": 12}
_SCALED = re.compile(r"\s*(hundred|thousand|million|billion|dozen)\b", re.I)
_WORDS = (
    *("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"),
    *("thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen", "twenty"),
)
_WORD = re.compile(rf"\b(?:{'|'.join(_WORDS)})\b", re.I)
LOOK_BACK = 3  # sentences without a number that may follow the concluding one
CUT_OFF = 1000  # characters; a longer text that ends in the middle of a sentence ran into its limit


@dataclass(frozen=True)
class StatedAnswer:
    """What a response states as its final answer.

    Attributes:
        text: The answer, as math-verify can read it.
        source: Where it was found: boxed | hashes | phrase | conclusion.
    """

    text: str
    source: str


@dataclass(frozen=True)
class FoundNumber:
    """A number in a text.

    Attributes:
        start: Where it starts in the text.
        end: Where it ends.
        value: Its value; "2 million" is 2000000, "3 1/2" is 7/2, "7:30" is 15/2. A percent sign is left aside.
    """

    start: int
    end: int
    value: Fraction


def final_answer(solution: str) -> str | None:
    r"""Take the final answer out of a gold solution.

    Args:
        solution: A solution of GSM8K (`#### 72`) or MATH (the last \boxed{}).

    Returns:
        The answer's text, or None where the solution marks none.

    Example:
        >>> final_answer("48 + 24 = <<48+24=72>>72 clips.\n#### 72")
        '72'
    """
    hashes = _HASHES.findall(solution)
    return hashes[-1].strip() if hashes else last_boxed(solution)


def last_boxed(solution: str) -> str | None:
    r"""Take what stands in the last `\boxed{...}` (or `\fbox{...}`) of a LaTeX solution, braces balanced.

    `\boxed 7$` without braces, which occurs in MATH, is read up to the next `$` or the line's end. Escaped braces do
    not count. A box that is never closed is none.

    Example:
        >>> last_boxed(r"so $x = \boxed{\frac{1}{2}}$.")
        '\\frac{1}{2}'
    """
    boxes = list(_BOX.finditer(solution))
    if not boxes:
        return None
    content = solution[boxes[-1].end() :]
    found = _balanced(content) if content.startswith("{") else re.split(r"[$\n]", content, maxsplit=1)[0]
    return (found or "").strip() or None


def _balanced(text: str) -> str | None:
    """Return what stands between a first brace and the one that closes it."""
    depth = 0
    for mark in re.finditer(r"\\.|[{}]", text, flags=re.DOTALL):
        depth += {"{": 1, "}": -1}.get(mark.group(), 0)
        if depth == 0 and mark.group() == "}":
            return text[1 : mark.start()]
    return None


def find_numbers(text: str) -> list[FoundNumber]:
    """Find every number that is written in digits, in order."""
    found = []
    position = 0
    while match := NUMBER.search(text, position):
        mixed = _MIXED.match(text, match.start())
        clock = _CLOCK.match(text, match.start())
        if clock:
            value, end = Fraction(int(clock[1]) * 60 + int(clock[2]), 60), clock.end()
        elif mixed and int(mixed[3]):
            value = int(mixed[1]) + Fraction(int(mixed[2]), int(mixed[3]))
            end = mixed.end()
        else:
            value, end = number_value(match[0]), match.end()
        if scaled := _SCALED.match(text, end):
            value, end = value * _SCALES[scaled[1].lower()], scaled.end()
        found.append(FoundNumber(match.start(), end, value))
        position = end
    return found


def number_value(text: str) -> Fraction:
    """Return the value of a number as it is written: `-$1,234.50`, `.5`, `1/2`."""
    plain = re.sub(r"[$,\s]", "", text).replace("−", "-").replace("–", "-")
    top, _, bottom = plain.partition("/")
    return Fraction(top) / int(bottom) if bottom and int(bottom) else Fraction(top)


def as_number(text: str) -> Fraction | None:
    """Read an answer that is a number and nothing else: "1,200", "$18.00", "-5", "50%", "1/2"; else None."""
    plain = re.sub(r"[$,%\s]", "", text).rstrip(".")
    if not re.fullmatch(r"[-+]?(?:\d+(?:\.\d+)?|\.\d+)(?:/0*[1-9]\d*)?", plain):
        return None
    top, _, bottom = plain.partition("/")
    return Fraction(top) / int(bottom or 1)


def stated_answer(response: str, question: str = "") -> StatedAnswer | None:
    """Find the final answer that a response states.

    Args:
        response: Free text.
        question: Its question; a number that it gives is less likely the answer.

    Returns:
        The answer, or None where none is stated or where it is not certain which number is meant.
    """
    if boxed := last_boxed(response):
        return StatedAnswer(boxed, "boxed")
    for pattern, source in ((_HASHES, "hashes"), (_PHRASE, "phrase")):
        for text in reversed(pattern.findall(response)):
            answer = _last_math(text) or _the_number(text, response, question)
            if answer:
                return StatedAnswer(answer, source)
    sentences = [text for text in _SENTENCE.split(_LIST_NUMBER.sub("", response)) if re.search(r"\w", text)]
    if not sentences or sentences[-1].rstrip().endswith("?"):
        return None
    open_ended = "=" not in sentences[-1] and not re.search(r"[.!)*:$\"']\s*$", sentences[-1])
    if open_ended and (len(response) > CUT_OFF or len(sentences) > 1 and not find_numbers(sentences[-1])):
        return None
    for sentence in sentences[: -LOOK_BACK - 2 : -1]:
        if not find_numbers(sentence) and not _last_math(sentence) and not _WORD.search(sentence):
            continue
        answer = _last_math(sentence) or _the_number(sentence, response, question)
        return StatedAnswer(answer, "conclusion") if answer else None
    return None


def mentions(text: str, value: Fraction) -> bool:
    """Whether a number stands in a text: in digits, as a percentage, or in words; the numbers of a list aside."""
    text = _LIST_NUMBER.sub("", text)
    words = {Fraction(_WORDS.index(word.lower())) for word in _WORD.findall(text)}
    found = {number.value for number in find_numbers(text)} | words
    return bool(found & {value, value / 100, value * 100})


def _last_math(text: str) -> str | None:
    """Return the right-hand side of the last LaTeX formula that is more than a plain number."""
    formulas = re.findall(r"\$([^$\n]*\\[^$\n]*)\$|\\\((.+?)\\\)|\\\[(.+?)\\\]", text)
    return next(filter(None, formulas[-1])).split("=")[-1].strip() if formulas else None


def _the_number(sentence: str, response: str, question: str) -> str | None:
    """Say which of a sentence's numbers is the answer, as text; None where that is not certain."""
    if _VARIABLE.search(sentence) or _TWOFOLD.search(sentence):
        return None
    after = sentence[sentence.rfind("=") + 1 :]
    if "=" in sentence and (numbers := find_numbers(after)):
        return str(numbers[0].value)
    numbers = find_numbers(_ASIDE.sub(" ", sentence)) or find_numbers(sentence)
    values = list(dict.fromkeys(number.value for number in numbers))
    if not values:
        words = {word.lower() for word in _WORD.findall(sentence)}
        return str(_WORDS.index(words.pop())) if len(words) == 1 else None
    if len(values) == 1:
        return str(values[0])
    computed = [find_numbers(response[match.end() :][:40]) for match in _RESULT.finditer(response)]
    results = [numbers[0].value for numbers in computed if numbers]
    if results and (results[-1] in values or -results[-1] in values):
        return str(results[-1] if results[-1] in values else -results[-1])  # "-$10" is told as "$10 less"
    given = {number.value for number in find_numbers(question)}
    bold = {number.value for text in _BOLD.findall(sentence) for number in find_numbers(text)}
    for narrowed in (bold, set(values) - given):
        if len(narrowed) == 1:
            return str(narrowed.pop())
    return None
