"""Preferences: a Bradley-Terry fit with known truth, ties, votes and rankings, and evidence beside baselines."""

from dataclasses import replace

import numpy as np
import pytest
from inspector_training.evaluation.preferences import compared_odds, preference_evidence, rater_agreement
from inspector_training.probing import preferences as preferring
from inspector_training.probing.fitted import fit, load_fitted, save_fitted
from inspector_training.probing.preferences import (
    Comparisons,
    PreferenceDesign,
    fit_odds,
    fit_preference,
    fit_slope,
    log_loss,
    odds_weights,
)
from inspector_training.probing.settings import SearchConfig, View
from inspector_training.probing.table import TooFewLabelsError, question_folds
from inspector_training.rows.columns import Columns
from inspector_training.rows.compared import Compared, compared_rows, majority, text_digest
from inspector_training.rows.rated import joined_reports, label_lines, label_report
from inspector_training.rows.records import LabelledPair, labelled_pairs
from inspector_training.rows.sources import Source
from inspector_training.runs.manifest import Manifest
from inspector_training.stages.evaluate import Config, evaluate, report
from scipy.special import expit
from sklearn.linear_model import LogisticRegression
from support.made_up import make_features

from inspector_pipeline.errors import DataFileError
from inspector_pipeline.features import Feature

SEARCH = SearchConfig(depths=(1, 2), poolings=(("last",),), penalties=(0.3, 1.0), head_penalties=(0.1,), inner_folds=3)


def read(rows, compared, **options):
    return compared_rows(Source("file", None, rows), Columns(question="prompt"), compared, **options)


def test_chosen_and_rejected_are_a_win_for_the_chosen():
    rows = [{"prompt": "Why?", "chosen": "Good.", "rejected": "Bad."}] * 2 + [
        {"prompt": "Why?", "chosen": "Bad.", "rejected": "Good."},
        {"prompt": "How?", "chosen": "So.", "rejected": "So."},
        {"prompt": "How?", "chosen": "So.", "rejected": None},
    ]
    found, rejects, votes = read(rows, Compared("chosen", "rejected"))
    assert [(row["prediction"], row["sample"]) for row in found] == [("Good.", 0), ("Bad.", 1)]
    assert found[0]["comparisons"] == [
        {"aspect": "preference", "against": text_digest("Bad."), "won": 0.666667, "votes": [2, 0, 1], "weight": 1.0}
    ]
    assert [reject.reason for reject in rejects] == ["both responses are the same text", "the prediction is blank"]
    assert votes["preference"].to_dict()["n"] == 1


def test_several_raters_say_a_b_or_tie_in_any_words():
    said = [("A", "b", "tie"), ("1", 1.0, 2), ("0", "0", "0"), ("left", "", None), ("?", "x", "1"), (None, None, "")]
    rows = [
        {"prompt": f"Q{i}?", "a": "yes", "b": "no", "r1": one, "r2": two, "r3": three, "ga": "m1", "gb": "m2"}
        for i, (one, two, three) in enumerate(said)
    ]
    compared = Compared("a", "b", {"better": "r1+r2+r3"}, first_generator="ga", second_generator="gb")
    with pytest.raises(
        DataFileError, match=r"better expects first, second or tie, but 2 of 13 .* row 4: '\?'; row 4: 'x'"
    ):
        read(rows, compared)
    found, _, votes = read(rows, compared, allow_unreadable=True)
    assert [own for own in votes["better"].found.values()] == [[1, 1, 1], [2, 0, 1], [0, 3, 0], [1, 0, 0], [1, 0, 0]]
    assert (found[0]["generator"], found[1]["generator"]) == ("m1", "m2")
    told = label_report(votes, found, {})
    assert told["aspects"]["better"]["ties"] == 2 and told["aspects"]["better"]["blank"] == 1
    assert list(label_lines(told))[0].startswith("better: 5 comparisons, 2 of them tied, a tie counting half for each")
    assert majority([1, 1, 1]) == "tie" and majority([2, 2, 1]) == "first" and majority([0, 1, 2]) == "second"


