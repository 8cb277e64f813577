"""Labels on any scale: what is read, what is good, what several raters make, and that nothing vanishes in silence."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from inspector_training.rows.labels import TIED, agreement, kind_of, settle
from inspector_training.rows.rated import LabelReader, label_lines, label_report
from inspector_training.rows.records import Levels, is_good
from inspector_training.rows.scales import BLANK, find_scale, stated_scale, usual_good

from inspector_pipeline.errors import DataFileError


def scale_of(cells, stated=None, words=(), good=None):
    return find_scale(cells, dict(words), stated, "quality").with_good(good, "quality")


@pytest.mark.parametrize(
    ("cells", "told", "good"),
    [
        (["0", "1", 1, ""], "0 and 1", "1"),
        ([True, False, None], "0 and 1", "1"),
        (["yes", "No", "TRUE"], "0 and 1", "1"),
        ([1, 2, 5, 3], "1 to 5", "4 and more"),
        (["3.5", "4", "1.5", "5"], "1 to 5", "4 and more"),
        ([1, 7, 3], "1 to 7", "6 and more"),
        ([0, 3, 9], "0 to 10", "8 and more"),
        ([2, 8, 10], "1 to 10", "8 and more"),
        ([0, 1, 2, 2], "0 to 2", "2"),
        ([1, 2, 3, 3], "1 to 3", "3"),
        ([0, 25, 100, 50], "0 to 100", "75 and more"),
        ([-1, 0, 1], "-1 to 1", "1"),
    ],
)
def test_a_scale_is_what_the_labels_look_like_and_says_what_is_good(cells, told, good):
    scale = scale_of(cells)
    assert (scale.describe(), scale.describe_good(), scale.is_stated) == (told, good, False)


def test_words_need_a_stated_order_and_keep_it():
    with pytest.raises(DataFileError, match=r"whose order is stated, but are 'fair' \(2\), 'good' \(1\), 'bad' \(1\)"):
        scale_of(["fair", "good", "fair", "bad"])
    scale = scale_of(["fair"], "bad < fair < good")
    assert [scale.read(cell) for cell in (" Bad", "fair", "GOOD", "")] == [
        (1, None),
        (2, None),
        (3, None),
        (None, BLANK),
    ]
    assert scale.read("goood") == (None, "'goood' is none of bad, fair, good")
    assert (scale.describe(), scale.describe_good()) == ("bad < fair < good", "good")
    assert scale_of(["fair"], "bad<fair<good", good="fair").describe_good() == "fair or good"
    with pytest.raises(DataFileError, match=r"good expects a level of quality \(bad < fair < good\), but 'fine' is"):
        scale_of(["fair"], "bad<fair<good", good="fine")


@pytest.mark.parametrize("text", ["bad", "bad<<good", "bad<Bad", "5..1", "1-5"])
def test_a_scale_that_is_none_is_refused(text):
    with pytest.raises(DataFileError, match="expects words in order"):
        stated_scale(text, "quality")


def test_a_stated_range_holds_what_lies_in_it_alone():
    scale = scale_of([3, 4], "0..10", good="7")
    assert scale.read("9.5") == (9.5, None) and scale.read(11) == (None, "'11' lies outside 0 to 10")
    assert scale.describe_good() == "7 and more" and scale.good_is_stated


def test_a_slip_of_the_keyboard_is_no_level_and_moves_no_bound():
    cells = [1, 2, 3, 4, 5] * 20 + ["44", "4;", 4.3]
    scale = scale_of(cells)
    assert scale.describe() == "1 to 5"
    assert [scale.read(cell)[1] for cell in cells[-3:]] == [
        "'44' lies outside 1 to 5",
        "'4;' is no number",
        "'4.3' is no multiple of 0.5",
    ]
    assert [kind_of(scale.read(cell)[1]) for cell in cells[-2:]] == ["is no number", "is no multiple of 0.5"]


def test_real_numbers_become_the_means_of_parts_of_like_size():
    cells = np.random.default_rng(0).normal(size=800).round(4)
    scale = scale_of(cells.tolist(), "real")
    levels = np.array([scale.level(cell) for cell in cells])
    assert len(scale.means) == 8 and "as 8 levels" in scale.describe()
    for level in scale.means:
        own = cells[levels == level]
        assert 90 <= len(own) <= 110 and own.mean() == pytest.approx(level, abs=1e-6)
    assert is_good(levels, Levels(scale.means, scale.good)).mean() == pytest.approx(0.5, abs=0.01)
    assert float(np.float32(scale.means[0])) == scale.means[0], "a config's float32 tensors hold the levels exactly"
    assert len(scale_of(list(range(101))).means) == 8, "more levels than can be told apart"


@settings(deadline=None)
@given(st.lists(st.floats(-100, 100, allow_nan=False), min_size=1, max_size=60))
def test_what_is_read_is_never_changed_but_for_levels_of_real_numbers(numbers):
    scale = scale_of(numbers)
    for number in numbers:
        found, reason = scale.read(number)
        assert (found is None) != (reason is None)
        if found is not None:
            assert found == number
            assert scale.level(found) == number or scale.level(found) in scale.means


def test_good_levels_are_said_or_usual():
    assert [usual_good(*ends) for ends in ((0, 1), (1, 5), (0, 5), (1, 3), (1, 7), (0, 10), (1, 9))] == [
        *(1, 4, 4, 3, 6, 8, 7),
    ]
    labels = np.array([0, 5, 6, 10])
    assert is_good(labels, Levels([0, 5, 6, 10], good=6)).tolist() == [False, False, True, True]
    assert is_good(labels, Levels([0, 5, 6, 10])).tolist() == is_good(labels, [0, 5, 6, 10]).tolist()


def test_several_raters_make_a_median_and_a_weight():
    five, binary = scale_of([1, 5, 3]), scale_of([0, 1])
    assert settle([2, 5, 5], five).level == 5 and settle([2, 5, 5], five).weight == pytest.approx(2 / 3)
    assert settle([2, 5], five) == settle([5, 2], five) and settle([2, 5], five).level == 2
    assert (settle([0, 1], binary).level, settle([0, 1], binary).reason) == (None, TIED)
    assert settle([0, 1, 1], binary).level == 1 and settle([3.5], five).level == 3.5


def test_alpha_is_that_of_krippendorffs_own_example():
    """Computing Krippendorff's alpha-reliability (2011), section D: four observers, twelve units, missing data."""
    observers = [
        [1, 2, 3, 3, 2, 1, 4, 1, 2, 0, 0, 0],
        [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, 0, 3],
        [0, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, 0],
        [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, 0],
    ]
    units = [[row[u] for row in observers if row[u]] for u in range(12)]
    assert agreement(units, "nominal") == pytest.approx(0.743, abs=5e-4)
    assert agreement(units, "ordinal") == pytest.approx(0.815, abs=5e-4)
    assert agreement(units, "interval") == pytest.approx(0.849, abs=5e-4)
    assert agreement([[1, 1], [2, 2]], "nominal") == 1 and agreement([[1], [2, 2]], "nominal") is None


