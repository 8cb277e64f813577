"""What people said with a labelling tool reaches `inspector train` as labels, from every form that the tools export."""

import json

import pytest
from inspector_training.rows.rated import LabelReader
from inspector_training.rows.reading import as_comparisons, as_pairs, hold_turns, with_ids_of_questions
from inspector_training.rows.understood import understand_labels

from inspector_pipeline.errors import DataFileError
from inspector_pipeline.label_tools import with_plain_labels

N = 12
RATED = [(1 + i % 5, 1 + (i + i // 5) % 5) for i in range(N)]  # by two people
WORDS = ("bad", "fair", "good")
NAMES = {"question": "question", "prediction": "prediction"}


def studio_annotation(person, stars, word, *, cancelled=False):
    result = [
        {"from_name": "stars", "to_name": "answer", "type": "rating", "value": {"rating": stars}},
        {"from_name": "quality", "to_name": "answer", "type": "choices", "value": {"choices": [word]}},
        {"from_name": "said", "to_name": "answer", "type": "textarea", "value": {"text": ["fine by me"]}},
        {"from_name": "span", "to_name": "answer", "type": "labels", "value": {"start": 0, "end": 3}},
    ]
    return {"id": person, "completed_by": person, "was_cancelled": cancelled, "lead_time": 4.5, "result": result}


def studio(i):
    both = [studio_annotation(person, stars, WORDS[stars // 2]) for person, stars in enumerate(RATED[i], start=1)]
    skipped = [studio_annotation(3, 1, "bad", cancelled=True)] * (i % 3 == 0)
    counts = {"total_annotations": 2 + i % 3, "comment_count": i % 2, "inner_id": i, "project": 3, "drafts": []}
    return {"id": i, "data": {"prompt": f"Q{i}?", "answer": f"A {i}."}, "annotations": both + skipped, **counts}


def studio_table(i, person, stars):
    own = {"id": i, "annotator": person, "annotation_id": 9 * i + person, "lead_time": 4.5, "updated_at": "2026-11-01"}
    return {"prompt": f"Q{i}?", "answer": f"A {i}.", "quality": WORDS[stars // 2], "stars": [{"rating": stars}], **own}


def argilla_1(i):
    answers = [
        {"user_id": f"u{n}", "status": "submitted", "values": {"stars": {"value": stars}, "said": {"value": "fine"}}}
        for n, stars in enumerate(RATED[i])
    ]
    answers += [{"user_id": "u9", "status": "discarded", "values": {"stars": {"value": 1}}}] * (i % 3 == 0)
    suggestions = [{"question_name": "stars", "value": 3}]
    fields = {"fields": {"prompt": f"Q{i}?", "response": f"A {i}."}, "metadata": {}, "external_id": f"e{i}"}
    return {**fields, "responses": answers, "suggestions": suggestions}


def argilla_1_on_the_hub(i):
    users = [{"user_id": f"u{n}", "value": stars, "status": "submitted"} for n, stars in enumerate(RATED[i])]
    users += [{"user_id": "u9", "value": 1, "status": "discarded"}]
    return {"prompt": f"Q{i}?", "response": f"A {i}.", "stars": users, "stars-suggestion": 1 + i % 4, "metadata": "{}"}


def argilla_1_as_columns(i):
    users = {"user_id": ["u0", "u1"], "value": list(RATED[i]), "status": ["submitted", "submitted"]}
    return {"prompt": f"Q{i}?", "response": f"A {i}.", "stars": users, "external_id": None}


def argilla_2(i):
    answers = {"stars": [{"value": stars, "user_id": f"u{n}"} for n, stars in enumerate(RATED[i])]}
    suggestions = {"stars": {"value": 1 + i % 4, "score": None, "agent": "m"}}
    fields = {"id": f"a{i}", "fields": {"prompt": f"Q{i}?", "response": f"A {i}."}, "status": "completed"}
    return {**fields, "responses": answers, "suggestions": suggestions, "vectors": {}, "metadata": {}}


def argilla_2_flat(i):
    users = {"stars.responses.users": ["u0", "u1", "u2"], "stars.responses.status": ["submitted", "submitted", "draft"]}
    suggested = {"stars.suggestion": 1 + i % 4, "stars.suggestion.score": 0.5}
    pair = {"prompt": f"Q{i}?", "response": f"A {i}.", "id": f"a{i}", "status": "completed"}
    return {**pair, "stars.responses": [*RATED[i], 1], **users, **suggested}


EXPORTS = {
    "Label Studio": [studio(i) for i in range(N)],
    "Label Studio's JSON-MIN": [studio_table(i, n, one) for i in range(N) for n, one in enumerate(RATED[i], start=1)],
    "Label Studio's CSV": [
        studio_table(i, n, one) | {"stars": json.dumps([{"rating": one}])}
        for i in range(N)
        for n, one in enumerate(RATED[i], start=1)
    ],
    "Argilla 1": [argilla_1(i) for i in range(N)],
    "Argilla 1, on the Hub": [argilla_1_on_the_hub(i) for i in range(N)],
    "Argilla 1, as columns": [argilla_1_as_columns(i) for i in range(N)],
    "Argilla 2": [argilla_2(i) for i in range(N)],
    "Argilla 2, flat": [argilla_2_flat(i) for i in range(N)],
}


@pytest.mark.parametrize("tool", EXPORTS)
def test_every_export_gives_both_people_s_stars_and_nothing_else_for_labels(tool):
    table = as_pairs(EXPORTS[tool], NAMES, "The table")
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
