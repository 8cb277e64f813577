"""The audit finds what a generator that shares none of its code has seeded, and what is known of the real data."""

import json
import random

import pytest
from inspector_training.audits.report import audit_summary
from inspector_training.audits.similarity import numbers, plain, tokens
from inspector_training.rows.records import read_records
from inspector_training.stages.audit import Config as AuditConfig
from inspector_training.stages.audit import audit
from support.seeded_faults import (
    EDITS,
    SHIFTS,
    TARGETS,
    gsm8k_rows,
    precision_recall,
    probing_rows,
    seed_faults,
    vicuna_rows,
)

from inspector_pipeline.errors import DataFileError

PROBING = "reference/Meta-Llama-3-8B-Instruct_gsm8k_roscoe5dim_probing.json"
KINDS = ("shifted", "near_duplicates", "foreign")
SHOPS = [
    (
        "Lena has 60 stickers and gives 24 to Omar. How many stickers does Lena keep?",
        "Lena keeps 60 - 24 = 36 stickers.",
    ),
    (
        "A train covers 300 miles in 5 hours. What is its speed?",
        "The speed of the train is 300 / 5 = 60 miles per hour.",
    ),
    (
        "Mia bakes 4 trays of 12 muffins and eats 3. How many muffins are left?",
        "4 trays hold 48 muffins, so 45 muffins.",
    ),
    ("A garden is 8 feet long and 5 feet wide. What is its area?", "The garden has an area of 8 * 5 = 40 square feet."),
    ("Paul reads 20 pages a night. How long does a book of 340 pages take?", "The book takes 340 / 20 = 17 nights."),
    ("Nina saves $15 a week for a $180 bicycle. After how many weeks can she buy it?", "The bicycle takes 12 weeks."),
    ("A farmer collects 7 eggs from each of 9 hens. How many eggs is that?", "9 hens lay 63 eggs for the farmer."),
    ("Zoe runs 3 laps of 400 meters before school. How far does Zoe run?", "Zoe runs 3 * 400 = 1200 meters of laps."),
]


def shop_rows():
    return [
        {"id": i, "question": question, "prediction": answer, "scores": {"quality": i % 3 + 1}}
        for i, (question, answer) in enumerate(SHOPS)
    ]


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def run_audit(folder, rows, questions=None, **settings):
    named = write(folder / "questions.jsonl", [{"question": question} for question in questions]) if questions else None
    return audit(AuditConfig(write(folder / "rows.jsonl", rows), str(folder / "audit"), questions=named, **settings))


def found_rows(result, kind):
    return [row["index"] for row in result["findings"][kind]["rows"]]


def gsm8k_questions(data_dir, rows):
    """Return a part of the dataset's questions, which holds those of the rows."""
    lines = (data_dir / "gsm8k_train.jsonl").read_text().splitlines()[:1000]
    return [row["question"] for row in rows] + [json.loads(line)["question"] for line in lines]


def clean_rows(data_dir, kind):
    """Return clean rows, their dataset's questions, and pairs of elsewhere."""
    gsm8k = gsm8k_rows(data_dir / "gsm8k_train.jsonl", 500, 3)
    vicuna = vicuna_rows(data_dir / "general/vicuna_eval.json")
    if kind == "vicuna":
        return vicuna, {row["question"] for row in vicuna}, [(row["question"], row["prediction"]) for row in gsm8k]
    pairs = [(row["question"], row["prediction"]) for row in vicuna[::4]]
    if kind == "gold":
        return gsm8k, gsm8k_questions(data_dir, gsm8k), pairs
    llama = [row for row in probing_rows(data_dir / PROBING) if row["id"] < 7473]
    random.Random(0).shuffle(llama)
    return llama[:400], gsm8k_questions(data_dir, llama[:400]), None


