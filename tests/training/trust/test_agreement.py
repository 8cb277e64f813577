"""Agreement of annotators and a judge: published examples, computations by hand, and scikit-learn."""

import numpy as np
import pytest
from inspector_training.trust.agreement import (
    agreement,
    alternative_annotator_test,
    as_labels,
    krippendorff_alpha,
)
from scipy import stats
from sklearn.metrics import cohen_kappa_score

from inspector_pipeline.errors import DataFileError, SettingsError

NAN = float("nan")
PUBLISHED = np.array(  # Krippendorff (2011), section C: four observers, twelve units
    [
        [1, 2, 3, 3, 2, 1, 4, 1, 2, NAN, NAN, NAN],
        [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, NAN, 3],
        [NAN, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, NAN],
        [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, NAN],
    ]
).T


@pytest.mark.parametrize(("level", "alpha"), [("nominal", 0.743), ("ordinal", 0.815), ("interval", 0.849)])
def test_alpha_is_that_of_the_published_example(level, alpha):
    assert krippendorff_alpha(PUBLISHED, level)[0] == pytest.approx(alpha, abs=5e-4)


def test_alpha_of_a_resample_is_that_of_its_rows():
    weights = np.array([[1.0] * 12, [2, 0, 1, 3, 0, 1, 1, 0, 2, 1, 1, 0]])
    drawn = np.repeat(PUBLISHED, weights[1].astype(int), axis=0)
    for level in ("nominal", "ordinal", "interval"):
        found = krippendorff_alpha(PUBLISHED, level, weights)
        assert found[1] == pytest.approx(krippendorff_alpha(drawn, level)[0])
    with pytest.raises(SettingsError, match="level expects nominal, ordinal, interval"):
        krippendorff_alpha(PUBLISHED, "ratio")


def test_the_alternative_annotator_test_by_hand():
    raters = np.array([[1, 1, 0], [0, 0, 0], [1, 0, 1], [1, 1, 1]], dtype=float)
    judge = np.array([1, 0, 1, 0], dtype=float)
    found = alternative_annotator_test(judge, raters, measure="accuracy", epsilon=0.2)
    # Annotator 1: against (1,0) (0,0) (0,1) (1,1) the judge agrees by .5 1 .5 0, they by .5 1 .5 1.
    # Annotator 2: against (1,0) (0,0) (1,1) (1,1) the judge .5 1 1 0, they .5 1 0 1. Annotator 3: 1 1 .5 0, 0 1 .5 1.
    assert [one["advantage"] for one in found["annotators"]] == [0.75, 0.75, 0.75]
    assert [one["annotator"] for one in found["annotators"]] == [1.0, 0.75, 0.75]
    assert found["advantage"] == 0.75 and found["winning_rate"] == 0 and not found["may_replace"]
    squares = alternative_annotator_test(
        np.array([1.0, 2, 3, 2.5]), np.array([[1, 2, 3], [2, 2, 2], [3, 3, 1], [4, 1, 1.0]])
    )
    # By root mean squares, annotator 1: judge sqrt(2.5) 0 sqrt(2) 1.5, they sqrt(2.5) 0 sqrt(2) 3: never worse.
    assert squares["annotators"][0]["advantage"] == 1.0 and squares["annotators"][0]["annotator"] == 0.75


def test_p_values_are_those_of_a_t_test_adjusted_by_benjamini_and_yekutieli():
    rng = np.random.default_rng(0)
    truth = rng.integers(1, 6, 200)
    raters = np.clip(truth[:, None] + rng.integers(-1, 2, (200, 4)), 1, 5).astype(float)
    raters[rng.random(raters.shape) < 0.2] = NAN
    judge = np.clip(truth + rng.normal(0, 0.4, 200), 1, 5)
    found = alternative_annotator_test(judge, raters, epsilon=0.1)
    assert found["winning_rate"] == 1 and found["may_replace"] and found["advantage"] > 0.6
    raw = []
    for j in range(4):
        others = np.delete(raters, j, axis=1)
        kept = ~np.isnan(raters[:, j]) & (~np.isnan(others)).any(axis=1)
        errors = [np.sqrt(np.nanmean((others - x[:, None])[kept] ** 2, axis=1)) for x in (judge, raters[:, j])]
        difference = 1.0 * (errors[1] <= errors[0]) - (errors[0] <= errors[1])
        raw.append(stats.ttest_1samp(difference, 0.1, alternative="less").pvalue)
    order = np.argsort(raw)
    steps = np.array(raw)[order] * 4 * (1 + 1 / 2 + 1 / 3 + 1 / 4) / np.arange(1, 5)
    by_hand = np.minimum(np.minimum.accumulate(steps[::-1])[::-1], 1)[np.argsort(order)]
    assert [one["p"] for one in found["annotators"]] == pytest.approx(by_hand)
    noise = alternative_annotator_test(rng.uniform(1, 5, 200), raters, epsilon=0.1)
    assert noise["winning_rate"] == 0 and noise["advantage"] < 0.5


