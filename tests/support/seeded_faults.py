"""Seed known faults into clean rows, to measure what the audit finds. Shares no code with the audit, on purpose.

Every fault is written the way a careless script or a copying annotator would make it; the places are drawn by a seed.
"""

import json
import random
import re
import string
from dataclasses import dataclass, field

SHIFTS = ("swap", "block", "rotate")
TARGETS = ("question", "response", "both")
OTHER_WORDS = {
    "how": "just how",
    "many": "many whole",
    "much": "a lot",
    "does": "will",
    "has": "owns",
    "buys": "purchases",
    "each": "every single",
    "are": "happen to be",
    "total": "overall sum",
    "gives": "hands",
    "more": "additional",
    "makes": "produces",
    "what": "which",
    "your": "one's",
    "can": "could",
    "write": "draft",
    "explain": "describe",
    "people": "persons",
    "so": "thus",
    "first": "to begin with",
}
FILLERS = ("really", "very", "also", "then", "actually", "of course", "please", "now")
TAILS = (" Please think step by step.", " Show your work.", " Thank you!", " Give a short and clear answer.")
NAMES = ("Ottilie", "Bartholomew", "Xiomara", "Thaddeus", "Ingeborg")
TRIVIA = [
    ("What is the capital of Mongolia?", "Ulaanbaatar is the capital of Mongolia."),
    ("Name the largest moon of Saturn.", "Titan"),
    ("Who painted the ceiling of the Sistine Chapel?", "Michelangelo painted it between 1508 and 1512."),
    ("What is 17 times 3?", "51"),
    ("Translate 'good morning' into Spanish.", "Buenos dias"),
    ("How many legs does a spider have?", "Eight"),
    ("Simplify 6/8.", "3/4"),
    ("Which gas do plants take in for photosynthesis?", "Plants take in carbon dioxide."),
    ("What is the boiling point of water in Celsius?", "100"),
    ("Spell the word 'necessary' backwards.", "yrassecen"),
    ("A shop sells pens at $2 each. How much are 6 pens?", "12 dollars"),
    ("What is the area of a circle with radius 3?", "9 pi"),
    ("Name a synonym of happy.", "Glad"),
    ("In which year did the Berlin Wall fall?", "It fell in 1989."),
    ("Is a tomato a fruit or a vegetable?", "Botanically it is a fruit."),
    ("What colour do you get from blue and yellow?", "Green"),
    ("Convert 5 kilometres to metres.", "5000 m"),
    ("Who wrote Pride and Prejudice?", "Jane Austen wrote it."),
    ("Give the chemical symbol of gold.", "Au"),
    ("Round 3.14159 to two decimals.", "3.14"),
]


@dataclass
class Seeded:
    """Rows with faults, and the positions of each kind: shifted, near_duplicate (copy -> original), foreign."""

    rows: list
    shifted: set = field(default_factory=set)
    near_duplicate: dict = field(default_factory=dict)
    foreign: set = field(default_factory=set)


def gsm8k_rows(path, count, seed=0):
    """Gold rationales as responses, one a question."""
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    picked = random.Random(seed).sample(range(len(lines)), count)
    return [_row(i, lines[i]["question"], lines[i]["answer"].split("\n####")[0]) for i in picked]


def vicuna_rows(path, per_question=4, seed=0):
    """Open-ended questions, each with up to four models' responses, in random order."""
    data = json.loads(path.read_text())
    rows, seen = [], {}
    pattern = re.compile(r"instruction to evaluate:\n(.*?)\n\n###Response to evaluate:\n(.*?)\n\n###Reference", re.S)
    random.Random(seed).shuffle(data)
    for entry in data:
        question, response = pattern.search(entry["instruction"]).groups()
        sample = seen[question] = seen.get(question, -1) + 1
        if sample < per_question:
            rows.append(_row(entry["idx"], question, response, sample))
    return rows


def probing_rows(path):
    """The published probing set's pairs, one row each, read by its two headings."""
    pairs = {}
    for aspect, entries in json.loads(path.read_text()).items():
        for entry in entries:
            text = entry["eval_prompt"].split("\nQuestion:\n")[-1]
            question, _, rest = text.partition("\n\nGenerated response:\n")
            response = rest.rpartition("\n\nNow evaluate")[0]
            row = pairs.setdefault((entry["id"], question), _row(entry["id"], question, response, 0, {}))
            row["scores"][aspect] = entry["score"]
    return list(pairs.values())