def measure(folder, data_dir, kind, seed, edit, target, shift):
    """Return (precision, recall) of every kind of fault in a set of rows with seeded faults."""
    rows, questions, elsewhere = clean_rows(data_dir, kind)
    seeded = seed_faults(rows, seed, edit=edit, target=target, shift=shift, foreign=elsewhere)
    result = run_audit(folder, seeded.rows, questions)
    true = {"shifted": seeded.shifted, "near_duplicates": seeded.near_duplicate, "foreign": seeded.foreign}
    return {fault: precision_recall(found_rows(result, fault), true[fault]) for fault in KINDS}


@pytest.mark.parametrize(
    ("kind", "seed", "edit", "target", "shift"),
    [
        ("gold", 1, "mixed", "question", "swap"),
        ("gold", 2, "layout", "both", "block"),
        ("llama", 3, "mixed", "both", "rotate"),
        ("vicuna", 4, "mixed", "both", "swap"),
        ("vicuna", 5, "typos", "response", "block"),
    ],
)
def test_seeded_faults_are_found(tmp_path, data_dir, kind, seed, edit, target, shift):
    assert edit in EDITS and target in TARGETS and shift in SHIFTS
    for fault, (precision, recall) in measure(tmp_path, data_dir, kind, seed, edit, target, shift).items():
        assert precision >= 0.9 and recall >= 0.9, (fault, precision, recall)


def test_the_published_probing_set_holds_93_rows_of_filler_and_loses_just_these(tmp_path, data_dir):
    target = tmp_path / "clean.json"
    config = AuditConfig(
        str(data_dir / PROBING), str(tmp_path / "audit"), str(data_dir / "gsm8k_train.jsonl"), str(target)
    )
    result = audit(config)
    foreign = result["findings"]["foreign"]
    assert (foreign["count"], foreign["items"]) == (93, 40)
    assert {row["id"] for row in foreign["rows"]} == set(range(7473, 7513))
    assert all(result["findings"][kind]["count"] == 0 for kind in ("exact_duplicates", "near_duplicates", "shifted"))
    assert result["dropped"]["total"] == 93
    assert result["aspects"]["fluency"]["unobserved"] == []
    assert result["aspects_after_drop"]["fluency"]["unobserved"] == [1, 2]
    assert result["aspects_after_drop"]["logicality"]["tiny"] == [4]
    before, after = json.loads((data_dir / PROBING).read_text()), json.loads(target.read_text())
    assert after == {aspect: [row for row in rows if row["id"] < 7473] for aspect, rows in before.items()}
    assert result == json.loads((tmp_path / "audit/audit.json").read_text())
    assert "| 93 | 40 | 93 |" in (tmp_path / "audit/audit.md").read_text()


def test_clean_rows_have_no_findings(tmp_path):
    result = run_audit(tmp_path, shop_rows(), [question for question, _ in SHOPS])
    assert all(result["findings"][kind]["count"] == 0 for kind in (*KINDS, "exact_duplicates", "repeated_questions"))


def test_a_question_with_other_numbers_is_another_question(tmp_path):
    other = {"id": 90, "question": SHOPS[1][0].replace("300", "420").replace("5", "7"), "prediction": "420 / 7 = 60"}
    result = run_audit(tmp_path, [*shop_rows(), other])
    assert result["findings"]["near_duplicates"]["count"] == 0


@pytest.mark.parametrize(
    "copy",
    [
        (SHOPS[0][0].upper(), SHOPS[0][1]),
        (SHOPS[0][0].replace("Lena", "Greta"), SHOPS[0][1].replace("Lena", "Greta")),
        (SHOPS[0][0] + " Please explain.", "She has 36 left."),
        (SHOPS[0][0].replace("stickers", "stikcers"), "Thirty-six."),
        (SHOPS[0][0], "So " + SHOPS[0][1].replace("=", "is").lower()),
    ],
    ids=["case", "name", "sentence added, other response", "typo, other response", "response edited"],
)
def test_an_edited_copy_is_found_and_names_its_original(tmp_path, copy):
    rows = [*shop_rows(), {"id": "copy", "question": copy[0], "prediction": copy[1]}]
    [found] = run_audit(tmp_path, rows)["findings"]["near_duplicates"]["rows"]
    assert (found["index"], found["id"], found["other"]["index"], found["other"]["id"]) == (len(SHOPS), "copy", 0, 0)


