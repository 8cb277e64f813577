"""The table of a comparison says of each method what was measured of it, in its own cell."""

import pytest
from inspector_training.evaluation.tables import table


def entry(auroc, flops, **more):
    ours = {"value": auroc, "low": auroc - 0.1, "high": auroc + 0.1}
    found = {
        "description": "it",
        "mean": {"auroc": ours, "spearman": {"value": 0.25}, "macro_f1": {"value": 0.5}},
        "gain_of_judge": {},
        "seconds_per_pair": 0.125,
        "flops_per_pair": flops,
        "rows": 3,
        "rows_of": 4,
        "budget": "none",
    }
    return found | more


def test_each_method_has_its_row_the_best_first():
    gain = {"auroc": {"value": 0.125, "low": -0.25, "high": 0.5, "p": 0.03125}}
    words = entry(0.6, 0, gain_of_judge=gain, notes={"failures": {"a": {"of": 8, "failed": 3}}})
    page = table({"judge": "probe", "methods": {"words": words, "probe": entry(0.75, 2.5e9)}})
    rows = [line for line in page.splitlines() if line.startswith("| ")][1:]
    assert rows == [
        "| **probe** | 0.750 (0.650 to 0.850) | 0.250 | 0.500 | the judge |  | 0.125 | 2.5 |  | 3 of 4 | none |",
        "| words | 0.600 (0.500 to 0.700) | 0.250 | 0.500 | +0.125 (-0.250 to +0.500) | 0.031 | no model | 0 |  "
        "| 3 of 4 | none |",
    ]
    assert "- `words`: it. 3 of 8 replies held no score; its figures are of the others." in page
    assert "- `probe`: it.\n" in page


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [
        (0.0625, 0.25, "beats lager"),
        (-0.25, -0.0625, "loses to lager,"),
        (-0.25, 0.25, "does not differ reliably from lager:"),
        (0.0, 0.25, "does not differ reliably from lager:"),
    ],
)
def test_what_is_said_of_score_tokens_is_by_the_interval(low, high, verdict):
    gain = {"auroc": {"value": 0.125, "low": low, "high": high, "p": 0.5}}
    by_aspect = {name: {"auroc": {"low": a, "high": b}} for name, (a, b) in {"u": (0.5, 1), "v": (-1, -0.5)}.items()}
    lager = entry(0.5, 1e9, gain_of_judge=gain, gain_by_aspect={**by_aspect, "w": {"auroc": {"low": 0, "high": 0}}})
    page = table({"judge": "probe", "methods": {"lager": lager, "probe": entry(0.5, 1e9)}})
    assert page.splitlines()[-1] == (
        f"- probe {verdict} by +0.125 mean AUROC (95 % {low:+.3f} to {high:+.3f}); by aspect, probe is "
        "reliably better on u and worse on v."
    )
