"""What people said with a labelling tool reaches `inspector train` as labels, from every form that the tools export."""

import pytest
from inspector_training.rows.rated import LabelReader
from inspector_training.rows.reading import (
    as_comparisons,
    as_pairs,
    column_of_responses,
    hold_turns,
    with_ids_of_questions,
    with_inner_columns,
)
from inspector_training.rows.understood import understand_labels
from support.label_exports import EXPORTS, argilla_1, exported, rated, studio

from inspector_pipeline.errors import DataFileError
from inspector_pipeline.label_tools import with_plain_labels

N = 12
RATED = [rated(i) for i in range(N)]
NAMES = {"question": "question", "prediction": "prediction"}


@pytest.mark.parametrize("tool", EXPORTS)
def test_every_export_gives_both_people_s_stars_and_nothing_else_for_labels(tool):
    table = as_pairs(exported(tool, N), NAMES, "The table")
    question, prediction = (
        next(name for name in names if name in table[0])
        for names in (("question", "prompt"), ("prediction", "answer", "response"))
    )
    found = understand_labels(table, {"question": question}, prediction, None, {}, {}, {})
    assert list(found.aspects) == ["stars"] and "1 to 5" in found.told
    labels = LabelReader(table, {"stars": "stars"}, {}, {}, {})
    rows = [
        {"id": row[question], "prediction": row[prediction], "generator": None, **labels.read(row, n)}
        for n, row in enumerate(table)
    ]
    settled = labels.settle(rows, merge=True, allow_unreadable=False)
    assert [row["scores"]["stars"] for row in settled] == [min(both) for both in RATED]
    assert [row["ratings"]["stars"] for row in settled] == [list(map(float, both)) for both in RATED]
    assert labels.accounts["stars"].blank == 0 and not labels.accounts["stars"].unused


def test_choices_rankings_and_pairs_are_one_text_each_and_what_is_no_label_stays():
    ranked = [{"rank": 2, "value": "b"}, {"rank": 1, "value": "a"}]
    record = argilla_1(0) | {
        "responses": [{"user_id": "u", "values": {"best": {"value": ranked}, "tags": {"value": ["x"]}}}]
    }
    pair = {"from_name": "better", "type": "pairwise", "value": {"selected": "left"}}
    several = {"from_name": "tags", "type": "choices", "value": {"choices": ["x", "y"]}}
    task = studio(0) | {"annotations": [{"result": [pair, several]}, {"result": [pair]}, {"result": []}]}
    rows = [as_pairs([one], NAMES, "The table")[0] for one in (record, task)]
    assert (rows[0]["best"], rows[0]["tags"]) == ("a, b", "x")
    assert (rows[1]["better"], rows[1]["tags"]) == (["left", "left"], "x, y")
    for row in (
        {"a": [{"role": "user", "content": "x"}], "b": [{"text": "x"}]},
        {"a": "[{", "b": '[{"x": 1}]', "c": []},
    ):
        assert with_plain_labels([row]) == [row]


def test_columns_within_a_tool_s_rows_may_be_named_and_pairs_need_no_response():
    named = as_pairs(exported("Label Studio", 2), {"question": "prompt", "prediction": "answer"}, "The table")
    assert [(row["prompt"], row["answer"], row["stars"]) for row in named] == [
        ("Q0?", "A 0.", [1, 1]),
        ("Q1?", "A 1.", [2, 2]),
    ]
    pair = {"from_name": "better", "type": "pairwise", "value": {"selected": "left"}}
    given = {"prompt": "Q?", "answer1": "a", "answer2": "b"}
    task = studio(0) | {"data": given, "annotations": [{"result": [pair]}]}
    (row,) = as_pairs([task], NAMES, "The table", answered=False)
    assert (row["question"], row["answer1"], row["answer2"], row["better"]) == ("Q?", "a", "b", "left")
    with pytest.raises(
        DataFileError, match="has two responses a row. Learn which is better: .* --responses answer1 answer2"
    ):
        as_pairs([task], NAMES, "The table")
    assert as_pairs([{**task, "annotations": [7]}], {"question": "prompt"}, "The table") == [
        {**task, "annotations": [7]}
    ]