def read(rows, label=None, *, merge=False, allow=True, **options):
    reader = LabelReader(rows, label or {"quality": "quality"}, {}, options.get("scales", {}), options.get("good", {}))
    read_rows = [{**row, "id": row.get("id", i), **reader.read(row, i)} for i, row in enumerate(rows)]
    return reader, reader.settle(read_rows, merge=merge, allow_unreadable=allow)


def rated(n, label):
    texts = {"question": "Why?", "prediction": "Because."}
    return [{**texts, "prediction": f"Because of {i}.", "quality": label(i)} for i in range(n)]


def test_a_typo_in_five_of_a_hundred_is_an_error_that_names_the_switch():
    rows = rated(100, lambda i: "gooood" if i % 20 == 3 else ("bad", "fair", "good")[i % 3])
    said = (
        r"quality expects labels of bad < fair < good, but 5 of 100 \(5.0%\) cannot be read: row 3: 'gooood' is none "
        r"of bad, fair, good; row 23: .*; row 43: 'gooood' .* --allow-unreadable"
    )
    with pytest.raises(DataFileError, match=said):
        read(rows, allow=False, scales={"quality": "bad<fair<good"})
    reader, found = read(rows, scales={"quality": "bad<fair<good"})
    told = label_report(reader.accounts, found, {})["aspects"]["quality"]
    assert (told["n"], told["blank"], told["unused"]) == (95, 0, {"is none of bad, fair, good": 5})
    assert found[3]["scores"] == {"quality": None} and found[3]["reasons"] == {
        "quality": "'gooood' is none of bad, fair, good"
    }
    few = rated(100, lambda i: "gooood" if i == 3 else ("bad", "fair", "good")[i % 3])
    reader, _ = read(few, allow=False, scales={"quality": "bad<fair<good"})
    assert reader.accounts["quality"].unused.total() == 1, "a slip is counted, too"


