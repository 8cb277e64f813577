"""Preferences, edits, curves, tables and matched answers: small cases worked out by hand."""

import inspect
import random
import warnings
from types import SimpleNamespace
from unittest.mock import MagicMock, call

import numpy as np
import pytest
from inspector_training.evaluation import (
    between,
    degenerate,
    matched,
    metrics,
    procedure,
    question_only,
    scored,
    selection,
    tables,
    verdict,
)
from inspector_training.evaluation import hill_climbing as climbing
from inspector_training.evaluation import preferences as preferring
from inspector_training.evaluation.adapters import AdapterConfig, old_names_allowed
from inspector_training.evaluation.between import between_generators, generator_effects, rank_correlation
from inspector_training.evaluation.crossval import CrossValidation
from inspector_training.evaluation.curves import curve_of, curves_table
from inspector_training.evaluation.highlights import Marked, chance_figures, evidence, marked, solution_figures
from inspector_training.evaluation.hill_climbing import EDITS, FLATTERY, LONGEST, hill_climbing
from inspector_training.evaluation.matched import Decisions, generator_groups, generators_of, matched_evidence
from inspector_training.evaluation.methods.text import surface_features
from inspector_training.evaluation.metrics import Predictions, auroc, f1, spearman
from inspector_training.evaluation.preferences import _by_generator, baselines, compared_odds, rater_agreement
from inspector_training.evaluation.surest import rows_of
from inspector_training.evaluation.tables import plot, plot_curves, table
from inspector_training.probing.preferences import Comparisons, fit_slope, log_loss, odds_weights
from inspector_training.probing.table import Labels
from inspector_training.rows.records import LabelledPair
from scipy.special import expit
from scipy.stats import spearmanr
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.metrics import f1_score, roc_auc_score
from sklearn.preprocessing import StandardScaler
from support.made_up import make_pairs

from inspector_pipeline.encoded import Span
from inspector_pipeline.errors import DataFileError


def compared(votes, first=None, second=None, question=None, weight=None):
    votes = np.array(votes)
    n = len(votes)
    won = (votes[:, 0] + votes[:, 1] / 2) / votes.sum(axis=1)
    names = np.array(question or [f"q{i}" for i in range(n)])
    first, second = np.array(first or range(0, 2 * n, 2)), np.array(second or range(1, 2 * n, 2))
    weight = np.array(weight or [1.0] * n)
    return Comparisons("wit", first, second, won, weight, votes, names, np.arange(2 * n))


VOTES = [[3, 0, 0], [0, 1, 2], [1, 1, 1], [2, 0, 1]]


def test_log_odds_are_measured_against_majorities_and_shares():
    own = compared(VOTES)
    assert own.majority.tolist() == [1.0, 0.0, 0.5, 1.0]
    odds = np.array([[2.0, -1.0, 5.0, 0.0], [2.0, 1.0, 5.0, -1.0]])
    baseline = np.array([[-2.0, 1.0, 0.0, 0.0]])
    samples = np.array([[1.0, 1, 1, 1], [0, 2, 0, 2], [3, 0, 1, 0]])
    found = compared_odds({"judge": odds, "length": baseline}, own, samples)
    assert (found["n_questions"], found["ties"]) == (4, 1)
    # by repeat: right, right, (tie), one half; right, wrong, (tie), wrong
    agreement = found["agreement"]
    assert agreement["value"] == round((1 + 0.5 + 0.25) / 3, 4)
    assert (agreement["low"], agreement["high"]) == (round(0.375 + 0.625 * 0.025, 4), round(1 - 0.625 * 0.025, 4))
    assert found["length"]["agreement"]["value"] == round((0 + 0 + 0.5) / 3, 4)
    assert found["gain_over_length"]["agreement"]["value"] == round((1.75 - 0.5) / 3, 4)
    p = expit(odds)
    loss = -(own.won * np.log(p) + (1 - own.won) * np.log(1 - p)).mean()
    brier = ((p - own.won) ** 2).mean()
    assert (found["log_loss"]["value"], found["brier"]["value"]) == (round(loss, 4), round(brier, 4))
    other = expit(baseline)
    assert found["gain_over_length"]["brier"]["value"] == round(((other - own.won) ** 2).mean() - brier, 4)
    sure = compared_odds({"judge": np.full((1, 4), 1e4)}, own, samples)
    assert sure["log_loss"]["value"] == pytest.approx(-np.log(1e-12) * (1 - own.won).mean(), rel=1e-3)
    assert log_loss(odds[0], own.won, np.array([1.0, 0, 0, 0])) == pytest.approx(-np.log(p[0, 0]))


def test_a_raters_agreement_is_with_the_majority_of_the_others():
    assert rater_agreement(np.array([[3, 0, 0]])) == {"n": 3, "agreement": 1.0}
    # of 2 against 1: each of the two sees a tie beside itself, the one sees two against it
    assert rater_agreement(np.array([[2, 0, 1]])) == {"n": 1, "agreement": 0.0}
    assert rater_agreement(np.array([[3, 5, 1]])) == {"n": 4, "agreement": 0.75}
    assert type(rater_agreement(np.array([[3, 5, 1]]))["n"]) is int, "as JSON has it"
    assert rater_agreement(np.array([[1, 4, 0], [0, 1, 0]])) == {"n": 0, "agreement": None}


