"""What labelling tools export: two people gave each response one to five stars, what a third one said is no label."""

import json

WORDS = ("bad", "fair", "good")


def studio_annotation(person, stars, word, *, cancelled=False):
    result = [
        {"from_name": "stars", "to_name": "answer", "type": "rating", "value": {"rating": stars}},
        {"from_name": "quality", "to_name": "answer", "type": "choices", "value": {"choices": [word]}},
        {"from_name": "said", "to_name": "answer", "type": "textarea", "value": {"text": ["fine by me"]}},
        {"from_name": "span", "to_name": "answer", "type": "labels", "value": {"start": 0, "end": 3}},
    ]
    return {"id": person, "completed_by": person, "was_cancelled": cancelled, "lead_time": 4.5, "result": result}


def studio(i):
    both = [studio_annotation(person, stars, WORDS[stars // 2]) for person, stars in enumerate(rated(i), start=1)]
    skipped = [studio_annotation(3, 1, "bad", cancelled=True)] * (i % 3 == 0)
    counts = {"total_annotations": 2 + i % 3, "comment_count": i % 2, "inner_id": i, "project": 3, "predictions": []}
    return {"id": i, "data": {"prompt": f"Q{i}?", "answer": f"A {i}."}, "annotations": both + skipped, **counts}


def studio_table(i, person, stars):
    own = {"id": i, "annotator": person, "annotation_id": 9 * i + person, "lead_time": 4.5, "updated_at": "2026-11-01"}
    return {"prompt": f"Q{i}?", "answer": f"A {i}.", "quality": WORDS[stars // 2], "stars": [{"rating": stars}], **own}


def argilla_1(i):
    answers = [
        {"user_id": f"u{n}", "status": "submitted", "values": {"stars": {"value": stars}, "said": {"value": "fine"}}}
        for n, stars in enumerate(rated(i))
    ]
    answers += [{"user_id": "u9", "status": "discarded", "values": {"stars": {"value": 1}}}] * (i % 3 == 0)
    suggestions = [{"question_name": "stars", "value": 3}]
    fields = {"fields": {"prompt": f"Q{i}?", "response": f"A {i}."}, "metadata": {}, "external_id": f"e{i}"}
    return {**fields, "responses": answers, "suggestions": suggestions}


def argilla_1_on_the_hub(i):
    users = [{"user_id": f"u{n}", "value": stars, "status": "submitted"} for n, stars in enumerate(rated(i))]
    users += [{"user_id": "u9", "value": 1, "status": "discarded"}]
    return {"prompt": f"Q{i}?", "response": f"A {i}.", "stars": users, "stars-suggestion": 1 + i % 4, "metadata": "{}"}


def argilla_1_as_columns(i):
    users = {"user_id": ["u0", "u1"], "value": list(rated(i)), "status": ["submitted", "submitted"]}
    return {"prompt": f"Q{i}?", "response": f"A {i}.", "stars": users, "external_id": None}


def argilla_2(i):
    answers = {"stars": [{"value": stars, "user_id": f"u{n}"} for n, stars in enumerate(rated(i))]}
    suggestions = {"stars": {"value": 1 + i % 4, "score": None, "agent": "m"}}
    fields = {"id": f"a{i}", "fields": {"prompt": f"Q{i}?", "response": f"A {i}."}, "status": "completed"}
    return {**fields, "responses": answers, "suggestions": suggestions, "vectors": {}, "metadata": {}}


def argilla_2_flat(i):
    users = {"stars.responses.users": ["u0", "u1", "u2"], "stars.responses.status": ["submitted", "submitted", "draft"]}
    suggested = {"stars.suggestion": 1 + i % 4, "stars.suggestion.score": 0.5}
    pair = {"prompt": f"Q{i}?", "response": f"A {i}.", "id": f"a{i}", "status": "completed"}
    return {**pair, "stars.responses": [*rated(i), 1], **users, **suggested}


def rated(i):
    """What the two people said of a response."""
    return 1 + i % 5, 1 + (i + i // 5) % 5


def studio_tables(i):
    return [studio_table(i, person, stars) for person, stars in enumerate(rated(i), start=1)]


EXPORTS = {  # the rows of one response
    "Label Studio": lambda i: [studio(i)],
    "Label Studio's JSON-MIN": studio_tables,
    "Label Studio's CSV": lambda i: [row | {"stars": json.dumps(row["stars"])} for row in studio_tables(i)],
    "Argilla 1": lambda i: [argilla_1(i)],
    "Argilla 1, on the Hub": lambda i: [argilla_1_on_the_hub(i)],
    "Argilla 1, as columns": lambda i: [argilla_1_as_columns(i)],
    "Argilla 2": lambda i: [argilla_2(i)],
    "Argilla 2, flat": lambda i: [argilla_2_flat(i)],
}


def exported(tool, n):
    """Return a tool's rows of n responses."""
    return [row for i in range(n) for row in EXPORTS[tool](i)]