def test_signs_say_who_is_better_once_somebody_says_which_is_which():
    strengths = [-3, -1, 0, 2, "1", None]
    rows = [{"prompt": f"Q{i}?", "a": "yes", "b": "no", "by": one} for i, one in enumerate(strengths)]
    with pytest.raises(DataFileError, match=r"but hold -[13]. Say which is which: negative=first positive=second"):
        read(rows, Compared("a", "b", {"better": "by"}))
    said = {"negative": "first", "positive": "second"}
    _, _, votes = read(rows, Compared("a", "b", {"better": "by"}, said=said))
    assert list(votes["better"].found.values()) == [[1, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1], [0, 0, 1]]
    each = {"-3": "first", "-1": "first", "1": "second", "2": "second"}
    assert read(rows, Compared("a", "b", {"better": "by"}, said=each))[2]["better"].found == votes["better"].found


def test_several_raters_in_a_cell_and_the_turns_before_are_kept():
    turns = [
        {"role": role, "content": text} for role, text in (("user", "Hi."), ("assistant", "Ho."), ("user", "Why?"))
    ]
    row = {
        "prompt": "User: Hi. ...",
        "question_turns": turns,
        "a": "yes",
        "b": "no",
        "by": ["left", "tie (bothbad)", "b"],
    }
    found, _, votes = read([row], Compared("a", "b", {"better": "by"}))
    assert list(votes["better"].found.values()) == [[1, 1, 1]]
    assert [one["question_turns"] for one in found] == [turns, turns]
    assert [pair.texts["turns"] for pair in labelled_pairs(found, unlabelled=True)] == [turns, turns]


def test_nought_and_one_need_to_be_told_apart():
    rows = [{"prompt": f"Q{i}?", "a": "yes", "b": "no", "label": i % 2} for i in range(4)]
    with pytest.raises(DataFileError, match="are 0 and 1. Say which is which"):
        read(rows, Compared("a", "b", {"better": "label"}))
    found, *_ = read(rows, Compared("a", "b", {"better": "label"}, said={"0": "first", "1": "second"}))
    assert [row["comparisons"][0]["won"] for row in found if row["comparisons"]] == [1.0, 0.0, 1.0, 0.0]
    for wrong in ({"0": "left"}, {}):
        with pytest.raises(DataFileError, match="said expects first|expects the column"):
            read(rows, Compared("a", "c" if not wrong else "b", {"better": "label"}, said=wrong))


def test_a_ranking_compares_every_two_with_weights_of_one_comparison_a_response():
    texts = {"one": 1, "two": 2, "also two": 2, "last": "3", "none": ""}
    rows = [{"prompt": "Q?", "prediction": text, "place": rank} for text, rank in texts.items()]
    found, _, votes = read(rows, Compared(rank={"order": "place"}))
    own = votes["order"]
    assert len(own.found) == 6 and own.blank == 1
    won = {entry["against"]: entry["won"] for entry in found[1]["comparisons"]}
    assert won == {text_digest("also two"): 0.5, text_digest("last"): 1.0}
    assert {entry["weight"] for row in found for entry in row["comparisons"]} == {0.333333}  # of four ranked ones


def test_ranks_without_responses_are_refused():
    with pytest.raises(DataFileError, match="expects responses beside their ranks"):
        read([{"prompt": "Q?", "place": 1}], Compared(rank={"order": "place"}))


def test_odds_equal_scikit_learns_and_ties_are_half_a_win_for_each():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(60, 4))
    won = (rng.random(60) < expit(x @ [1.0, -1, 0.5, 0])).astype(float)
    plain = LogisticRegression(C=1 / 0.7, fit_intercept=False, tol=1e-8).fit(x, won).coef_[0]
    weights = odds_weights(x, won, np.ones(60), 0.7)
    np.testing.assert_allclose(weights, plain, atol=1e-3)
    halves = odds_weights(np.vstack([x, x[:5]]), np.append(won, np.full(5, 0.5)), np.ones(65), 0.7)
    twice = odds_weights(
        np.vstack([x, x[:5], x[:5]]), np.concatenate([won, np.ones(5), np.zeros(5)]), np.repeat([1, 0.5], [60, 10]), 0.7
    )
    np.testing.assert_allclose(halves, twice, atol=1e-3)
    gram = x @ x.T
    dual = fit_odds(gram, won, np.ones(60), [0.7])[0]
    scale = np.trace(gram) / 60
    scaled = odds_weights(x / np.sqrt(scale), won, np.ones(60), 0.7) / np.sqrt(scale)
    np.testing.assert_allclose(x.T @ dual, scaled, atol=1e-3)
    assert (odds_weights(x, np.ones(60), np.ones(60), 0.7) != 0).any(), "chosen always stands first"