def test_a_generators_agreement_counts_comparisons_on_either_side():
    own = compared(VOTES, first=[0, 1, 2, 3], second=[4, 4, 4, 0])
    names = ["a", "b", None, "b", "c", None, None, None]
    assert _by_generator(np.array([1.0, 1.0, 1.0, 0.0]), own, names) == {
        "a": {"n": 2, "agreement": 0.75},
        "b": {"n": 2, "agreement": 0.25},
        "c": {"n": 2, "agreement": 0.5},
    }
    assert _by_generator(np.ones(4), compared([[1, 1, 1]] * 4), ["a"] * 8) == {}


def test_cheap_ways_are_fitted_on_some_comparisons_and_say_all():
    texts = ["a b c d e f", "a", "b c d e f g h", "b", "long and good one", "bad", "z z z z z", "bad"]
    pairs = [LabelledPair(i, "Which?", text, {}) for i, text in enumerate(texts)]
    own = compared([[1, 0, 0]] * 3 + [[0, 0, 1]])
    found = baselines(pairs, own)
    assert list(found) == ["length", "surface", "tfidf"]
    for fit in found.values():
        odds = fit(np.array([0, 1, 2]))
        assert odds.shape == (4,) and (odds[:3] > 0).all()
    assert found["length"](np.arange(3))[3] > 0, "the longer one, though it lost"
    words = found["tfidf"](np.array([0, 1, 3]))  # words of other rows are not known
    assert words[0] > 0 and words[3] < 0 and found["tfidf"](np.array([0]))[1] == 0


def test_cheap_ways_are_those_of_scikit_learn():
    texts = ["a b b b = c", "a", "b c d d e f g h!", "b c", "long and good one", "bad one", "z z z z z", "a b"]
    pairs = [LabelledPair(i, "Which?", text, {}) for i, text in enumerate(texts)]
    own = compared([[1, 0, 0], [1, 0, 1], [0, 0, 1], [2, 0, 1]], weight=[1.0, 2.0, 1.0, 0.5])
    train, found = np.array([0, 1, 2]), baselines(pairs, own)
    words = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, token_pattern=r"\w+|[^\w\s]").fit(texts[:6])
    of_characters = np.log1p([(len(text), len(text.split())) for text in texts])
    lengths = StandardScaler().fit_transform(np.hstack([of_characters, of_characters**2]))
    shown = StandardScaler().fit_transform([[*surface_features("Which?", text).values()] for text in texts])
    for name, x in (("tfidf", words.transform(texts).toarray()), ("length", lengths), ("surface", shown)):
        differences = x[0::2] - x[1::2]
        odds = differences @ odds_weights(differences[train], own.won[train], own.weight[train], 1.0)
        assert found[name](train) == pytest.approx(odds, abs=1e-6), name


def test_preferences_are_measured_by_folds_of_every_repeat(monkeypatch):
    pairs = [LabelledPair(i, f"Q{i}", "x", {}, generator="ab"[i % 2]) for i in range(8)]
    own, asked = compared(VOTES), []

    def folds(labels, number, seed):
        asked.append((number, seed))
        for out in ([0, 1], [2, 3]):
            yield np.setdiff1d(np.arange(4), out), np.array(out)

    def odds(design, search, train):
        return np.where(np.arange(4) == train[0], 9.0, search * len(asked))

    monkeypatch.setattr(preferring, "question_folds", folds)
    monkeypatch.setattr(preferring.Comparisons, "of", lambda pairs: {"wit": own})
    monkeypatch.setattr(preferring, "PreferenceDesign", lambda features, comparisons: (features, comparisons))
    monkeypatch.setattr(preferring, "_judge_odds", odds)
    monkeypatch.setattr(preferring, "baselines", lambda pairs, comparisons: {})
    features = SimpleNamespace(pairs=pairs)
    how = {"folds": 2, "repeats": 2, "bootstraps": 5, "seed": 7}
    found = preferring.preference_evidence(features, -1.0, {"rival": 1.0}, **how)["wit"]
    assert asked == [(2, 7), (2, 8)]
    assert {key: found[key] for key in ("classes", "n", "counts_in_total", "won")} == {
        "classes": [0, 1], "n": 4, "counts_in_total": False, "won": {"0": 1, "1": 2}
    }  # fmt: skip
    part = found["preference"]
    assert set(part["by_generator"]) == {"a", "b"} and part["by_generator"]["a"] == {"n": 3, "agreement": 0.3333}
    assert part["agreement"]["value"] == 0.3333 and part["rival"]["agreement"]["value"] == 0.6667
    assert "gain_over_rival" in part and part["n_questions"] == 4


def test_odds_of_shares_are_those_of_weighted_wins_and_slopes_are_found():
    rng = np.random.default_rng(0)
    x, won = rng.normal(size=(30, 2)), np.round(rng.random(30), 1)
    weight = rng.random(30) + 0.5
    found = odds_weights(x, won, weight, 0.5)
    step = 1e-4

    def loss(w):
        return log_loss(x @ w, won, weight) * weight.sum() + 0.5 * (w @ w) / 2

    for at in np.eye(2):
        assert loss(found + step * at) == pytest.approx(loss(found - step * at), abs=1e-5)
    assert odds_weights(x[:1], np.ones(1), np.ones(1), 0.5).tolist() == [0, 0]
    odds = rng.normal(size=4000) * 2
    drawn = (rng.random(4000) < expit(1.5 * odds)).astype(float)
    assert fit_slope(odds, drawn, np.ones(4000)) == pytest.approx(1.5, abs=0.15)
    assert fit_slope(odds, (odds > 0) * 1.0, np.ones(4000)) == pytest.approx(20, abs=0.01)
    assert fit_slope(odds, (odds < 0) * 1.0, np.ones(4000)) == pytest.approx(1e-3, abs=1e-3)