def test_several_responses_to_one_question_are_no_fault(tmp_path):
    rows = [{**row, "sample": 0} for row in shop_rows()]
    rows += [{**row, "sample": 1, "prediction": f"I get {i + 30} from that."} for i, row in enumerate(rows)]
    result = run_audit(tmp_path, rows, drop=str(tmp_path / "clean.jsonl"))
    assert all(result["findings"][kind]["count"] == 0 for kind in ("near_duplicates", "shifted", "repeated_questions"))
    assert read_records(tmp_path / "clean.jsonl") == rows


def test_moved_responses_are_found_and_traced(tmp_path):
    rows = shop_rows()
    rows[1]["prediction"], rows[2]["prediction"] = rows[2]["prediction"], rows[1]["prediction"]
    found = run_audit(tmp_path, rows)["findings"]["shifted"]["rows"]
    assert [(row["index"], row["other"]["index"]) for row in found] == [(1, 2), (2, 1)]


def test_a_bare_number_is_undecidable_not_shifted(tmp_path):
    rows = shop_rows()
    rows[3]["prediction"] = "40"
    result = run_audit(tmp_path, rows)
    assert found_rows(result, "shifted") == []
    assert 3 in found_rows(result, "undecidable_pairing")


def test_a_training_row_that_stands_in_the_test_split_is_dropped_and_the_test_row_kept(tmp_path):
    rows = shop_rows()
    train = [*rows[:6], {**rows[6], "prediction": "By my count that makes 63."}]
    test = [rows[7], {**rows[0], "id": "t"}, {**rows[6], "id": "u"}]
    paths = {"train": write(tmp_path / "train.jsonl", train), "test": write(tmp_path / "test.jsonl", test)}
    result = audit(AuditConfig(paths, str(tmp_path / "audit"), drop=str(tmp_path / "clean")))
    [exact] = result["findings"]["exact_duplicates"]["rows"]
    assert (exact["split"], exact["index"], exact["other"]["split"], exact["across_splits"]) == (
        "train",
        0,
        "test",
        True,
    )
    [repeated] = result["findings"]["repeated_questions"]["rows"]
    assert (repeated["split"], repeated["index"]) == ("train", 6)
    assert read_records(tmp_path / "clean/train.jsonl") == train[1:6]
    assert read_records(tmp_path / "clean/test.jsonl") == test


def test_a_question_under_two_ids_of_one_split_is_named_but_kept(tmp_path):
    rows = [
        *shop_rows(),
        {"id": "again", "question": SHOPS[0][0], "prediction": "First she shares, and then 36 remain."},
    ]
    result = run_audit(tmp_path, rows, drop=str(tmp_path / "clean.jsonl"))
    assert found_rows(result, "repeated_questions") == [len(SHOPS)]
    assert read_records(tmp_path / "clean.jsonl") == rows


def test_foreign_rows_need_a_dataset_and_an_edited_question_is_not_foreign(tmp_path):
    rows = [*shop_rows(), {"id": 77, "question": "What is the capital of Peru?", "prediction": "Lima"}]
    questions = [question.replace("How many", "what number of") for question, _ in SHOPS]
    without = run_audit(tmp_path, rows)["findings"]["foreign"]
    assert (without["count"], without["rows"]) == (None, [])
    assert found_rows(run_audit(tmp_path, rows, questions), "foreign") == [len(SHOPS)]


