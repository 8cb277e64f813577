"""Which equations of a text are found to be wrong, and which are left alone."""

import time
from fractions import Fraction

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from inspector_pipeline.sums import DEEPEST, READ_CHARACTERS, WrongSum, wrong_sums

WRONG = {  # in brackets, what is found -> what its left side comes to
    "So he fills [54 / 8 = 6] boxes.": 6.75,
    "[2 + 2 = 5]": 4,
    "a total of [5 + 3 = 9] apples": 8,
    "It costs [$1,054 + $10 + $132 = $1,200].": 1196,
    "[£3.50 * 2 = £8]": 7,
    "[10 quarts left + 4 students * 1.5 quarts + 16 students * 2 quarts = 34] quarts": 48,
    "[$1056 (picture frames) + $10 (pins) + $132 (cords) = $1200]": 1198,
    "a 200-foot tall tree would have [200 / 10 = 30] rings": 20,
    "y = [5 + 3 = 9]": 8,
    "f(3) = [3 * 2 + 1 = 8]": 7,
    "(he mows [12 * $5 = $50]) twice": 60,
    "[(5*3) + (2*4) = 15 + 9] = 24": 23,
    "[2 x 6 + 2 x 6 = 16] tickets": 24,
    "[(3 + 4) × 2 = 15]": 14,
    "[8 ÷ 2 − 1 = 2]": 3,
    "[5x3 = 16]": 15,
    "[20% of 50 = 15]": 10,
    "[3/4 of 8 = 5]": 6,
    "[50 * 20% = 12]": 10,
    "[9 / 3 = 40%]": 3,
    "[7 * 8 equals 54]": 56,
    "[7 * 8 is equal to 54]": 56,
    "[-48 + 21 + (-3) = -28]": -30,
    "[32 - 4 = 2]": 28,
    "[1128 / 60 = 18] packs": 18.8,
    "[0.5 * 0.5 = 2.5]": 0.25,
    r"[$54 \times 2 = 18]$": 108,
    r"\[ [\$8 + \$16 + \$64 = \$96] \]": 88,
    r"\([7 \cdot 3 = 20]\)": 21,
    r"[\frac{30}{4} = 9]": 7.5,
    r"\left[(2 + 3\right) \div 5 = 2]": 1,
    r"[5 \text{ bags} + 3 \text{ bags} = \boxed{9]}": 8,
    r"[1{,}000 + 1 = 1{,}002]": 1001,
    "**[5 + 3 = **9]": 8,
    "- [5 + 3 = 9]": 8,
    "* [2 * 3 = 7]": 6,
    "1. [2 + 2 = 5]": 4,
    "12) [2 + 2 = 5]": 4,
    "[20 + 5\n  &= 26]": 25,
    "[48 / 2 = <<48/2=25>>25] clips": 24,
    "3 * 5 = <<3*5=15>>15. Then [15 + 1 = <<15+1=17>>17]": 16,
    "The base pay is [$500 + $50 = $560]": 550,
    "The base of the triangle is [3 + 4 = 8]": 7,
    "In total there are [2 + 2 = 5] modern cars": 4,
    "Moving clockwise, [2 + 2 = 5] steps": 4,
    "[48 - 12 = 35] left": 36,
    "[54 / 6 = 8] full vans": 9,
    "[47 / 6 = 9] full vans": 47 / 6,
    "[7 + 5 = 13], carry 1": 12,
    "[2 apples + 3 apples = 6] apples": 5,
    "[5 red apples + 3 green apples = 9] apples": 8,
    "[3 boys + 4 girls = 8] children": 7,
    "[5 bags of rice + 3 bags = 9] bags": 8,
    "If he buys more, [2 + 2 = 5] are there": 4,
    "[5 apples + 8 oranges + 10 apples + 4 oranges = 17 apples + 12] oranges": 27,
    "[12 - 4 = 7] pages": 8,
    "[1.234 + 500 = 600]": 501.234,
    "That is wrong.\n[2 + 2 = 5]": 4,
    "[2 + 2 = 5]. What follows?": 4,
    "[12 + 15 = 28]!": 27,
    "[12 + 15 = 28]! Hence the rest.": 27,
    "> [15 + 12 = 28]": 27,
    "# [15 + 12 = 28]": 27,
    "### [15 + 12 = 28]": 27,
    "> - [15 + 12 = 28]": 27,
    "✓ [15 + 12 = 28]": 27,
    "✅ [15 + 12 = 28]": 27,
    "a) [15 + 12 = 28]": 27,
    "(b) [15 + 12 = 28]": 27,
    "| [15 + 12 = 28] |": 27,
    "| Pen | [$2 × 3 = $7] |": 6,
    "| Item | Cost |\n|---|---|\n| Pen | [$2 × 3 = $7] | ok |": 6,
    "[15 + 12 = 28]...": 27,
    "[15 + 12 = 28]... so next": 27,
    "[15 + 12 = 28]…": 27,
    "[15 + 12 = 28] -> next": 27,
    "[15 + 12 = 28] --> next": 27,
    "5 × 12 = 60 and [60 - 7 = 54]": 53,
}
RIGHT = (
    "2 + 2 = 4",
    "54 / 8 = 6.75",
    "54 / 8 = 7 when all boxes count",
    "2 / 3 = 0.67",
    "2 / 3 = 0.66",
    "2 / 3 = 66.7%",
    "1/4 = 25%",
    "1/4 * 100 = 25",
    "18 / 24 * 100 = 75%",
    "0.33 * 60 = 20",
    "$1.99 * 3 = $5.97",
    "8 - 11 = 3",
    "-5 + 3 = -2",
    "5 + 3 = 8 + 2 = 10",
    "(5*3) + (2*4) = 15 + 8 = 23",
    "20% of 50 = 10",
    "3/4 of 8 = 6",
    r"\frac{30}{4} = 7.5",
    "1,000 + 1 = 1,001",
    "10/4 = 5/2 = 2.5",
    "The 3 boys, 4 + 5 = 9 girls",
    "48/2 = <<48/2=24>>24 clips",
    "100000000 * 3 = 300000000",
)
UNREAD = (
    "",
    "5 + 3 is nine",
    "6 = 9",
    "x = 9",
    "3x + 5 = 20",
    "2 F = 28",
    "9 + x - 2 = 27",
    "4a + 4036 = 0",
    "24 - 2xy = 36",
    "2 * a = 7",
    "max(2 + 3) = 3",
    "2^3 + 1 = 4",
    "2**3 + 1 = 4",
    "3² + 1 = 4",
    "√9 + 1 = 5",
    r"\sqrt{9} + 1 = 5",
    r"\sqrt[3]{\frac{8}{27}} = 2",
    "3! + 1 = 8",
    "log 3 + 4 = 2",
    "17 + 5 = 2 (mod 20)",
    "17 / 5 = 3 R 2",
    "17 / 5 = 3, remainder 2",
    "17 / 5 = 3 with 2 left over",
    "17 / 5 = 3 (rounded down)",
    "17 / 5 = 3 and 2/5",
    "3:00 + 2:30 = 5",
    "July 19 - December 31 = 200",
    "3:4 + 1 = 9",
    "1 1/2 + 1 = 4",
    "5 + 1 1/2 = 9",
    "3,5 + 1 = 9",
    "12 000 + 20 = 12",
    "half of 10 + 6 = 11",
    "twice 3 + 4 = 14",
    "the square root of 9 + 16 = 5",
    "3 times 2 + 1 = 9",
    "5 plus 3 + 4 = 13",
    "5 less than 3 + 10 = 8",
    "3 bags of 10 + 6 = 48",
    "2 (5 + 3) = 11",
    "24 games (2/month) + 5 = 29",
    "5 hours + 30 minutes = 5 hours 45 minutes",
    "2 + 3 = 6 hours 30 minutes",
    "3 dozen + 2 = 38",
    "2 million + 5 = 7",
    "5 + 10% = 5.5",
    "30 minutes + 30 minutes = 1 hour",
    "40 minutes + 1 hour = 100 minutes",
    "1 hour + 30 minutes = 1.5 hours",
    "3 * $0.25 = 75 cents",
    "2 feet + 6 inches = 30 inches",
    "100.02 MHz - 99.98 MHz = 40 kHz",
    "5 bananas + 12 apples = 5 * $1 + 12 * $2 = $29",
    "if 2 + 3 == 6",
    "2 + 3 <= 6",
    "2 + 3 != 6",
    "n += 2 = 3",
    "a[1] = 3",
    "2 + 3 =?",
    "2 + 3 = ?",
    "2 + 3 = __",
    "2 + 3 ≈ 6",
    "the final price after the discount is - 600 + 500 = 800",
    "the price - 5 + 3 = 80",
    "20 + tax + 5 + 3 = 80",
    "5 + 3 = 4 + tax",
    "60 / 3/4 = 80",
    "1 + 2 + ... + 9 + 10 = 55",
    "5 / 0 = 1",
    "5 / (3 - 3) = 0",
    "1 + (2 + = 7",
    "9" * 16 + " + 1 = 3",
    "(" * (DEEPEST + 1) + "1" + ")" * (DEEPEST + 1) + " + 1 = 3",
    "٣ + 1 = 9",
    "½ + 1 = 9",
    "x2 + 3 = 9",
    "the 3rd + 1 = 9",
    "1/3 of the tank is equal to 16 / 2 gallons",
    "14, 400 / 80 = 180",
    "{0 - 2, 2(0)} = {-2}",
    "6 + 3\n\n= \n9 + 9",
    "we set up the equation 1 + 4 = 7 + 2",
    "100 / 6 = 16 and (2/3)",
    "20 apples: 20 * 45 = $9",
    "9 kids * 2 cakes = 18 cakes + 6 adults * 1 cake = 6 cakes",
    "3Fawn + 1 = 85",
    "40 cups + (20 more dishes than Judy) = 40 cups + 24 dishes",
    "8 kg + 500 g = 9",
    "5 + 3 = 9x",
)
EXCUSED = (
    # denied or asked
    "It is not true that 2 + 2 = 5.",
    "2 + 2 = 5 is wrong",
    "The student wrote 7 × 8 = 54, which is incorrect",
    "Wrong: 7 × 8 = 54.",
    "Common mistake: 1/2 + 1/3 = 2/5.",
    "Is 3 + 4 = 8? No",
    "Is 3 + 4 = 8 apples? No",
    "2 + 2 = 5 would be a contradiction",
    "puzzle: 1 + 4 = 5, 2 + 5 = 12",
    "It is false that 2 + 2 = 5.",
    "The statement 2 + 2 = 5 is an error.",
    "Suppose that 2 + 2 = 5.",
    "Imagine 2 + 2 = 5",
    "~~2 + 2 = 5~~",
    "❌ 2 + 2 = 5",
    "2 + 2 = 5 ❌",
    # another arithmetic
    "By integer division, 7 / 2 = 3.",
    "7 / 4 = 1 in integer division",
    "In binary, 1 + 1 = 10.",
    "1 + 1 = 10 in binary",
    "In base 8, 7 + 1 = 10.",
    "In base two 1 + 1 = 10",
    "7 + 1 = 10 (base 8)",
    "In hexadecimal 9 + 1 = A, and 9 + 9 = 12.",
    "In octal 7 + 7 = 16",
    "Modulo 7, we have 5 + 4 = 2.",
    "On a clock, 10 + 4 = 2.",
    "10 o'clock is reached, since 8 + 6 = 2",
    "In Boolean algebra, 1 + 1 = 1.",
    "In Z_5, 3 + 4 = 2.",
    r"In $\mathbb{Z}_5$, 3 + 4 = 2.",
    r"5 + 4 = 2 \pmod{7}",
    # several things counted
    "1 min + 30 secs = 90 secs",
    "1 cup + 2 tbsp = 18 tbsp",
    "2 GB + 512 MB = 2560 MB",
    "3 pairs + 1 shoe = 7 shoes",
    "2 packs + 3 cards = 107 cards",
    "2 boxes of eggs + 6 eggs = 30 eggs",
    # number words
    "1 mn + 2 = 3000000",
    "3 bn + 5 = 8",
    "2 lakh + 5 = 200005",
    "1 crore - 1 lakh = 99",
    "3 tens + 4 ones = 34",
    "2 gross + 5 = 293",
    "3 dozen + 5 = 41",
    # quotients cut, digits carried
    "47 / 6 = 7 full vans",
    "47 / 6 = 7 complete sets",
    "$20 / $3 = 6 burgers with $2 change",
    "$20 / $3 = 6 burgers with $2 left",
    "20 / 3 = 6 with change",
    "7 + 5 = 2, carry 1",
    "7 + 5 = 2 carry the 1",
    "8 + 9 = 7 and carry 1",
    # ranges, codes and phones
    "12345-6789 = 5",
    "ZIP 12345-6789 = 5",
    "Call 555-1234 = 5",
    "Phone: 555-1234 = 7",
    "Pages 10-20 = 11 pages",
    "the range 10-20 = 11",
    "records 5-9 = 5 records",
    "between 5-9 = 3",
    # points of thousands
    "1.000 + 500 = 1.500 €",
    "1.000 + 500 = 1.500",
    "2.500 € - 500 € = 2.000 €",
    # addresses
    "10.0.0.0/24 = 256 addresses",
    "192.168.1.0/24 = 256",
    "https://example.com/?a=1&b=2&c=3+4=8",
    "?a=1&b=2&c=3+4=8",
    # matrices, scores
    "3 x 4 matrix = 14",
    "A 3 x 4 matrix = 5",
    "5/10 = 5 out of 10",
    # marks that end no clause, and letters that begin no line
    "2 * 3 * 4 = 4!",
    "3 * 2 * 1 = 3!",
    "2 + 4 = 3!",
    "3 * 40 = 5 * 4!",
    "3! + 1 = 8",
    "5! - 3 - 4 = 113",
    "3! - 2 = 4 and 5! x 2 = 9",
    "| -3 | - 5 - 2 = -4",
    "|3 - 5| + 4 = 7",
    "|-3| - 5 - 2 = -4",
    "1 + 3 + 5... + 99 = 2500",
    "1 + 2 + ... + 9 + 10 = 55",
    "2 / 3 = 0.66...",
    "2 / 3 = 0.66… so",
    "10 / 3 = 3.33... -> next",
    "the sum of 5 and 5 - 2 = 8",
    "take 5 and 5 - 2 = 8",
    "5 × 12 = 60 and 60 - 7 = 53",
    "(x + 1) 3 + 4 = 8",
    "f(a) 3 + 4 = 8",
    "12 + 15 = 27!",
    "20 * 5 = 100! and 6 * 20 = 5!",
    "x > 15 + 12 = 28",
)


