"""What stands beside a pair: text where its column is named, left as it is where a column is only called so."""

import pytest
from inspector_training.rows.columns import Columns, UnusableRowError, map_row
from inspector_training.rows.compared import Compared, compared_rows
from inspector_training.rows.rated import LabelReader
from inspector_training.rows.sources import Source, make_rows

ROW = {"q": "Who?", "passages": ["One.", "Two."], "gold": 42, "context": {"kept": [1]}}


def test_a_context_and_a_reference_come_from_named_columns():
    columns = Columns(question="q", context="passages", reference="gold").resolve([ROW], "table")
    row = map_row(ROW, columns)
    assert (row["context"], row["reference"]) == ("One.\n\nTwo.", "42")
    assert "reference" not in map_row({**ROW, "gold": " "}, columns), "a blank one is none"
    with pytest.raises(UnusableRowError, match="the context is dict, not text"):
        map_row({**ROW, "passages": {"a": 1}}, columns)
    with pytest.raises(UnusableRowError, match="the reference is blank"):
        map_row({**ROW, "gold": " "}, columns, ("context", "reference"))


def test_compared_responses_and_raters_are_told_apart_by_context():
    pair = {"q": "Who?", "chosen": "Ada.", "rejected": "Nobody."}
    rows = [{**pair, "context": f"Of {name}."} for name in ("Ada", "Bea")] + [{**pair, "context": ""}]
    source, columns = Source("table", None, rows), Columns("q", context="context", needed=("context",))
    found, rejects, _ = compared_rows(source, columns, Compared("chosen", "rejected"))
    assert [row["context"] for row in found] == ["Of Ada."] * 2 + ["Of Bea."] * 2
    assert len({row["id"] for row in found}) == 2 and [one.reason for one in rejects] == ["the context is blank"]
    rated = [{"q": "Who?", "prediction": "Ada.", "wit": i % 2, **row} for i, row in enumerate(rows[:2])]
    reader = LabelReader(rated, {"wit": "wit"}, {}, {}, {})
    named = Columns("q", prediction="prediction", label={"wit": "wit"})
    made, _ = make_rows(Source("table", None, rated), named, labels=reader)
    assert len(reader.settle(made, merge=True)) == 2


def test_what_is_only_called_so_stays_as_it_is():
    columns = Columns(question="q").resolve([ROW], "table")
    assert map_row(ROW, columns)["context"] == {"kept": [1]}
    assert map_row({**ROW, "context": "Text."}, columns)["context"] == "Text."