def seed_faults(rows, seed, edit="mixed", target="question", shift="swap", foreign=None, shares=(0.05, 0.05, 0.02)):
    """Put shifted responses, near-duplicates and foreign rows into rows.

    Args:
        rows: Clean rows; not changed.
        seed: Of every draw.
        edit: How a copy differs from its original, one of EDITS.
        target: What is edited in a copy, one of TARGETS.
        shift: How responses get to wrong rows, one of SHIFTS.
        foreign: (question, response) pairs of elsewhere; hand-made trivia where None.
        shares: Of the clean rows: shifted, near-duplicates, foreign.
    """
    rng = random.Random(seed)
    rows = [dict(row) for row in rows]
    amounts = [max(2, round(share * len(rows))) for share in shares]
    shifted = _shift(rows, amounts[0], shift, rng)
    untouched = [i for i in range(len(rows)) if i not in shifted]
    extra = []
    for number, i in enumerate(rng.sample(untouched, amounts[1])):
        copy = {**rows[i], "id": f"copy-{number}"}
        if target in ("question", "both"):
            copy["question"] = edited(copy["question"], edit, rng)
        if target in ("response", "both"):
            copy["prediction"] = edited(copy["prediction"], edit, rng)
        extra.append(("near_duplicate", copy, i))
    pool = rng.sample(foreign or TRIVIA, amounts[2])
    for number in range(amounts[2]):
        question, response = pool[number]
        extra.append(("foreign", _row(f"x-{number}", question, response), None))
    rng.shuffle(extra)
    result = Seeded(rows + [row for _, row, _ in extra], shifted)
    for position, (kind, _, original) in enumerate(extra, start=len(rows)):
        if kind == "foreign":
            result.foreign.add(position)
        else:
            result.near_duplicate[position] = original
    return result


def _shift(rows, amount, kind, rng):
    """Move responses between rows of different questions, in place, and return the rows that got a wrong one."""
    if kind == "block":
        size = min(10, amount)
        starts = rng.sample(range(0, len(rows) - size - 1, size + 1), max(1, amount // size))
        moves = {i: i + 1 for start in starts for i in range(start, start + size)}
    else:
        picked = rng.sample(range(len(rows)), amount - amount % 2)
        step = 2 if kind == "swap" else len(picked)
        moves = {}
        for start in range(0, len(picked), step):
            group = picked[start : start + step]
            moves.update(zip(group, group[1:] + group[:1], strict=True))
    responses = [row["prediction"] for row in rows]
    wrong = {i for i, j in moves.items() if rows[i]["question"] != rows[j]["question"]}
    for i, j in moves.items():
        rows[i]["prediction"] = responses[j]
    return wrong


def edited(text, kind, rng):
    """Return a text changed a little, so that a reader would still call it the same."""
    if kind != "mixed":
        return EDITORS[kind](text, rng)
    for one in rng.sample(EDITS[:-1], 2):
        text = EDITORS[one](text, rng)
    return text


def _layout(text, rng):
    text = text.upper() if rng.random() < 0.5 else text.lower()
    text = re.sub(r"[,;.](?!\d)", rng.choice(["", " ", "!"]), text)
    return "  " + text.replace(" ", rng.choice(["  ", " \n", "\t"]), 3)


def _strip(text, rng):
    return text.translate(str.maketrans("", "", string.punctuation))


def _drop(text, rng):
    words = text.split(" ")
    plain = [i for i, word in enumerate(words) if not re.search(r"\d", word)]
    gone = set(rng.sample(plain, min(_few(words), len(plain) - 1)))
    return " ".join(word for i, word in enumerate(words) if i not in gone)


def _insert(text, rng):
    words = text.split(" ")
    for _ in range(_few(words)):
        words.insert(rng.randrange(len(words) + 1), rng.choice(FILLERS))
    return " ".join(words)


def _replace(text, rng):
    words = text.split(" ")
    spots = [i for i, word in enumerate(words) if word.lower() in OTHER_WORDS] or [0]
    for i in rng.sample(spots, min(len(spots), _few(words) + 1)):
        words[i] = OTHER_WORDS.get(words[i].lower(), "So, " + words[i])
    return " ".join(words)


def _append(text, rng):
    return text + rng.choice(TAILS)


def _order(text, rng):
    sentences = re.split(r"(?<=[.?!])\s+", text)
    rng.shuffle(sentences)
    return " ".join(sentences)


def _name(text, rng):
    names = sorted(set(re.findall(r"(?<=[a-z,] )[A-Z][a-z]+|^[A-Z][a-z]+(?= [a-z]+s )", text)))
    return text.replace(rng.choice(names), rng.choice(NAMES)) if names else "Hello. " + text


def _few(words):
    return max(1, len(words) // 12)


def _typos(text, rng):
    letters = list(text)
    for _ in range(max(1, len(text) // 40)):
        i = rng.randrange(len(letters) - 1)
        kind = rng.choice(["swap", "drop", "double", "other"])
        if kind == "swap":
            letters[i], letters[i + 1] = letters[i + 1], letters[i]
        elif kind == "drop":
            letters[i] = ""
        elif kind == "double":
            letters[i] *= 2
        else:
            letters[i] = rng.choice("abcdefghijklmnopqrstuvwxyz")
    return "".join(letters)


EDITORS = {
    "layout": _layout,
    "typos": _typos,
    "drop": _drop,
    "insert": _insert,
    "replace": _replace,
    "append": _append,
    "order": _order,
    "name": _name,
    "strip": _strip,
}
EDITS = (*EDITORS, "mixed")


def _row(identity, question, prediction, sample=0, scores=None):
    scores = {"quality": 3} if scores is None else scores
    return {"id": identity, "question": question, "prediction": prediction, "sample": sample, "scores": scores}


def precision_recall(found, true):
    """Return (precision, recall) of found positions; 1 where there is nothing to be wrong about."""
    found, true = set(found), set(true)
    hits = len(found & true)
    return hits / len(found) if found else 1.0, hits / len(true) if true else 1.0