def test_conversations_that_are_compared_follow_the_same_turns():
    asked = [{"role": "user", "content": "Why?"}]
    rows = [
        {
            "conversation_a": [*asked, {"role": "assistant", "content": "So."}],
            "conversation_b": [
                *asked,
                {"role": "assistant", "content": [{"type": "text", "text": "Thus.", "image": None}]},
            ],
            "winner": "model_b",
        },
        {
            "conversation_a": [
                *asked,
                {"role": "assistant", "content": "So."},
                *asked,
                {"role": "assistant", "content": "A."},
            ],
            "conversation_b": [
                *asked,
                {"role": "assistant", "content": "No."},
                *asked,
                {"role": "assistant", "content": "B."},
            ],
            "winner": "tie",
        },
    ]
    sides = ("conversation_a", "conversation_b")
    assert hold_turns(rows, sides) and not hold_turns([{"conversation_a": "x"}], sides)
    first, second = as_comparisons(rows, "question", sides, "The table")
    assert (first["question"], first["chosen"], first["rejected"], first["winner"]) == (
        "Why?",
        "So.",
        "Thus.",
        "model_b",
    )
    assert second["question"] is None and second["winner"] == "tie"
    with pytest.raises(
        DataFileError, match="expects two responses to the same turns, but none of its 1 rows holds such"
    ):
        as_comparisons(rows[1:], "question", sides, "The table")
    turns = {"context": [*asked, {"role": "assistant", "content": "So."}, *asked], "response1": "x", "response2": "y"}
    (row,) = as_comparisons([turns], "context", ("response1", "response2"), "The table")
    assert (row["chosen"], row["rejected"]) == ("x", "y") and [one["content"] for one in row["question_turns"]][
        1
    ] == "So."
    several = as_pairs([{"prompt": "Why?", "chosen": ["a"], "rejected": ["b", "c"], "id": 7}], NAMES, "The table")
    assert [(row["chosen"], row["rejected"], row["id"]) for row in several] == [("a", "b", 7), ("a", "c", 7)]


def test_ids_that_number_rows_are_no_questions(caplog):
    rows = [{"id": i, "q": f"Q{i // 2}?", "a": f"A{i}"} for i in range(6)]
    assert with_ids_of_questions(rows[::2], "q") is not rows and "id" in with_ids_of_questions(rows[::2], "q")[0]
    assert not caplog.records
    found = with_ids_of_questions(rows, "q")
    assert [row["row_id"] for row in found] == list(range(6)) and all("id" not in row for row in found)
    assert "3 questions come again under another one" in caplog.text


def test_what_tools_count_is_no_label_and_is_told(caplog):
    caplog.set_level("INFO", "inspector_training")
    rows = [
        {"question": f"Q{i}", "prediction": "a", "annotator": 1 + i % 3, "turn": 1 + i % 2, "doc_id": i}
        for i in range(9)
    ]
    with pytest.raises(DataFileError, match="expects a column of labels"):
        understand_labels(rows, {"question": "question"}, "prediction", None, {}, {}, {})
    assert (
        "Columns that are no labels: 'annotator', 'turn', 'doc_id'." in caplog.text and "state its" not in caplog.text
    )


def test_a_response_under_its_usual_name_and_labels_within_objects_are_found():
    rows = [{"question": "Q", "response": "A", "scores": {"match": {"value": "C"}}}] * 2
    assert column_of_responses(rows, "prediction") == "response" and column_of_responses(rows, "text") == "text"
    for other in ({"answer": "B"}, {"prediction": "B"}, {"chosen": "a", "rejected": "b"}, {"response": ["a", "b"]}):
        assert column_of_responses([rows[0] | other], "prediction") == "prediction"
    assert with_inner_columns(rows, ["scores.match.value", "scores.no", "question"])[0] == {
        **rows[0],
        "scores.match.value": "C",
    }
    assert with_inner_columns(rows, ["question", "no.where"]) is rows
