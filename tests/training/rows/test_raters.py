"""Raters with a scale of their own are told: the other way round, or of other numbers."""

import pytest
from inspector_training.rows.rated import LabelReader, label_report
from inspector_training.rows.raters import rank_correlation, rater_warnings
from inspector_training.rows.scales import find_scale, nearly_number
from inspector_training.rows.understood import understand_labels
from scipy.stats import spearmanr

from inspector_pipeline.errors import DataFileError

ANNA = [1 + (i * 7) % 5 for i in range(20)]
BEN = [min(5, max(1, one + (i % 4 == 0))) for i, one in enumerate(ANNA)]
REVERSED = [6 - one for one in ANNA]


def told(aspect, **ratings):
    return rater_warnings(aspect, ratings)


def test_the_rater_whose_scale_is_reversed_is_named():
    assert told("wit", anna=ANNA, ben=BEN) == [] == told("wit", anna=ANNA, ben=BEN, cleo=ANNA)
    (line,) = told("wit", anna=ANNA, ben=BEN, cleo=REVERSED)
    assert line.startswith(
        "wit: the labels of 'cleo' run against the others (rank correlation -1.00 on 20 responses)"
    ) or ("'cleo' run against the others" in line)
    (line,) = told("wit", anna=ANNA, cleo=REVERSED)
    both = "wit: the labels of 'anna' and 'cleo' run against each other"
    assert line == f"{both} (rank correlation -1.00 on 20 responses): is a scale reversed?"
    assert told("wit", anna=ANNA[:9], cleo=REVERSED[:9]) == [], "too few to tell"
    assert told("wit", anna=ANNA, ben=[None] * 12 + REVERSED[12:]) == []
    assert told("wit", anna=ANNA, ben=[3] * 20) == []


def test_a_rater_on_another_scale_is_named():
    (line,) = told("wit", anna=ANNA, ben=[20 * one for one in ANNA])
    assert line == "wit: the labels of 'ben' reach 100 and those of 'anna' 5: do they use the same scale?"
    assert told("wit", anna=ANNA, ben=[2 * one for one in ANNA]) and not told("wit", anna=[0, 1] * 6, ben=[1, 1] * 6)


@pytest.mark.parametrize("other", [BEN, REVERSED, [1, 2, 2, 3] * 5])
def test_the_rank_correlation_is_spearman_s(other):
    assert rank_correlation(ANNA, other) == pytest.approx(spearmanr(ANNA, other).statistic, abs=1e-9)
    assert rank_correlation(ANNA, [1] * 20) is None


def test_warnings_reach_the_report_from_columns_and_from_rows():
    columns = [
        {"q": f"Q{i}", "anna": one, "cleo": other} for i, (one, other) in enumerate(zip(ANNA, REVERSED, strict=True))
    ]
    assert "'anna' and 'cleo' run against" in LabelReader(columns, {"wit": "anna+cleo"}, {}, {}, {}).warnings[0]
    people = {"anna": ANNA, "ben": BEN, "cleo": REVERSED}
    table = [{"id": i, "wit": own[i], "rater": name} for name, own in people.items() for i in range(20)]
    reader = LabelReader(table, {"wit": "wit"}, {}, {}, {})
    rows = [
        {"id": row["id"], "question": f"Q{row['id']}?", "prediction": "x", "generator": None, "rater": row["rater"]}
        | reader.read(row, n)
        for n, row in enumerate(table)
    ]
    settled = reader.settle(rows, merge=True)
    report = label_report(reader.accounts, settled, {}, reader.warnings)
    assert "'cleo' run against the others" in report["warnings"][0]
    assert "raters agree less than by chance (Krippendorff's alpha -0." in report["warnings"][1]


@pytest.mark.parametrize(
    ("cells", "says"),
    [
        (["85%", "90 %", "70%"], "written otherwise: write it without the percent sign, in every row"),
        (["3,5", "4,0", "2,5"], "written otherwise: write it with a point, in every row"),
        (["4/5", "3/5", "5 / 5"], "written otherwise: write the first number alone, in every row"),
        ([f"2026-11-{day:02}" for day in range(1, 29)], "28 different texts or dates: are these the labels?"),
        ([f"I like reply {i}." for i in range(25)], "25 different texts or dates: are these the labels?"),
        (["good", "bad", "good"], "State the scale, lowest first"),
    ],
)
def test_labels_that_are_written_otherwise_are_refused_with_what_to_do(cells, says):
    with pytest.raises(DataFileError, match="expect numbers, or words whose order is stated, but are") as caught:
        find_scale(cells, {}, None, "wit")
    assert says in str(caught.value)
    rows = [{"question": f"Q{i}", "prediction": "a", "wit": cell} for i, cell in enumerate(cells)]
    with pytest.raises(DataFileError, match="expects a column of labels") as caught:
        understand_labels(rows, {"question": "question"}, "prediction", None, {}, {}, {})
    assert ("'wit' holds" in str(caught.value)) == (nearly_number(cells[0]) is not None)


def test_a_few_that_are_written_otherwise_are_told_as_such():
    scale = find_scale([1, 2, 3, 4, 5] * 10 + ["3,5", " 4 ", "80%"], {}, None, "wit")
    assert [scale.read(cell) for cell in ("3,5", " 4 ", "80%")] == [
        (None, "'3,5' is no number (write it with a point)"),
        (4, None),
        (None, "'80%' is no number (write it without the percent sign)"),
    ]
    mixed = find_scale(["yes", "0", "No", "1", 1, True] * 5, {}, None, "wit")
    assert [mixed.read(cell)[0] for cell in ("yes ", "no", "1", "0", True)] == [1, 0, 1, 0, 1]
