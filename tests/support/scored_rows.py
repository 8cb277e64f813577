"""Made up rows as `inspector score` writes them: with groups, labels, flags, explanations and what strangers write."""

import json

import numpy as np

HOSTILE = [
    "</script><script>window.stolen = 1</script>",
    "<!--<script>",
    '<img src=x onerror="window.stolen = 1">',
    "\u202egnirts\x1b[31m \x00 \ud83d",
    "{{ 7 * 7 }} {% raw %} ${window.stolen = 1} $x_1$ & &lt;",
    "\u2028\u2029`'\"\\",
]
ASPECTS = {"clarity": (1, 2, 3, 4, 5), "correctness": (0, 1)}


def scored_rows(n, hostile=True, explained=True, seed=0):
    """Make scored rows of a judge that ranks by correctness; labels agree with it more often than not."""
    generator = np.random.default_rng(seed)
    rows = []
    for i in range(n):
        p = float(generator.beta(2, 2))
        clarity = generator.dirichlet(np.ones(5))
        words = [f"Step {k}: {generator.integers(100)} + {k} apples." for k in range(8)]
        text = HOSTILE[i % len(HOSTILE)] if hostile and i < 3 * len(HOSTILE) else " ".join(words)
        shares = {"clarity": dict(zip("12345", clarity.tolist(), strict=True)), "correctness": {"0": 1 - p, "1": p}}
        expected = float(clarity @ np.arange(1, 6))
        row = {
            "question": f"How many apples are there in basket {i // 2}?",
            "prediction": text,
            "generator": f"model-{i % 3}" if not hostile or i % 7 else HOSTILE[0],
            "correct": int(generator.random() < p),
            "clarity": 1 + int(clarity.argmax()),
            "correctness": int(p > 0.5),
            "total_score": 1 + int(clarity.argmax()),
            "expected_clarity": expected,
            "expected_correctness": p,
            "expected_total": expected,
            "probabilities": shares,
            "truncated": i % 10 == 0,
            "unfamiliar": i % 4 == 0,
            "unfamiliar_reason": f"the response has {i} characters; at least 70" if i % 4 == 0 else None,
            "seen": i % 5 == 0,
            "rank_by": "expected_correctness",
        }
        if explained:
            row["explanation"] = {
                "clarity": {"why_not": "its probe reads minima"},
                "correctness": shares_of(text, generator),
            }
        rows.append(row)
    return rows


def shares_of(text, generator):
    cuts = [0, *range(4, len(text), 4), len(text)]
    pieces = [[text[a:b], float(generator.normal(0, 0.02))] for a, b in zip(cuts, cuts[1:], strict=False) if a < b]
    value = 0.25 + sum(share for _, share in pieces)
    none = {"question": [], "template": [], "last": 0.0}
    return {"value": value, "constant": 0.25, "response": pieces, "layers": {"3": value - 0.25}, **none}


def write_rows(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path