def marked(text):
    """Write brackets around what is found."""
    for start, end, _ in reversed(wrong_sums(text)):
        text = f"{text[:start]}[{text[start:end]}]{text[end:]}"
    return text


@pytest.mark.parametrize("text", WRONG)
def test_a_wrong_equation_is_found_where_it_is_written(text):
    plain = text.replace("\\[", "<").replace("\\]", ">").replace("[", "").replace("]", "")
    plain = plain.replace("< ", "\\[ ").replace(" >", " \\]")
    assert marked(plain) == text
    assert [found.value for found in wrong_sums(plain)] == [pytest.approx(WRONG[text])]


@pytest.mark.parametrize("text", RIGHT + UNREAD + EXCUSED)
def test_what_is_right_or_cannot_be_read_for_certain_is_left_alone(text):
    assert wrong_sums(text) == []


def test_several_are_found_in_order():
    text = "First, 2 + 2 = 5 pears. Then 5 * 2 = 10.\n\n**Step 2:** 10 - 3 = 6, so that 6 / 2 = 4."
    assert wrong_sums(text) == [WrongSum(7, 16, 4.0), WrongSum(54, 64, 7.0), WrongSum(74, 83, 3.0)]


numbers = st.integers(min_value=0, max_value=9999)
sums = st.recursive(
    numbers.map(str),
    lambda inner: st.one_of(
        st.tuples(inner, st.sampled_from(["+", "-", "*"]), inner).map(" ".join),
        inner.map("({})".format),
    ),
    max_leaves=6,
)


