"""Baselines: one interface, and each knows just what its name says."""

import inspect

import numpy as np
import pytest
from inspector_training.evaluation.methods.text import (
    BASELINES,
    Length,
    Majority,
    Surface,
    surface_features,
)
from inspector_training.evaluation.metrics import METRICS, Predictions
from inspector_training.rows.probing_set import drop_foreign, read_probing_set, read_questions
from inspector_training.rows.records import LabelledPair, is_good
from sklearn.metrics import brier_score_loss, roc_auc_score
from support.made_up import measure

CLASSES = [1, 2, 3, 4, 5]
FAST = [Majority(), Length(), Surface(trees=15)]
BY_NAME = {baseline.name: baseline for baseline in FAST}


def pair(question, response, i=0):
    return LabelledPair(i, question, response)


def long_or_short(n, seed, share=0.5):
    """Responses of random words and labels that rise with the number of words; a share of them is good."""
    rng = np.random.default_rng(seed)
    score = np.where(rng.random(n) < share, rng.integers(4, 6, n), rng.integers(1, 4, n))
    words = np.maximum(1, 10 * score + rng.integers(-8, 9, n))
    return [pair(f"What is {i}?", "word " * k, i) for i, k in enumerate(words)], score


def test_there_are_three_with_distinct_names():
    assert [baseline.name for baseline in BASELINES] == ["majority", "length", "surface", "tfidf"]
    assert all(baseline.description for baseline in BASELINES)
    for baseline in BASELINES:
        assert inspect.signature(baseline.predict) == inspect.signature(BASELINES[0].predict)


@pytest.mark.parametrize("baseline", FAST, ids=BY_NAME)
@pytest.mark.parametrize("seen", [CLASSES, [2, 3, 5], [4, 5], [1], [5]])
def test_predictions_are_complete_and_on_the_scale_whatever_labels_were_seen(baseline, seen):
    pairs, _ = long_or_short(40, 0)
    labels = np.resize(seen, 30)
    found = baseline.predict(pairs[:30], labels, pairs[30:], CLASSES, seed=1)
    assert [column.shape for column in found] == [(10,)] * 4 and found.score.dtype == np.int64
    assert np.isfinite(np.concatenate(found)).all()
    assert ((found.good_probability >= 0) & (found.good_probability <= 1)).all()
    assert ((found.expected >= min(seen) - 1e-9) & (found.expected <= max(seen) + 1e-9)).all()
    assert set(found.score.tolist()) <= set(seen)
    again = baseline.predict(pairs[:30], labels, pairs[30:], CLASSES, seed=1)
    for column, same in zip(found, again, strict=True):
        np.testing.assert_array_equal(column, same)


@pytest.mark.parametrize("baseline", FAST, ids=BY_NAME)
def test_labels_of_nought_and_one_are_served_too(baseline):
    pairs, score = long_or_short(60, 2)
    found = baseline.predict(pairs[:40], (score[:40] >= 4).astype(np.int64), pairs[40:], [0, 1], seed=0)
    assert set(found.score.tolist()) <= {0, 1} and found.expected.max() <= 1


def test_the_majority_gives_the_commonest_score_and_the_share_of_good_labels():
    pairs, _ = long_or_short(9, 0)
    found = Majority().predict(pairs[:7], np.array([5, 5, 5, 5, 1, 2, 4]), pairs[7:], CLASSES, 0)
    assert found.score.tolist() == [5, 5] and found.expected.tolist() == [5.0, 5.0]
    assert found.good_probability == pytest.approx([5 / 7, 5 / 7])


def test_the_majority_does_not_follow_the_fold_where_labels_are_balanced():
    """A plain majority takes what the held-out rows have least of, and so is worse than chance."""
    pairs, _ = long_or_short(100, 0)
    truth = np.tile(CLASSES, 20)
    predictions = Predictions.blank(1, 100)
    for held_out in np.array_split(np.random.default_rng(0).permutation(100), 5):
        rows = np.setdiff1d(np.arange(100), held_out)
        found = Majority().predict([pairs[i] for i in rows], truth[rows], [pairs[i] for i in held_out], CLASSES, 0)
        predictions.put(0, held_out, found)
    measured = measure(truth, CLASSES, predictions)
    assert {name: measured[name] for name in ("auroc", "spearman", "qwk", "accuracy")} == {
        "auroc": 0.5,
        "spearman": 0.0,
        "qwk": 0.0,
        "accuracy": 0.2,
    }