def test_labels_and_fields_are_described(tmp_path):
    rows = [
        {
            **shop_rows()[i % 8],
            "id": i,
            "generator": "m",
            "prediction": "word " * (i + 1),
            "scores": {"a": 1 + i // 12, "b": 1},
        }
        for i in range(24)
    ]
    rows[5]["scores"]["a"] = None
    rows[6]["prediction"] = None
    result = run_audit(tmp_path, rows, tiny=12)
    aspect = result["aspects"]["a"]
    assert aspect["classes"] == {"1": 11, "2": 12, "3": 0, "4": 0, "5": 0}
    assert (aspect["unobserved"], aspect["tiny"], aspect["constant"]) == ([3, 4, 5], [1], False)
    assert aspect["length_correlation"]["low"] > 0.5
    assert result["aspects"]["b"]["constant"]
    assert result["aspects"]["b"]["length_correlation"]["value"] is None
    assert result["fields"]["all"]["prediction"]["missing_rows"] == [6]
    assert result["fields"]["all"]["generator"]["constant"]
    assert result["generators"] == {"m": 24}


def test_summary_holds_the_small_numbers(tmp_path):
    summary = audit_summary(run_audit(tmp_path, [*shop_rows(), shop_rows()[2]]))
    assert (summary["rows"], summary["items"]) == (9, 9)
    assert summary["found"]["exact_duplicates"] == summary["dropped"]["exact_duplicates"] == 1
    assert summary["found"]["foreign"] is None
    assert summary["aspects"]["quality"]["unobserved"] == [4, 5]


def test_every_dropped_row_is_listed_once_with_all_that_names_it(tmp_path):
    rows = [*shop_rows(), {**shop_rows()[0], "id": "copy"}, {"id": 77, "question": "Who?", "prediction": "Nobody."}]
    rows.append({**rows[-1], "id": 78})
    result = run_audit(tmp_path, rows, [question for question, _ in SHOPS])
    assert [(row["index"], row["id"], row["kinds"]) for row in result["dropped_rows"]] == [
        (8, "copy", ["exact_duplicates"]),
        (9, 77, ["foreign"]),
        (10, 78, ["foreign", "exact_duplicates"]),
    ]
    assert len(result["dropped_rows"]) == result["dropped"]["total"] == 3


def test_the_same_rows_give_the_same_bytes(tmp_path):
    texts = []
    for _ in range(2):
        run_audit(tmp_path, [*shop_rows(), shop_rows()[2]])
        texts.append((tmp_path / "audit/audit.json").read_bytes() + (tmp_path / "audit/manifest.json").read_bytes())
    assert texts[0] == texts[1]


def test_texts_that_are_no_text_are_refused(tmp_path):
    with pytest.raises(DataFileError, match="row 1 expects text as prediction, but got 7"):
        run_audit(tmp_path, [shop_rows()[0], {"id": 1, "question": "Why?", "prediction": 7}])
    with pytest.raises(DataFileError, match="holds none"):
        run_audit(tmp_path, [])


def test_texts_are_read_in_one_form():
    assert tokens("She buys 1,200 boxes, twelve of them 2.50 each") == tokens(
        "she BUY 1200 box -- 12 of them 2.5 each!"
    )
    assert numbers("Half of twelve, then 3.0 <<12/2=6>>") == ["half", "12", "3"]
    assert plain("  What is 7+8?\n") == plain("what is 7 + 8") != plain("What is 7 - 8?")


def test_the_page_shows_names_as_the_words_that_they_are(tmp_path):
    bad = "a|b\n# c [x](http://e.org) <img src=x> \x1b[31m"
    rows = shop_rows()
    for row in rows:
        row["scores"] = {bad: row["scores"]["quality"]}
        row["generator"] = bad
    rows.append(dict(rows[0], id="| [y](z)"))
    result = run_audit(tmp_path, rows)
    assert found_rows(result, "exact_duplicates") == [len(rows) - 1]
    page = (tmp_path / "audit" / "audit.md").read_text()
    shown = "a\\|b # c \\[x\\](http://e.org) \\<img src=x> \\\\x1b\\[31m"
    assert f"| {shown} |" in page and f"- generators: {shown} {len(rows)}" in page
    assert "(id \\| \\[y\\](z))" in page and "\x1b" not in page
    assert not [line for line in page.splitlines() if line.startswith("# ") and line != "# Audit"]