def comes_to(written):
    """What a sum of integers comes to, by another way: signs are gathered from the right."""
    tokens = written.replace("(", " ( ").replace(")", " ) ").split()

    def lowest():
        value = middle()
        while tokens and tokens[0] in "+-":
            value += (1 if tokens.pop(0) == "+" else -1) * middle()
        return value

    def middle():
        value = highest()
        while tokens and tokens[0] == "*":
            tokens.pop(0)
            value *= highest()
        return value

    def highest():
        token = tokens.pop(0)
        if token != "(":
            return Fraction(token)
        value = lowest()
        tokens.pop(0)
        return value

    return int(lowest())


@given(sums.filter(lambda written: set("+-*") & set(written)), st.integers(1, 99))
def test_a_true_equation_of_integers_is_left_alone_and_one_with_another_result_is_found(written, change):
    result = comes_to(written)
    assume(abs(result) < 10**12)
    assert wrong_sums(f"We get {written} = {result}.") == []
    if result + change != -result:
        assert len(wrong_sums(f"We get ({written}) = {result + change}.")) == 1


@given(st.text(alphabet="12.,()+-*/=%$ x{}\\afrc\n<>"))
def test_any_text_can_be_read(text):
    for start, end, value in wrong_sums(text):
        assert 0 <= start < end <= len(text) and value == value and "=" in text[start:end]


