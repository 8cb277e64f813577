"""Baselines of what stands beside a pair, and generators that no fit saw."""

from dataclasses import replace

import numpy as np
import pytest
from inspector_training.evaluation.methods.beside import (
    ExactMatch,
    MathVerify,
    Overlap,
    beside_baselines,
    exactly_matches,
    longest_run,
    overlap,
    verified,
)
from inspector_training.evaluation.metrics import UNSET, Predictions, auroc
from inspector_training.evaluation.unseen import unseen_evidence, unseen_lines
from inspector_training.probing.settings import SearchConfig
from inspector_training.probing.table import Labels, question_names
from inspector_training.rows.records import LabelledPair
from inspector_training.stages.evaluate import Config, evaluate
from support.made_up import make_features


def test_overlap_counts_what_is_shared():
    found = overlap("Paris lies on the Seine since 1850", "The city of Paris lies on a river since 1850", "")
    log_said, log_given, words, long_words, pairs, numbers, back, run, *reference = found
    assert (log_said, log_given) == (np.log1p(7), np.log1p(10))
    assert words == pytest.approx(6 / 7) and long_words == pytest.approx(2 / 3) and pairs == pytest.approx(3 / 6)
    assert numbers == 1 and back == pytest.approx(6 / 10) and run == pytest.approx(3 / 7) and reference == [0, 0, 0]
    assert overlap("It is 18, not 17.", "", "18")[-3:] == (1, 1, 0)
    assert overlap("It is 17.", "", "18")[-3:] == (0, 0, 0) and overlap("", "", "")[:2] == (0, 0)
    assert overlap("so x^2", "", "x^2")[-3:] == (1, 0, 0)
    assert longest_run(["a", "b", "a", "b", "c"], ["b", "a", "b", "d"]) == 3


@pytest.mark.parametrize(
    ("response", "reference", "exact", "equal"),
    [
        ("The answer is 18.", "18", True, True),
        ("The answer is $1,200.", "1200", True, True),
        ("The answer is 0.5.", "1/2", False, True),
        (r"So \boxed{\frac{1}{2}}.", r"\frac{1}{2}", True, True),
        ("The answer is 17.", "18", False, False),
        ("No idea.", "18", False, False),
        ("So she makes $18", "18", True, True),
        ("The answer is 18. It is not 17.", "18", True, True),
    ],
)
def test_answers_are_held_against_references(response, reference, exact, equal):
    assert exactly_matches(response, reference) == exact and verified(response, reference) == equal
    for rule, wanted in ((ExactMatch(), exact), (MathVerify(), equal)):
        pair = LabelledPair(1, "?", response, reference=reference)
        found = rule.predict([], np.array([]), [pair], [0, 1], 0)
        assert found.score.tolist() == [int(wanted)] == found.good.tolist() and np.isnan(found.good_probability).all()


def grounded(n=80):
    """Replies of two generators, good where they take words of their context; one generator mostly does."""
    rng, pairs = np.random.default_rng(0), []
    for i in range(n):
        words = [f"w{rng.integers(1000)}" for _ in range(8)]
        for generator, share in (("often", 0.7), ("seldom", 0.3)):
            good = int(rng.random() < share)
            text = " ".join(words[:5] if good else [f"v{rng.integers(1000)}" for _ in range(5)])
            context = " ".join(words)
            pairs.append(LabelledPair(i, f"What {i}?", text, {"rests": good}, generator=generator, context=context))
    return pairs


def test_overlap_ranks_replies_that_rest_on_their_context():
    pairs = grounded()
    labels = np.array([pair.scores["rests"] for pair in pairs])
    found = Overlap().predict(pairs[:100], labels[:100], pairs[100:], [0, 1], 0)
    assert auroc(labels[100:] == 1, found.good, np.ones((1, 60)))[0] > 0.95
    assert [one.name for one in beside_baselines(("context",))] == ["overlap"]
    assert [one.name for one in beside_baselines(("reference",))] == ["overlap", "exact_match", "math_verify"]
    assert not beside_baselines(())


def test_one_context_is_on_one_side_of_every_fold():
    pairs = [
        LabelledPair("1", "A?", "", context="Same."),
        LabelledPair("2", "B?", "", context=" same. "),
        LabelledPair("3", "C?", "", context="Other."),
        LabelledPair("4", "Same.", "", context="A?"),  # a question is no context
    ]
    assert question_names(pairs) == ["1", "1", "3", "4"]


def test_figures_of_unseen_generators_are_those_of_each_and_their_mean():
    pairs = [replace(pair, form="odd" if i % 4 < 2 else None) for i, pair in enumerate(grounded(40))]
    labels = Labels.of(pairs)
    generators = np.array([pairs[i].generator for i in labels.pair])
    rng, n = np.random.default_rng(1), len(labels.score)
    value = rng.normal(size=n) + labels.score
    first, other = (Predictions(*(column[None] for column in (v, v, v, labels.score))) for v in (value, -value))
    blank = Predictions.blank(1, n)
    told = unseen_evidence({"judge": first, "other": other, "blank": blank}, labels, generators, pairs, 20, 1)["rests"]
    good = labels.score == 1
    each = {g: auroc(good[generators == g], value[generators == g], np.ones((1, 40)))[0] for g in ("often", "seldom")}
    for name, wanted in each.items():
        assert told["by_generator"][name]["auroc"]["value"] == pytest.approx(wanted, abs=1e-4)
    assert told["mean"]["auroc"]["value"] == pytest.approx(np.mean(list(each.values())), abs=1e-4)
    assert told["pooled"]["auroc"]["value"] == pytest.approx(auroc(good, value, np.ones((1, n)))[0], abs=1e-4)
    gain = told["pooled"]["gain_over_other"]["auroc"]["value"]
    assert gain == pytest.approx(2 * told["pooled"]["auroc"]["value"] - 1, abs=2e-4)
    assert set(told["by_form"]) == {"odd"} and "blank" not in told["mean"] and told["n_rows"] == n
    assert any(line.startswith("odd AUROC 0.") for line in unseen_lines(told))
    assert unseen_evidence({"judge": first}, labels, np.full(n, ""), pairs, 5, 1) == {}
    assert unseen_evidence({"blank": blank}, labels, generators, pairs, 5, 1) == {}
    first.score[0, :10] = UNSET
    assert unseen_evidence({"judge": first}, labels, generators, pairs, 5, 1)["rests"]["n_rows"] == n - 10


def test_the_stage_measures_unseen_generators_beside_the_baselines(tmp_path):
    search = SearchConfig(poolings=(("last",),), depths=(2,), sharings=(1.0,), heads=(), inner_folds=3)
    config = Config(("f",), "o", search, search, folds=2, repeats=1, bootstraps=10, learning_curve=(), unseen=True)
    features = make_features(tmp_path / "f", grounded(30), signal=1.0)
    plain = evaluate(features, replace(config, generator_groups=2, unseen=False))
    found = evaluate(features, replace(config, generator_groups=2))
    own = found.pop("unseen_generators")["rests"]
    assert found == plain, "nothing else is measured otherwise"
    assert set(own["by_generator"]) == {"often", "seldom"} and own["n_rows"] == 60
    assert {"surface", "tfidf", "rival", "gain_over_rival"} <= own["mean"].keys()
    assert own["mean"]["gain_over_rival"]["auroc"]["value"] == 0