def test_the_report_has_names_intervals_and_kappas_of_a_library():
    rng = np.random.default_rng(1)
    truth = rng.integers(1, 6, 80)
    raters = {name: np.clip(truth + rng.integers(-1, 2, 80), 1, 5).astype(float) for name in ("Ada", "Ben", "Cleo")}
    raters["Ben"][:10] = NAN
    judge = truth + rng.normal(0, 0.5, 80)
    found = agreement(judge, raters, [f"q{i // 2}" for i in range(80)], bootstraps=100)
    assert set(found["alternative_annotator_test"]["annotators"]) == set(raters) and found["n_questions"] == 40
    pair = found["kappa"]["Ada, Ben"]
    first, second = (raters[name][10:] for name in ("Ada", "Ben"))
    assert pair["n"] == 70 and pair["kappa"]["value"] == pytest.approx(cohen_kappa_score(first, second), abs=1e-4)
    assert pair["weighted"]["value"] == pytest.approx(cohen_kappa_score(first, second, weights="quadratic"), abs=1e-4)
    assert pair["weighted"]["low"] < pair["weighted"]["value"] < pair["weighted"]["high"]
    rounded = np.clip(np.round(judge), 1, 5)
    expected = cohen_kappa_score(rounded, raters["Ada"])
    assert found["kappa"]["Ada, judge"]["kappa"]["value"] == pytest.approx(expected, abs=1e-4)
    assert found["alpha"]["judge"]["value"] > found["alpha"]["annotators"]["value"]
    same = agreement(rounded, raters, [str(i) for i in range(80)], measure="accuracy", level="ordinal", bootstraps=20)
    assert found["notes"] == same["notes"] == []
    few = agreement(rounded, raters, ["one question"] * 80, bootstraps=20)["notes"]
    assert few == ["One question is too few for intervals over questions: those of kappa and alpha say little."]
    assert same["alpha"]["level"] == "ordinal" and same["alternative_annotator_test"]["measure"] == "accuracy"


def test_what_cannot_be_tested_is_refused():
    with pytest.raises(DataFileError, match="labels of 3 annotators or more, but got 2"):
        alternative_annotator_test(np.zeros(5), np.zeros((5, 2)))
    with pytest.raises(DataFileError, match="2 rows or more that annotator 3, another annotator and the judge"):
        alternative_annotator_test(np.zeros(3), np.array([[0, 1, NAN], [1, 1, NAN], [0, 0, NAN]]))
    with pytest.raises(SettingsError, match="measure expects accuracy or rmse"):
        alternative_annotator_test(np.zeros(3), np.zeros((3, 3)), measure="f1")
    for epsilon in (-0.1, 1.0, NAN):
        with pytest.raises(SettingsError, match="epsilon expects a share from 0 to below 1"):
            alternative_annotator_test(np.zeros(3), np.zeros((3, 3)), epsilon=epsilon)
    with pytest.raises(DataFileError, match="labels that differ"):
        agreement(np.zeros(3), dict.fromkeys("abc", np.ones(3)), ["a", "b", "c"])
    assert as_labels(["yes", "", None, "2", True], {"yes": 1}, "Ada").tolist() == pytest.approx(
        [1, NAN, NAN, 2, 1], nan_ok=True
    )
    with pytest.raises(DataFileError, match="Ada expects numbers as labels, but row 0 has 'no'"):
        as_labels(["no"], {}, "Ada")
    with pytest.raises(DataFileError, match="row 1 has 'inf'"):
        as_labels([1, "inf"], {}, "Ada")