@pytest.mark.parametrize("baseline", FAST[1:], ids=list(BY_NAME)[1:])
def test_what_length_tells_is_found(baseline):
    pairs, score = long_or_short(300, 3)
    found = baseline.predict(pairs[:200], score[:200], pairs[200:], CLASSES, seed=0)
    truth = score[200:]
    measured = {name: metric(truth, CLASSES, found) for name, metric in METRICS.items() if name != "ece"}
    assert measured["auroc"] > 0.9 and measured["spearman"] > 0.75 and measured["qwk"] > 0.6
    assert measured["mae"] < 0.9 and measured["brier"] < 0.12


def test_a_best_length_in_the_middle_is_found():
    rng = np.random.default_rng(0)
    words = rng.integers(1, 200, 400)
    score = np.where((words > 20) & (words < 80), 5, 1)
    pairs = [pair("Why?", "a " * k) for k in words]
    found = Length().predict(pairs[:300], score[:300], pairs[300:], CLASSES, 0)
    assert roc_auc_score(score[300:] == 5, found.good) > 0.95


def test_the_length_baseline_reads_nothing_but_lengths():
    pairs, score = long_or_short(60, 4)
    masked = [pair("x" * len(p.question), "".join(" " if c == " " else "x" for c in p.prediction)) for p in pairs]
    ours = Length().predict(pairs[:40], score[:40], pairs[40:], CLASSES, 0)
    same = Length().predict(masked[:40], score[:40], masked[40:], CLASSES, 0)
    for column, other in zip(ours, same, strict=True):
        np.testing.assert_array_equal(column, other)


def test_the_length_baseline_gives_each_score_as_often_as_it_was_a_label():
    pairs, score = long_or_short(400, 5, share=0.8)
    found = Length().predict(pairs, score, pairs, CLASSES, 0)
    counts, given = np.bincount(score), np.bincount(found.score)
    assert np.abs(counts - given).max() <= 25  # equal lengths are not divided


def test_surface_features_are_these_counts():
    found = surface_features("Tom has 12 apples.\nHow many?", "12 - 2 = 10\nTom has 10 apples")
    assert found == {
        "question_characters": 28,
        "question_words": 6,
        "response_characters": 29,
        "response_words": 9,
        "response_lines": 2,
        "response_digits": 7,
        "response_equals_signs": 1,
        "question_digits": 2,
        "share_of_question_words_in_response": 3 / 5,
        "share_of_response_numbers_in_question": 1 / 3,
        "response_wrong_sums": 0,
    }
    assert tuple(surface_features("?", "").values()) == (1, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0)
    assert surface_features("?", "12 - 2 = 9.\n3 + 4 = 8.")["response_wrong_sums"] == 2


def test_the_surface_sees_more_than_length():
    rng = np.random.default_rng(0)
    score = rng.choice([1, 5], 120)
    pairs = [pair("Tom has 12 apples.", "12 - 2 = 10" if s == 5 else "12 - 2 + 10") for s in score]
    surface = Surface(trees=15).predict(pairs[:80], score[:80], pairs[80:], CLASSES, 0)
    length = Length().predict(pairs[:80], score[:80], pairs[80:], CLASSES, 0)
    assert (surface.score == score[80:]).all() and np.ptp(length.good) == 0


def test_the_forests_balance_is_undone_in_its_probability_and_not_in_its_ranking():
    pairs, score = long_or_short(300, 6, share=0.9)
    noise = np.random.default_rng(1).permutation(300)  # labels that the text does not tell
    found = Surface(trees=40).predict(pairs[:200], score[noise][:200], pairs[200:], CLASSES, 0)
    good = is_good(score[noise][200:], CLASSES)
    order = np.argsort(found.good, kind="stable")
    assert (np.diff(found.good_probability[order]) >= 0).all()
    assert abs(found.good_probability.mean() - 0.9) < 0.07 < abs(found.good.mean() - 0.9)
    assert brier_score_loss(good, found.good_probability) < brier_score_loss(good, found.good)


def test_the_seed_reaches_the_forest():
    pairs, score = long_or_short(60, 7)
    one, other = (Surface(trees=5).predict(pairs[:40], score[:40], pairs[40:], CLASSES, seed) for seed in (0, 1))
    assert (one.expected != other.expected).any()


def test_length_tells_something_of_the_supplied_labels(data_dir):
    pairs, _ = read_probing_set(data_dir / "reference" / "Meta-Llama-3-8B-Instruct_gsm8k_roscoe5dim_probing.json")
    kept, _ = drop_foreign(pairs, read_questions(data_dir / "gsm8k_train.jsonl"))
    mine = [pair for pair in kept if "factuality" in pair.scores]
    truth = np.array([pair.scores["factuality"] for pair in mine])
    half = len(mine) // 2
    found = Length().predict(mine[:half], truth[:half], mine[half:], CLASSES, 0)
    assert METRICS["auroc"](truth[half:], CLASSES, found) > 0.6