def test_blank_labels_are_counted_and_no_fault():
    reader, found = read(rated(100, lambda i: "" if i % 10 < 3 else 1 + i % 5), allow=False)
    report = label_report(reader.accounts, found, {"the prediction is blank": 2})
    assert report["aspects"]["quality"] | {"n": 70, "blank": 30, "unused": {}} == report["aspects"]["quality"]
    assert report["rejected"] == {"the prediction is blank": 2} and report["generators"] == {"not stated": 100}
    lines = list(label_lines(report))
    assert lines[0] == (
        "quality: 70 labels of 1 to 5 (as the labels look), 30 blank; good is 4 and more (by the usual rule)"
    )
    assert lines[1:] == ["generators: not stated (100)", "domains: not stated (100)"]


def numbers_with_ids(rows):
    return [row | {"id": row["question"]} for row in rows]


def test_swapped_columns_are_told():
    rows = [
        {"question": f"Answer {i}.", "prediction": f"Why {i % 5}?", "helpful": 5, "polite": i % 2} for i in range(40)
    ]
    reader, found = read(rows, {"helpful": "polite"})
    warnings = label_report(reader.accounts, found, {}, reader.warnings)["warnings"]
    assert warnings == [
        "helpful is read from the column 'polite' and not from 'helpful': are they swapped?",
        "40 rows hold 40 different questions but only 5 different responses: are question and prediction swapped?",
        "40 of 40 responses end with a question mark but only 0 questions do: are question and prediction swapped?",
    ]
    numbers = [{"question": str(i % 5), "prediction": f"Because of {i}.", "quality": 1 + i % 5} for i in range(10)]
    assert label_report({}, numbers_with_ids(numbers), {})["warnings"] == [
        "10 of 10 questions are a bare number: is that the column of the questions?"
    ]
    with pytest.raises(DataFileError, match="expect numbers, or words whose order is stated, but are 'Answer 0.'"):
        read(rows, {"helpful": "question"})


def test_raters_stand_in_columns_or_in_rows_of_one_response():
    rows = [{"id": i, "question": "Q", "prediction": "A", "a": i % 5 + 1, "b": i % 5 + 1, "c": ""} for i in range(9)]
    rows[0] |= {"b": 3, "c": 3}
    reader, found = read(rows, {"quality": "a+b+c"})
    assert found[0]["scores"] == {"quality": 3} and found[0]["ratings"] == {"quality": [1, 3, 3]}
    assert found[0]["weights"] == {"quality": 0.666667} and "weights" not in found[1]
    raters = label_report(reader.accounts, found, {})["aspects"]["quality"]["raters"]
    assert (raters["most"], raters["rated_twice"], raters["metric"]) == (3, 9, "ordinal") and 0.8 < raters["alpha"] < 1
    twice = [{"id": 1, "question": "Q", "prediction": text, "quality": label} for text in "ab" for label in (0, 1, 1)]
    reader, found = read(twice, merge=True)
    assert [row["scores"] for row in found] == [{"quality": 1}] * 2
    assert [row["ratings"]["quality"] for row in found] == [[0, 1, 1]] * 2
    assert len(read(twice)[1]) == 6
    with pytest.raises(DataFileError, match="good expects aspects"):
        read(twice, good={"other": "1"})


def test_real_labels_keep_what_they_were():
    reader, found = read(rated(200, lambda i: i / 7), good={"quality": "20"})
    assert found[10]["raw_labels"] == {"quality": pytest.approx(10 / 7)}
    told = label_report(reader.accounts, found, {})["aspects"]["quality"]
    assert (
        told["good_from"] == 20
        and told["good_stated"]
        and math.isclose(sum(r["scores"]["quality"] >= 20 for r in found), 60, abs_tol=26)
    )