@pytest.fixture(scope="module")
def simulated(tmp_path_factory):
    """Comparisons of 120 questions, three raters each, whose log odds are a direction of layer 2."""
    rng = np.random.default_rng(1)
    texts = [f"answer {i} " + "word " * int(rng.integers(1, 9)) for i in range(240)]
    pairs = [LabelledPair(i // 2, f"Question {i // 2}?", text, generator="ab"[i % 2]) for i, text in enumerate(texts)]
    features = make_features(tmp_path_factory.mktemp("features"), pairs, layers=(0, 1, 2), poolings=("last",))
    score = features.matrix(Feature("chat", 2, "last", "rms_normed")) @ np.array([1.0, -1, 1, 0, 0, 0.5])
    for first, second in zip(range(0, 240, 2), range(1, 240, 2), strict=True):
        n = int((rng.random(3) < expit(score[first] - score[second])).sum())
        entry = {"aspect": "preference", "against": text_digest(texts[second]), "won": round(n / 3, 6)}
        features.pairs[first].comparisons.append({**entry, "votes": [n, 0, 3 - n], "weight": 1.0})
    return features, score


def test_a_simulation_is_found_again(simulated):
    features, score = simulated
    comparisons = Comparisons.of(features.pairs)["preference"]
    design = PreferenceDesign(features, comparisons)
    fitted = fit_preference(design, np.arange(120), SEARCH)
    assert fitted.depth == 2 and fitted.explained[fitted.view][2] > fitted.explained[fitted.view][1]
    odds, truth = design.scores(fitted), score[0::2] - score[1::2]
    assert np.corrcoef(odds, truth)[0, 1] > 0.9
    assert np.polyfit(truth, odds, 1)[0] == pytest.approx(1, abs=0.4), "differences of the score are log odds"
    center, weight, bias = design.probe(fitted)
    x = np.hstack([features.matrix(Feature("chat", n, "last", "rms_normed")) for n in (1, 2)]).astype(np.float64)
    values = (x - center) @ weight + bias
    np.testing.assert_allclose(values[0::2] - values[1::2], odds, atol=1e-6)
    assert values.mean() == pytest.approx(0, abs=1e-6), "the typical response has the score 0"
    y, (view,) = 2 * comparisons.won - 1, fitted.explained
    for depth, explained in fitted.explained[view].items():
        gram = design.gram(view, depth)
        inverses = [np.linalg.inv(gram + penalty * np.trace(gram) / 120 * np.eye(120)) for penalty in SEARCH.penalties]
        left = min(((own @ y / np.diag(own)) ** 2).sum() for own in inverses)  # each by a fit without its question
        assert explained == pytest.approx(1 - left / (y @ y), abs=1e-6) and explained == round(explained, 6)
    gram, penalties = design.gram(view, 2), sorted(fitted.tried)
    held_out = np.zeros((len(penalties), 120))
    for train, out in question_folds(comparisons.labels(), SEARCH.inner_folds, SEARCH.seed):
        own = comparisons.take(train)
        duals = fit_odds(gram[np.ix_(train, train)], own.won, own.weight, penalties)
        held_out[:, out] = duals @ gram[np.ix_(train, out)]
    slopes = [fit_slope(values, comparisons.won, comparisons.weight) for values in held_out]
    for penalty, slope, values in zip(penalties, slopes, held_out, strict=True):
        assert fitted.tried[penalty] == round(log_loss(slope * values, comparisons.won, comparisons.weight), 4)
    best = min(penalties, key=fitted.tried.__getitem__)
    assert penalties == [0.1, 0.3, 1.0] and (fitted.penalty, fitted.slope) == (best, slopes[penalties.index(best)])


def test_evidence_stands_beside_length_and_words_and_saves(simulated, tmp_path):
    features, _ = simulated
    options = {"folds": 4, "repeats": 1, "bootstraps": 50, "seed": 0}
    entry = preference_evidence(features, SEARCH, **options)["preference"]
    found = entry["preference"]
    assert entry["classes"] == [0, 1] and entry["n"] == 120 and found["n_questions"] == 120
    assert set(entry["won"]) == {"0", "1"} and sum(entry["won"].values()) + found["ties"] == 120
    assert found["agreement"]["low"] > 0.65 and found["gain_over_length"]["agreement"]["low"] > 0
    assert found["gain_over_tfidf"]["log_loss"]["value"] > 0 and found["raters"]["n"] > 0
    assert set(found["by_generator"]) == {"a", "b"}
    fitted = fit(features, SEARCH)
    save_fitted(fitted, tmp_path)
    Manifest("fit", {}, {}).write(tmp_path, [])
    (aspect,), (again,) = fitted.aspects, load_fitted(tmp_path).aspects
    assert again.calibration == aspect.calibration and (again.weight == aspect.weight).all()
    (aspect,) = fitted.aspects
    assert (aspect.classes, aspect.n, aspect.counts_in_total) == ([0, 1], 120, False)


def test_preferences_stand_beside_levels_in_one_judge(simulated, tmp_path):
    features, _ = simulated
    levels = [replace(pair, scores={"wit": i // 3 % 2}) for i, pair in enumerate(features.pairs)]
    both = replace(features, pairs=levels)
    assert [(one.name, one.counts_in_total) for one in fit(both, SEARCH).aspects] == [
        ("wit", True),
        ("preference", False),
    ]
    config = Config((), "", SEARCH, folds=3, repeats=1, bootstraps=20, learning_curve=())
    results = evaluate(both, config)
    assert list(results["aspects"]) == ["wit", "preference"] and "auroc" in results["aspects"]["wit"]
    assert set(results["aspects"]["wit"]["by_generator"]) == {"a", "b"}
    assert "preference             agrees with the majority in 0." in report(results)
    same = replace(both, pairs=[replace(pair, scores={"preference": 1}) for pair in levels[:1]] + levels[1:])
    with pytest.raises(DataFileError, match="two different labels of preference|one kind of label"):
        fit(same, SEARCH)
    told = [{"rows": n, "questions": 1, "rejected": {"x": n}, "generators": {"a": n}, "domains": {}} for n in (1, 2)]
    joined = joined_reports([one | {"aspects": {str(i): {}}, "warnings": ["w"]} for i, one in enumerate(told)])
    assert (joined["rows"], joined["rejected"], list(joined["aspects"])) == (3, {"x": 3}, ["0", "1"])


def test_agreement_is_with_the_majority_and_ties_are_left_out():
    votes = np.array([[2, 0, 1], [0, 3, 0], [0, 0, 3], [1, 0, 0]])
    empty = np.zeros(4, dtype=np.int64)
    won = (votes[:, 0] + votes[:, 1] / 2) / votes.sum(axis=1)
    names = np.array(["a", "b", "c", "d"])
    comparisons = Comparisons("x", empty, empty, won, np.ones(4), votes, names, empty[:1])
    odds = {"judge": np.array([[1.0, 5.0, 2.0, 0.0]]), "other": np.array([[1.0, 1.0, -1.0, 1.0]])}
    found = compared_odds(odds, comparisons, np.ones((1, 4)))
    assert found["ties"] == 1 and found["agreement"]["value"] == 0.5  # right, wrong, and half for equal scores
    assert found["gain_over_other"]["agreement"]["value"] == -0.5
    assert rater_agreement(votes) == {"n": 4, "agreement": 0.75}  # the others of one of two in 2 to 1 are divided
    assert rater_agreement(np.array([[2, 0, 2], [3, 0, 1]])) == {"n": 8, "agreement": 0.375}


def test_the_shallowest_view_within_the_tolerance_is_fitted(simulated, monkeypatch):
    features, _ = simulated
    design = PreferenceDesign(features, Comparisons.of(features.pairs)["preference"])
    view, config = View("chat", ("last",)), replace(SEARCH, scalings=("standard",), tolerance=0.125)
    assert {one.scaling for one in preferring._sweep(design, design.comparisons, np.arange(120), config)} == {"none"}
    for told, depth in (((0.5, 0.625), 1), ((0.5, 0.626), 2), ((0.5, 0.25), 1)):
        found = {view: dict(zip((1, 2), told, strict=True))}
        monkeypatch.setattr(preferring, "_sweep", lambda *_, found=found: found)
        fitted = fit_preference(design, np.arange(30), config)
        assert fitted.depth == depth and fitted.explained == found
    choice = fitted.choice
    assert (choice.depth, choice.curve, choice.sweep) == (1, found[view], {str(view): found[view]})
    assert choice.settings[0].head == "logistic" and choice.settings[0].sharing == 0.0
    assert set(choice.tried) == {f"penalty {one:g}: log loss" for one in (0.1, 0.3, 1)}
    other = View("chat", ("last",), "one")
    for values, best in (((0.5, 0.6), other), ((0.6, 0.5), view), ((0.5, 0.5), view)):
        found = {view: {2: values[0]}, other: {2: values[1]}}
        monkeypatch.setattr(preferring, "_sweep", lambda *_, found=found: found)
        assert fit_preference(design, np.arange(30), config).view == best


def test_comparisons_are_written_as_tables(simulated):
    pairs = [LabelledPair("q", "Q?", text) for text in ("A", "B", "C")]
    for place, won, votes in ((0, 1, [2, 0, 1]), (1, 0.5, [1, 0, 1])):
        entry = {"aspect": "wit", "against": text_digest("C"), "won": won, "votes": votes}
        pairs[place].comparisons.append(entry)
    found = Comparisons.of(pairs)["wit"]
    assert found.weight.tolist() == [1.0, 1.0] and found.differences.toarray().tolist() == [[1, 0, -1], [0, 1, -1]]
    assert found.take(np.array([0])).differences.toarray().tolist() == [[1, 0, -1]], "of all responses"
    assert found.take(np.array([1])).differences.shape == (1, 3)
    labels, responses = found.labels(), found.responses()
    assert (labels.names, labels.classes, labels.counted) == (("wit",), ([0, 1, 2],), (False,))
    assert labels.score.tolist() == [2, 1] and labels.pair.tolist() == [0, 1] and labels.row.tolist() == [0, 1]
    assert (responses.classes, responses.counted) == (([0, 1],), (False,)) and responses.pair.tolist() == [0, 1, 2]
    assert not labels.auxiliary.any() and not responses.auxiliary.any() and set(responses.weight) == {1.0}
    assert not labels.aspect.any() and not responses.score.any() and responses.row.tolist() == [0, 1, 2]


def test_ties_alone_and_a_single_comparison_tell_nothing(simulated):
    features, _ = simulated
    comparisons = Comparisons.of(features.pairs)["preference"]
    ties = PreferenceDesign(features, replace(comparisons, won=np.full(120, 0.5)))
    with pytest.raises(TooFewLabelsError, match="preference expects comparisons that somebody won, but all are ties"):
        fit_preference(ties, np.arange(9), SEARCH)
    for won in (0.0, 1.0):
        assert odds_weights(np.array([[3.0, 1.0]]), np.array([won]), np.ones(1), 1.0).tolist() == [0, 0]
    turns = odds_weights(np.array([[1.0], [-1.0], [2.0], [-2.0]]), np.array([1.0, 0, 1, 0]), np.ones(4), 1.0)
    assert turns[0] > 0, "winners that take turns"
    lost = odds_weights(np.array([[-1.0], [1.0], [-2.0], [2.0]]), np.array([0.0, 1, 0, 1]), np.ones(4), 1.0)
    assert lost == pytest.approx(turns, abs=1e-3)
    for odds, won in ((1e4, 0.0), (-1e4, 1.0)):
        assert log_loss(np.array([odds]), np.array([won]), np.ones(1)) == pytest.approx(-np.log(1e-12), rel=1e-4)
    same = odds_weights(np.array([[1.0], [1.0], [2.0], [2.0]]), np.ones(4), np.ones(4), 1.0)
    assert turns == pytest.approx(same, abs=1e-3)


def test_the_slope_makes_odds_honest():
    rng = np.random.default_rng(2)
    odds = rng.normal(size=4000)
    won = (rng.random(4000) < expit(3 * odds)).astype(float)
    assert fit_slope(odds, won, np.ones(4000)) == pytest.approx(3, abs=0.3)


def test_a_response_that_is_gone_is_an_error():
    pair = LabelledPair(1, "Q?", "A", comparisons=[{"aspect": "x", "against": "b" * 12, "won": 1, "votes": [1, 0, 0]}])
    with pytest.raises(DataFileError, match="expects the response bbbbbbbbbbbb"):
        Comparisons.of([pair])
    assert labelled_pairs([{"id": 1, "question": "Q?", "prediction": "A", "comparisons": []}], unlabelled=True)
