"""What stands beside a pair: text where its column is named, left as it is where a column is only called so."""

import pytest
from inspector_training.rows.columns import Columns, UnusableRowError, map_row

ROW = {"q": "Who?", "passages": ["One.", "Two."], "gold": 42, "context": {"kept": [1]}}


def test_a_context_and_a_reference_come_from_named_columns():
    columns = Columns(question="q", context="passages", reference="gold").resolve([ROW], "table")
    row = map_row(ROW, columns)
    assert (row["context"], row["reference"]) == ("One.\n\nTwo.", "42")
    assert "reference" not in map_row({**ROW, "gold": " "}, columns), "a blank one is none"
    with pytest.raises(UnusableRowError, match="the context is dict, not text"):
        map_row({**ROW, "passages": {"a": 1}}, columns)


def test_what_is_only_called_so_stays_as_it_is():
    columns = Columns(question="q").resolve([ROW], "table")
    assert map_row(ROW, columns)["context"] == {"kept": [1]}
    assert map_row({**ROW, "context": "Text."}, columns)["context"] == "Text."