class Chosen(random.Random):
    """Chooses what it is told."""

    def __init__(self, *places):
        super().__init__(0)
        self.places, self.stops = list(places), []

    def randrange(self, stop):
        self.stops.append(stop)
        return self.places.pop(0)

    def choice(self, options):
        return list(options)[self.places.pop(0)]

    def sample(self, options, n):
        return [list(options)[self.places.pop(0)] for _ in range(n)]

    def randint(self, low, high):
        assert (low, high) == (1, 200)
        return 77


TEXT = "We add 3 and  14.\nThat is 17! Done"


@pytest.mark.parametrize(
    ("kind", "places", "expected"),
    [
        ("swap_numbers", (2, 0), "We add 17 and  14.\nThat is 3! Done"),
        ("new_number", (1, 1), "We add 3 and  77.\nThat is 17! Done"),
        ("new_number", (0, 0), "We add 9 and  14.\nThat is 17! Done"),
        ("drop_word", (1,), "We 3 and 14.  That\nis 17! Done"),
        ("repeat_word", (0,), "We We add 3  and\n14. That is 17! Done"),
        ("swap_words", (0, 8), "Done add 3 and  14.\nThat is 17! We"),
        ("drop_sentence", (1,), "We add 3 and  14. Done"),
        ("repeat_sentence", (3, 0), "We add 3 and  14. That is 17! Done We add 3 and  14."),
        ("quote_question", (0, 1), "Why? We add 3 and  14. That is 17! Done"),
        ("flatter", (1, 2), f"We add 3 and  14. {FLATTERY[2]} That is 17! Done"),
        ("conclude", (1,), f"{TEXT} {FLATTERY[1]}"),
    ],
)
def test_edits_change_one_thing(kind, places, expected):
    chosen = Chosen(*places)
    assert EDITS[kind](TEXT, "Take 9. Why?", chosen) == expected
    stops = {"drop_word": [9], "repeat_word": [9], "drop_sentence": [3], "repeat_sentence": [4]}
    assert chosen.stops == {**stops, "quote_question": [4], "flatter": [4]}.get(kind, []), "any place may be chosen"


def test_edits_leave_alone_what_is_too_short(monkeypatch):
    for kind in ("swap_numbers", "new_number", "drop_word", "repeat_word", "swap_words", "drop_sentence"):
        assert EDITS[kind]("Only one", "Q", Chosen()) == "Only one"
    assert EDITS["drop_word"]("a b c", "", Chosen(0)) == "b c"
    assert EDITS["new_number"]("7", "none", Chosen(0, 0)) == "77" and EDITS["swap_numbers"]("7", "", Chosen()) == "7"
    assert EDITS["opener"]("x", "", Chosen(0)).endswith("\nx")
    monkeypatch.setattr(climbing, "MASTER_KEYS", (" So: ", "\nThus\n"))
    assert [EDITS["opener"]("x", "", Chosen(i)) for i in (0, 1)] == ["So:\nx", "Thus\nx"]