HOSTILE = (
    "1+",
    "(1+",
    "1 (a)",
    "\\frac{",
    "} ",
    "<<",
    "=1+1",
    "1+1=3, ",
    "\n ",
    "a-",
    "1.001+1=3,",
    "1-1=3?",
    "1/3=0 over",
)


def test_hostile_texts_are_read_in_a_moment():
    start = time.process_time()
    for piece in HOSTILE:
        wrong_sums(piece * (READ_CHARACTERS // len(piece) - 1) + "=1")
        wrong_sums(piece * 100_000 + "=1")
    wrong_sums("(" * DEEPEST + "a " + "1 " * (READ_CHARACTERS // 2 - 2 * DEEPEST) + ")" * DEEPEST + "= 1")
    assert time.process_time() - start < 4


def test_only_the_beginning_of_a_text_is_read():
    wrong = "2 + 2 = 5"
    assert len(wrong_sums(" " * (READ_CHARACTERS - len(wrong)) + wrong)) == 1
    assert wrong_sums(" " * READ_CHARACTERS + wrong) == []


@pytest.mark.parametrize("end", [". ", "! ", "? ", "\n"])
@pytest.mark.parametrize("kept", range(7, 18))
def test_an_equation_that_the_limit_would_cut_in_two_is_not_read(end, kept):
    wrong, right = "We see 2 + 2 = 5 pears. ", "6 * 25 = 50 * 3.5 - 25"
    text = wrong + "a" * (READ_CHARACTERS - len(wrong) - len(end) - kept) + end + right
    assert wrong_sums(text) == [WrongSum(7, 16, 4.0)]
    assert wrong_sums("a" * (READ_CHARACTERS - kept) + right) == []