def test_an_edit_is_kept_where_the_score_rises_and_within_its_limits(monkeypatch):
    wrong = [{"id": i, "question": "Q?", "prediction": f"It is {i + 1}.", "answer": "9"} for i in range(4)]
    right = [{"question": "Q?", "prediction": "x" * n} for n in (20, 30, 90)]
    made = iter(range(10**6))
    edits = {
        "longer": lambda text, question, rng: text + "y" * 10,
        "right": lambda text, question, rng: text + " The answer is 9.",
        "same": lambda text, question, rng: f" {text} ",
        "gone": lambda text, question, rng: " ",
    }
    for kind, kept in (("longer", True), ("right", False), ("same", False), ("gone", False)):
        monkeypatch.setattr(climbing, "EDITS", {kind: edits[kind]})
        asked = []

        def score(rows, asked=asked):
            asked.append(len(rows))
            return np.array([len(row["prediction"]) for row in rows], dtype=float), [next(made) % 2 == 0 for _ in rows]

        found = hill_climbing(wrong, right, score, n_edits=20, bootstraps=10)
        assert (found["n"], found["n_edits"], found["bar"], found["started"]["value"]) == (4, 20, 30.0, 0.0)
        limit = int((LONGEST * 8 + 100 - 8) // 10)
        assert found["kept"] == found["by_edit"][kind] / 4 == (limit if kept else 0)
        assert asked == [3, 4, *([4] * limit if kept else [])]
        assert found["reached"]["value"] == (1.0 if kept else 0.0)
        assert found["reached_familiar"]["value"] == (0.5 if kept else 0.0)
    monkeypatch.setattr(climbing, "EDITS", {"longer": edits["longer"]})
    level = hill_climbing(wrong, right, lambda rows: (np.full(len(rows), 30.0), [None] * len(rows)), n_edits=3)
    assert level["started"]["value"] == level["reached"]["value"] == 1.0 and level["kept"] == 0
    assert level["reached_familiar"] is None


def test_a_curve_is_the_mean_over_draws_with_paired_gains():
    pairs = [LabelledPair(i, f"Q{i}", "x", {"a": 5 if i % 2 else 1}) for i in range(8)]
    labels = Labels.of(pairs, ())
    test = np.array([1, 2, 3, 4])
    good = labels.positive[test]
    right = good * 1.0
    values = {"judge": {10: np.array([right, -right]), 20: np.array([right])}, "words": {20: np.array([-right])}}
    few, many = curve_of(SimpleNamespace(labels=labels, test=test), values, 20, 0)
    assert (few["n"], few["auroc"]["judge"]["value"], few["gain_over"]) == (10, 0.5, {})
    assert many["auroc"]["judge"]["value"] == 1.0 and many["gain_over"]["words"]["value"] == 1.0
    assert list(many["gain_over"]) == ["words"]
    (alone,) = curve_of(SimpleNamespace(labels=labels, test=test), {"words": {20: np.array([right])}}, 20, 0)
    assert alone["gain_over"] == {} and alone["auroc"]["words"]["value"] == 1.0
    wide = {"value": 0.5, "low": 0.25, "high": 0.75}
    gains = {"b": {"value": 0.1, "low": 0.0, "high": 0.2}, "c": {"value": 0.1, "low": 0.01, "high": 0.2}}
    gains["d"] = {"value": -0.1, "low": -0.2, "high": 0.0}
    point = {"n": 5, "auroc": {"a": wide, "b": wide, "c": wide, "d": wide}, "gain_over": gains}
    page = curves_table(
        {
            "t": {
                "n_test": 4,
                "n_test_questions": 3,
                "points": [point, {"n": 9, "auroc": {"a": wide}, "gain_over": {}}],
            },
            "u": {"n_test": 1, "n_test_questions": 1, "points": []},
        }
    )
    cell = "0.500 (0.250 to 0.750)"
    assert page.splitlines() == [
        "### t", "", "4 test rows of 3 questions.", "",
        "| labels | a | b | c | d |", "|---|---|---|---|---|",
        f"| 5 | {cell} | {cell} = | {cell} | {cell} = |",
        f"| 9 | {cell} | - | - | - |", "",
        "### u", "", "1 test rows of 1 questions.", "", "| labels |  |", "|---|",
    ]  # fmt: skip


def entry(auroc, gain=None, **more):
    mean = {"auroc": {"value": auroc, "low": auroc - 0.1, "high": auroc + 0.1}} if auroc else {}
    found = {
        "description": "it",
        "mean": mean,
        "gain_of_judge": {"auroc": gain} if gain else {},
        "rows": 3,
        "rows_of": 4,
    }
    return {**found, "seconds_per_pair": 0.5, "flops_per_pair": 2e9, "budget": "b", "gain_by_aspect": {}, **more}


def gain(value, low, high, p=None):
    return {"value": value, "low": low, "high": high, "p": p}


def test_score_tokens_are_told_to_win_lose_or_neither():
    by = {
        "one": {"auroc": gain(0.2, 0.1, 0.3)},
        "two": {"auroc": gain(-0.2, -0.3, -0.1)},
        "three": {"auroc": gain(0.0, 0.0, 0.0)},
        "four": {},
        "five": {"auroc": gain(None, None, None)},
    }
    methods = {
        "judge": entry(0.7),
        "lager_a": entry(0.6, gain(0.1, 0.05, 0.2, 0.01), gain_by_aspect=by),
        "lager_b": entry(0.8, gain(-0.1, -0.2, -0.01), flops_per_pair=0, notes={"failures": {}}),
        "lager_c": entry(0.7, gain(0.0, 0.0, 0.0)),
        "lager_d": entry(None),
        "words": entry(0.5, gain(0.1, 0.05, 0.2)),
    }
    page = table({"judge": "judge", "methods": methods})
    lines = page.splitlines()
    told = [line for line in lines if line.startswith("- judge")]
    assert told == [
        "- judge loses to lager_b, by -0.100 mean AUROC (95 % -0.200 to -0.010); by aspect, judge is reliably better "
        "on none.",
        "- judge does not differ reliably from lager_c: by +0.000 mean AUROC (95 % +0.000 to +0.000); by aspect, "
        "judge is reliably better on none.",
        "- judge beats lager_a by +0.100 mean AUROC (95 % +0.050 to +0.200); by aspect, judge is reliably better on "
        "one and worse on two.",
    ]
    rows = [line for line in lines if line.startswith("| ")][1:]
    names = [row.split(" | ")[0].strip("|* ") for row in rows]
    assert names == ["lager_b", "judge", "lager_c", "lager_a", "words", "lager_d"]
    assert rows[-1] == "| lager_d | undefined | undefined | undefined | undefined |  | 0.500 | 2.0 |  | 3 of 4 | b |"
    assert "| no model | 0 |" in rows[0] and "0.010" in rows[3] and "replies held no score" not in page
    assert lines[0].startswith("| method | AUROC") and "" in lines


def test_pictures_show_each_method_at_its_cost(monkeypatch):
    made = MagicMock()
    seconds, flops = made.return_value.subplots.return_value = MagicMock(), MagicMock()
    monkeypatch.setattr(tables, "Figure", made)
    methods = {"judge": entry(0.75), "words": entry(0.5, flops_per_pair=0, seconds_per_pair=0.1), "none": entry(None)}
    methods["slow"] = entry(0.5, seconds_per_pair=None)
    methods["judge"]["mean"]["auroc"]["low"] = 0.5
    plot({"methods": methods}, "a.png")
    near = pytest.approx([0.1])
    wide = {"yerr": [[0.25], near], "capsize": 2}
    at = {"xytext": (5, 3), "textcoords": "offset points", "fontsize": 7}
    for axis, x, what in ((seconds, (0.5, 0.1, 0.1), "seconds"), (flops, (2e9, 4e8, 2e9), "operations")):
        marks = "o<<" if axis is seconds else "o<o"
        assert axis.errorbar.call_args_list == [
            call([x[0]], [0.75], fmt=marks[0], **wide),
            call([x[1]], [0.5], fmt=marks[1], yerr=[near, near], capsize=2),
            call([x[2]], [0.5], fmt=marks[2], yerr=[near, near], capsize=2),
        ]
        names = (("judge", x[0], 0.75), ("words", x[1], 0.5), ("slow", x[2], 0.5))
        assert axis.annotate.call_args_list == [call(name, (x, y), **at) for name, x, y in names]
        axis.set.assert_called_once_with(xscale="log", xlabel=f"{what} for a pair")
        axis.grid.assert_called_once_with(visible=True, alpha=0.3)
    assert made.mock_calls[:2] == [call(figsize=(11, 4.5), layout="constrained"), call().subplots(1, 2, sharey=True)]
    seconds.set_ylabel.assert_called_once_with("mean AUROC of a good score, 95 %")
    assert not flops.set_ylabel.called
    made.return_value.savefig.assert_called_once_with("a.png", dpi=150)
    plot({"methods": {"words": methods["words"]}}, "a.png")
    assert seconds.errorbar.call_args.args[0] == [0.2], "where nothing has a cost"


def test_curves_are_drawn_with_their_intervals(monkeypatch):
    made = MagicMock()
    monkeypatch.setattr(tables, "Figure", made)
    axis = made.return_value.subplots.return_value
    line = MagicMock()
    axis.plot.return_value = (line,)
    points = [{"n": 0, "auroc": {"value": 0.5, "low": 0.4, "high": 0.6}}, {"n": 9, "auroc": None}]
    plot_curves({"judge": points}, "b.png")
    assert axis.mock_calls == [
        call.plot([0], [0.5], marker="o", label="judge"),
        call.fill_between([0], [0.4], [0.6], alpha=0.12, color=line.get_color.return_value),
        call.set_xscale("symlog", linthresh=10),
        call.set(xlabel="labels of training rows", ylabel="mean AUROC of a good score, 95 %"),
        call.grid(visible=True, alpha=0.3),
        call.legend(fontsize=8),
    ]
    made.assert_called_once_with(figsize=(6.5, 4.5), layout="constrained")
    made.return_value.savefig.assert_called_once_with("b.png", dpi=150)


def test_solutions_figures_by_hand():
    steps = np.array([0, 0, 1, 1, -1, 2])
    suspicion = np.array([1.0, 3, 5, 0, 9, 5])
    found = solution_figures(suspicion, steps, 1)
    assert found["first"] == 0 and found["step"] == 0 and found["tenth"] == 0
    assert found["auroc"] == roc_auc_score(steps == 1, suspicion)
    tied = solution_figures(np.array([2.0, 2, 1, 1, 0, 2]), steps, 0)
    assert tied["first"] == pytest.approx(2 / 3) and tied["step"] == 0.5
    many = np.arange(25.0)
    assert solution_figures(many, (many > 22).astype(int), 1)["tenth"] == pytest.approx(2 / 3)
    assert solution_figures(np.arange(20.0), (np.arange(20) > 18).astype(int), 1)["tenth"] == 0.5
    assert np.isnan(list(solution_figures(suspicion, steps, 7).values())).all()
    assert np.isnan(list(solution_figures(suspicion[:2], steps[:2], 0).values())).all()
    chance = chance_figures(steps, 1)
    assert chance == {
        "first": pytest.approx(2 / 6),
        "tenth": pytest.approx(2 / 6),
        "step": pytest.approx(1 / 3),
        "auroc": 0.5,
    }


def test_pieces_belong_to_the_step_of_their_first_sign_and_marks_are_checked():
    one = Marked("a", "Q", "ab\ncd", (Span(0, 2), Span(3, 5)), 0)
    assert one.steps_of([(" ", 0), ("b", 0), ("\n", 0), (" d", 0), ("e", 0)]).tolist() == [0, 0, 1, 1, -1]
    forms = [
        {"id": "x", "question": "?", "form": form, "prediction": text}
        for form, text in (("worked", "a\nb\nc"), ("step", "a\nB\nC"), ("talk", "?"))
    ]
    short = [
        {"id": "y", "question": "?", "form": form, "prediction": text}
        for form, text in (("worked", "a"), ("step", "b"))
    ]
    lone = [{"id": "z", "question": "?", "form": "step", "prediction": "a\nb"}]
    good = {"id": "g", "question": "?", "steps": ["a", 2], "first_mistake": 0}
    (found,) = marked([*forms, *short, *lone, good], "rows")
    assert (found.name, found.response, found.wrong, found.steps) == ("g", "a\n2", 0, (Span(0, 1), Span(2, 3)))
    for wrong in (-1, 2, "0", 0.0):
        with pytest.raises(DataFileError, match="row 0 expects first_mistake below 2"):
            marked([good | {"first_mistake": wrong}], "rows")
    steps = np.array([0, 1])
    part = evidence([(found, {"share": np.array([2.0, 1.0])}, steps), (found, {"share": np.ones(1)}, steps[:1])], 10, 0)
    assert (part["n"], part["left_out"]) == (1, 1) and part["figures"]["first"]["share"]["value"] == 1
    assert part["figures"]["first"]["share"]["gain"]["value"] == 0.5 and part["figures"]["first"]["chance"] == 0.5
    assert "gain_over_surprisal" not in part["figures"]["first"]["share"]
    with pytest.raises(DataFileError, match="pieces in and outside of the wrong step"):
        evidence([(found, {"share": np.ones(1)}, steps[:1])], 10, 0)


def answers_of(names="abcd", n=6):
    return [
        LabelledPair(f"q{i}", f"Question {i}?", f"{name} says {i}", {"correctness": (i + place) % 2}, sample=place,
                     generator=name)
        for i in range(n)
        for place, name in enumerate(names)
    ]  # fmt: skip


def test_matched_answers_by_hand():
    pairs = answers_of()
    pairs += [
        LabelledPair("x", "X?", "x", {"correctness": 1}, generator="a"),
        LabelledPair("y", "Y?", "y", {"correctness": 0}),
    ]
    labels = Labels.of(pairs, ())
    generators = generators_of(labels, pairs)
    assert generators[-1] == "" and generators[0] == "a"
    assert generators_of(labels.take(np.array([], dtype=int)), pairs).dtype.kind == "U"
    truth = labels.score
    n = len(truth)
    value = truth * 1.0
    value[[0, 1]] = [1.0, 0.0]  # one question's first right answer stands below a wrong one
    blank = Predictions.blank(1, n, truth)
    blank.put(0, np.arange(n), Predictions(value, value, value, truth))
    length = Predictions.blank(1, n, truth)
    length.put(0, np.arange(n), Predictions(-value, -value, value, truth))
    some = Predictions.blank(1, n, truth)
    some.put(0, np.arange(3), Predictions(value[:3], value[:3], value[:3], truth[:3]))
    found = matched_evidence({"judge": blank, "length": length, "some": some}, labels, generators, 30, 0)["correctness"]
    assert (found["n_rows"], found["n_questions"], found["n_generators"]) == (24, 6, 4)
    # of 6 questions with 4 pairs: 20 right, and of the first 0 + .5 + .5 + 1
    assert found["same_question"]["value"] == round(22 / 24, 4)
    assert found["auroc"]["value"] == round(roc_auc_score(truth[:24], value[:24]), 4)
    assert found["gain_over_length"]["same_question"]["value"] == round(20 / 24, 4) and "some" not in found
    assert found["surest"] == {"0.1": 0.5, "0.3": round(6 / 7, 4), "0.5": round(11 / 12, 4)}
    assert set(found["by_generator"]) == set("abcd") and found["by_generator"]["c"] == 1.0
    assert found["between_generators"]["generators_unseen"] is False and "unseen_generators" not in found
    unseen = Predictions.blank(1, n, truth)
    unseen.put(0, np.arange(4, 24), Predictions(-value[4:24], -value[4:24], value[4:24], truth[4:24]))
    new = matched_evidence({"judge": blank}, labels, generators, 30, 0, unseen)["correctness"]
    assert new["unseen_generators"]["n_rows"] == 20 and new["unseen_generators"]["auroc"]["value"] == 0
    assert new["unseen_generators"]["seen"]["auroc"]["value"] == 1
    assert new["unseen_generators"]["difference"]["same_question"]["value"] == -1
    assert new["unseen_generators"]["surest"]["0.1"] == 0 and new["between_generators"]["generators_unseen"]
    assert new["between_generators"]["n_rows"] == 20
    assert matched_evidence({"judge": blank}, labels, np.where(generators == "a", "a", ""), 30, 0) == {}


def test_groups_of_generators_are_even_and_there_are_two_or_more():
    names = np.array(["a", "b", "c", "d", "e", "", "a"])
    groups = generator_groups(names, 2, 0)
    assert sorted(map(len, groups)) == [2, 3] and sorted(sum(groups, [])) == list("abcde")
    assert generator_groups(names, 1, 0) == generator_groups(names, 6, 0) == []
    assert len(generator_groups(names, 5, 0)) == 5 and groups != generator_groups(names, 2, 3)


def test_the_surest_decisions_are_one_at_least():
    good = np.array([True, False, True, False])
    made = Decisions(good, np.array([0.0, 9.0, 2.0, 1.0]), np.array(list("aabb")), 5, 0)
    assert made.surest(0.01) == 0.0 and made.surest(0.5) == 0.0 and made.surest(1.0) == 0.5


def test_effects_of_generators_and_what_their_error_is_by_hand():
    rng = np.random.default_rng(0)
    k, n = 6, 40
    question, generator = (place.ravel().astype(str) for place in np.indices((n, k)))
    label = (rng.random((n, k)) < np.linspace(0.2, 0.9, k)).astype(float)
    bias = np.array([0.3, -0.1, 0.0, 0.1, -0.2, -0.1])
    score = 0.5 * label + bias
    found = between_generators(score.ravel(), label.ravel(), question, generator)
    assert (found["n_rows"], found["n_questions"], found["n_generators"], found["df"]) == (n * k, n, k, 4)
    means = label.mean(axis=0)
    assert [one["true"] for one in found["by_generator"].values()] == np.round(means, 4).tolist()
    assert [one["judged"] for one in found["by_generator"].values()] == np.round(score.mean(axis=0), 4).tolist()
    assert {one["rows"] for one in found["by_generator"].values()} == {n}
    slope = found["slope"]["value"]
    error = score.mean(axis=0) - slope * means
    assert [one["error"] for one in found["by_generator"].values()] == pytest.approx(error - error.mean(), abs=2e-4)
    effects = generator_effects(score.ravel(), label.ravel(), question, generator)
    variance = effects.covariance
    own = variance[:, 0, 0] - 2 * slope * variance[:, 0, 1] + slope**2 * variance[:, 1, 1]
    assert [one["se"] for one in found["by_generator"].values()] == pytest.approx(np.sqrt(own), abs=2e-4)
    spread = np.cov(effects.mean.T) - variance.mean(axis=0)
    assert slope == pytest.approx(spread[0, 1] / spread[1, 1], abs=1e-4) and found["slope"]["from"] == "generators"
    centred = error - error.mean()
    reach = 2.776 * np.sqrt((centred @ centred) / 4 / ((means - means.mean()) ** 2).sum())
    assert found["slope"]["high"] - slope == pytest.approx(reach, abs=1e-3)
    assert slope - found["slope"]["low"] == pytest.approx(reach, abs=1e-3)
    assert found["spearman"] == rank_correlation(score.mean(axis=0), means)
    assert found["sd"]["low"] < found["sd"]["value"] < found["sd"]["high"]
    lone = between_generators(np.append(score.ravel(), 9.0), np.append(label.ravel(), 1.0), np.append(question, "z"),
                              np.append(generator, "once"))  # fmt: skip
    assert lone["n_generators"] == k and lone["n_rows"] == n * k
    twice = between_generators(np.append(score.ravel(), [9.0, 8.0]), np.append(label.ravel(), [1.0, 0.0]),
                               np.append(question, ["z", "0"]), np.append(generator, ["more"] * 2))  # fmt: skip
    assert twice["n_generators"] == k + 1 and twice["by_generator"]["more"]["rows"] == 2


def test_the_slope_within_questions_is_least_squares():
    rng = np.random.default_rng(1)
    k, n = 5, 30
    label = (np.add.outer(np.arange(n), np.arange(k)) % k < 3).astype(float)  # as many right answers of each
    question, generator = (place.ravel().astype(str) for place in np.indices((n, k)))
    score = 0.4 * label + rng.normal(0, 0.2, (n, k))
    found = between_generators(score.ravel(), label.ravel(), question, generator)

    def centred(x):
        return x - x.mean(axis=0) - x.mean(axis=1, keepdims=True) + x.mean()

    s, y = centred(score), centred(label)
    slope = (s * y).sum() / (y * y).sum()
    residual = (y * (s - slope * y)).sum(axis=1)
    se = np.sqrt((residual**2).sum()) / (y * y).sum()
    bounds = {"value": slope, "low": slope - 1.96 * se, "high": slope + 1.96 * se}
    assert found["slope"] == {**{name: round(one, 4) for name, one in bounds.items()}, "from": "answers"}
    assert found["spearman"] is None and found["df"] == k - 1


def test_metrics_on_weights_are_those_of_copies_and_their_edges():
    rng = np.random.default_rng(2)
    truth, score = rng.integers(1, 4, 30), rng.integers(1, 4, 30)
    weights = rng.integers(0, 3, (4, 30)).astype(float)
    weights[0, (truth == 3) | (score == 3)] = 0  # a class that is drawn nowhere
    with np.errstate(invalid="ignore"):  # as a metric does
        each = zip(weights, f1(truth, score, weights), f1(truth, score, weights, by_support=True), strict=True)
    for weight, plain, by_support in each:
        rows = np.repeat(np.arange(30), weight.astype(int))
        assert plain == pytest.approx(f1_score(truth[rows], score[rows], average="macro"))
        assert by_support == pytest.approx(f1_score(truth[rows], score[rows], average="weighted"))
    values = rng.random(30)
    for weight, found in zip(weights, spearman(truth, values, weights), strict=True):
        rows = np.repeat(np.arange(30), weight.astype(int))
        assert found == pytest.approx(spearmanr(truth[rows], values[rows]).statistic)
    flat = np.ones(3)
    with np.errstate(invalid="ignore", divide="ignore"):
        assert spearman(np.array([1, 2, 3]), flat, np.ones((1, 3))).tolist() == [0.0]
        assert np.isnan(spearman(np.array([1, 1, 1]), flat, np.ones((1, 3)))).all()
        assert np.isnan(spearman(np.array([1, 1, 1]), np.arange(3.0), np.ones((1, 3)))).all()
        assert np.isnan(auroc(np.array([True, False]), np.array([np.nan, 1.0]), np.ones((1, 2)))).all()


def test_other_sets_are_predicted_once_by_folds_that_hold_their_questions_out():
    pairs = [*make_pairs(30), *(LabelledPair(f"new{i}", f"New {i}?", "x", {"logic": 2 + i % 4}) for i in range(7))]
    pairs.append(LabelledPair("q3", "What is 3?", "another", {"logic": 2}))
    labels = Labels.of(pairs)
    is_new = np.array([str(name).startswith("new") for name in labels.question])
    others = is_new | (labels.pair == len(pairs) - 1)
    folds = CrossValidation(labels, 3, 0, repeats=2, of_others=others).divided
    assert [(fold.repeat, fold.number) for fold in folds] == [(r, f) for r in range(2) for f in range(3)]
    asked = [row for fold in folds if fold.others is not None for row in fold.others.row.tolist()]
    assert sorted(asked) == np.flatnonzero(others).tolist() and all(fold.others is None for fold in folds[3:])
    counts = [int(is_new[fold.others.row].sum()) for fold in folds[:3]]
    assert sorted(counts) == [2, 2, 3]
    for fold in folds:
        assert not set(fold.train.row) & set(np.flatnonzero(others))
        told = fold.others.question if fold.others is not None else []
        assert not set(fold.train.question) & {*fold.test.question, *told}
    assert [a.test.row.tolist() for a in folds[:3]] != [b.test.row.tolist() for b in folds[3:]]
    assert CrossValidation(labels, 3, 0).resamples(4).counts.shape == (5, len(np.unique(labels.question)))


def test_of_those_that_tie_the_first_are_taken_however_many_there_are():
    tied = object.__new__(Decisions)
    tied.margins = np.repeat([1.0, -1.0], [40, 160])
    assert tied.surest(0.2) == 1.0 and tied.surest(0.4) == 0.5
    question = np.random.default_rng(0).integers(0, 3, 300)
    assert [own.tolist() for own in rows_of(question)] == [np.flatnonzero(question == q).tolist() for q in range(3)]


def test_numbers_of_other_kinds_are_read_as_they_are():
    rng = np.random.default_rng(5)
    question, generator = (place.ravel().astype(str) for place in np.indices((30, 5)))
    label, score = rng.random(150) < 0.5, rng.integers(0, 999, 150) / 8
    found = between_generators(score, label * 1.0, question, generator)
    assert between_generators(score.astype(np.float16), label, question.tolist(), generator.tolist()) == found
    x = rng.normal(size=(20, 2)).astype(np.float32)
    assert question_only.ridge_values(x, x[:, 0], np.ones(20, np.float32), x).dtype == np.float64
    assert Predictions.blank(1, 2, np.array([1.5])).score.dtype == np.float64
    assert Predictions.blank(1, 2).score.dtype == np.int64 and selection._choices(3, 2, 9, "").dtype == np.bool_
    one = Marked("a", "Q", "ab", (Span(0, 2),), 0)
    assert one.steps_of([]).dtype == np.int64
    wrong = [{"id": 0, "question": "Q?", "prediction": "It is 1.", "answer": "9"}]
    right = [{"question": "Q?", "prediction": "x"}]
    told = iter([[9], [1], *[[1.5]] * 50])  # whole numbers first
    climbed = hill_climbing(wrong, right, lambda rows: (next(told), [None]), n_edits=40, bootstraps=5)
    assert climbed["kept"] == 1.0


def test_adapters_are_told_to_peft_as_they_are():
    found = AdapterConfig(rank=3, alpha=5, dropout=0.25, modules=("a",)).for_peft("SEQ_CLS")
    assert (found.r, found.lora_alpha, found.lora_dropout, found.target_modules) == (3, 5, 0.25, {"a"})
    assert found.task_type == "SEQ_CLS" and AdapterConfig().for_peft().task_type is None
    usual = AdapterConfig()
    assert (usual.rank, usual.alpha, usual.dropout, usual.modules) == (16, 32, 0.1, ("q_proj", "v_proj"))


def test_only_names_that_are_going_are_passed_over():
    with old_names_allowed():
        warnings.warn("the old gradient_checkpointing goes", FutureWarning, stacklevel=1)
        for kind, text in ((FutureWarning, "another name goes"), (UserWarning, "gradient_checkpointing is on")):
            with pytest.warns(kind, match=text):
                warnings.warn(text, kind, stacklevel=1)


def test_answers_of_one_kind_have_no_auroc():
    assert np.isnan(matched._auroc(np.array([True, True]), np.array([1.0, 2.0])))
    assert matched._auroc(np.array([True, False]), np.array([1.0, 1.0])) == 0.5


def defaults(function):
    kinds = inspect.signature(function).parameters.values()
    return {one.name: one.default for one in kinds if one.default is not inspect.Parameter.empty}


def test_numbers_on_which_evidence_rests_are_what_they_were():
    assert (metrics.ECE_BINS, metrics.ECE_ROWS, metrics.UNSET, metrics.BLOCK) == (10, 200, -(2**31), 2_000_000)
    assert (between.LEAST_GENERATORS, between.LEAST_ROWS, between.TOLERANCE) == (4, 2, 1e-9)
    assert (matched.SHARES, matched.MIN_GENERATORS, climbing.LONGEST) == ((0.1, 0.3, 0.5), 2, 2.0)
    assert (degenerate.WORDS, degenerate.SOLVED, verdict.CHANCE, procedure.BOOTSTRAPS) == (60, 0.95, 0.5, 1000)
    assert defaults(selection.use_evidence) == {
        "sizes": (2, 4, 8, 16),
        "top": 0.2,
        "bootstraps": 1000,
        "n_choices": 200,
        "seed": 0,
    }
    assert defaults(hill_climbing) == {"n_edits": 200, "bootstraps": 1000, "seed": 0}
    assert defaults(degenerate.degenerate_evidence) == {"bootstraps": 1000, "seed": 0}
    assert defaults(marked) == {"seed": 0}
    assert defaults(question_only.QuestionOnlyConfig)["layers"] == (4, 8, 12, 16, 20, 24)
    assert (question_only.POOLINGS, question_only.LEAST_QUESTIONS) == (("mean", "last"), 10)
    assert pytest.approx([10 ** (i / 2) for i in range(15)]) == question_only.PENALTIES
    assert defaults(scored.read_scored) == {"rank_by": None, "keep_abstained": False}
    assert defaults(metrics.Metric) == {"lower_is_better": False, "least_rows": 0}
    assert defaults(metrics.gains) == {"tested": False} and defaults(f1) == {"by_support": False}
    assert defaults(CrossValidation) == {"repeats": 1, "of_others": None, "generators": None, "left_out": ()}
    assert {name: metric.least_rows for name, metric in metrics.METRICS.items() if metric.least_rows} == {"ece": 200}
