"""The data stage: named datasets, column mappings, ids, labels, and what happens to rows that cannot be used."""

import json
from dataclasses import replace

import datasets
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from inspector_training.rows.answers import last_boxed
from inspector_training.rows.columns import Columns, parse_label
from inspector_training.rows.records import labelled_pairs, number_samples, question_id, read_records, subset_of
from inspector_training.rows.sources import (
    DATASETS,
    Source,
    gsm8k_final_answer,
    make_rows,
    plain_rationale,
    read_dataset,
)
from inspector_training.runs.command import main
from inspector_training.runs.manifest import Manifest, manifest_path
from inspector_training.stages.data import Config as DataConfig
from inspector_training.stages.data import run as data

from inspector_pipeline import DataFileError
from inspector_pipeline.files.tables import read_json, read_rows, write_rows

GSM8K = [
    {
        "question": "Ann has 1200 pens and gets 34. How many?",
        "answer": "1200+34 = <<1200+34=1234>>1234\n#### 1,234",
    },
    {"question": "How far below 5 is 7?", "answer": "5-7 = <<5-7=-2>>-2\n#### -2"},
]
MATH = [
    {"problem": "Solve $2x=1$.", "level": "Level 1", "type": "Algebra", "solution": r"So $x=\boxed{\frac{1}{2}}$."},
    {"problem": "Count to 3.", "level": "Level 2", "type": "Algebra", "solution": r"First \boxed{1}, then $\boxed 3$."},
]
MATH_500 = [
    {
        "problem": "Solve $3x=1$.",
        "solution": r"So $x=\boxed{\frac13}$.",
        "answer": r"\frac{1}{3}",
        "subject": "Algebra",
        "level": 2,
        "unique_id": "test/algebra/1.json",
    }
]
GPQA = [
    {
        "Question": f"Which particle is number {i}?\n",
        "Correct Answer": "the proton\n",
        "Incorrect Answer 1": "the electron",
        "Incorrect Answer 2": "the muon",
        "Incorrect Answer 3": "the pion",
        "Explanation": "It is the proton.",
        "Subdomain": "Physics (general)",
        "High-level domain": "Physics",
        "Record ID": f"rec{i:05}",
        "Canary String": "not to be kept",
    }
    for i in range(24)
]


def run_stage(tmp_path, rows=None, name="rows.jsonl", **settings):
    """Write rows to a file, run the stage on it, and return what it wrote."""
    if rows is not None:
        write_rows(rows, str(tmp_path / name))
        settings["path"] = str(tmp_path / name)
    output = tmp_path / "out" / "rows.jsonl"
    data(DataConfig(output=str(output), **settings))
    return read_records(output)


def rejects(tmp_path):
    return read_rows(str(tmp_path / "out" / "rows.jsonl.rejects.jsonl"))


def test_gsm8k_takes_rows_as_ids_and_the_number_after_the_mark(tmp_path):
    first, second = run_stage(tmp_path, GSM8K, dataset="gsm8k")
    assert first == {"id": 0, **GSM8K[0], "final_answer": "1234", "dataset": "gsm8k", "split": "train"}
    assert (second["id"], second["final_answer"]) == (1, "-2")


def test_gsm8k_test_ids_are_not_those_of_its_train_set(tmp_path):
    assert [row["id"] for row in run_stage(tmp_path, GSM8K, dataset="gsm8k", split="test")] == ["test-0", "test-1"]


def test_real_gsm8k_has_a_number_for_every_question(tmp_path, data_dir):
    rows = run_stage(tmp_path, dataset="gsm8k", path=str(data_dir / "gsm8k_train.jsonl"))
    assert len(rows) == 7473 and [row["id"] for row in rows] == list(range(7473))
    assert all(float(row["final_answer"]) is not None for row in rows)
    assert not any("<<" in text or "####" in text for text in (plain_rationale(row["answer"]) for row in rows))


def test_math_takes_the_last_box_and_the_hash_of_the_question(tmp_path):
    first, second = run_stage(tmp_path, MATH, dataset="math")
    assert first["final_answer"] == r"\frac{1}{2}" and second["final_answer"] == "3"
    assert first["id"] == question_id(MATH[0]["problem"]) and first["answer"] == MATH[0]["solution"]
    assert (first["level"], first["type"]) == ("Level 1", "Algebra")


def test_math_500_has_ids_and_final_answers_of_its_own(tmp_path):
    (row,) = run_stage(tmp_path, MATH_500, name="math.parquet", dataset="math-500")
    assert row["id"] == "test/algebra/1.json" and row["split"] == "test"
    assert row["final_answer"] == r"\frac{1}{3}" and row["answer"] == MATH_500[0]["solution"]


@pytest.mark.parametrize("subset", ["main", "extended", "diamond"])
def test_gpqa_letters_its_choices_and_names_the_right_one(tmp_path, subset):
    rows = run_stage(tmp_path, GPQA, name="gpqa.csv", dataset=f"gpqa-{subset}")
    for row in rows:
        assert row["final_answer"].endswith(" the proton") and row["final_answer"] in row["question"].split("\n")
        assert sorted(row["options"]) == ["the electron", "the muon", "the pion", "the proton"]
        assert row["answer"] == "It is the proton." and "Canary String" not in row
    assert {row["final_answer"][:3] for row in rows} == {"(A)", "(B)", "(C)", "(D)"}


def test_gpqa_choices_keep_their_order_whatever_rows_stand_around(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    forward = run_stage(tmp_path / "a", GPQA, dataset="gpqa-main")
    backward = run_stage(tmp_path / "b", GPQA[::-1][:5], dataset="gpqa-diamond")
    texts = {row["id"]: row["question"] for row in forward}
    assert all(texts[row["id"]] == row["question"] for row in backward)


def test_a_named_dataset_with_unusable_rows_is_an_error_that_names_them(tmp_path):
    broken = [*GPQA[:1], {**GPQA[1], "Incorrect Answer 2": " "}, {**GPQA[2], "Question": ""}]
    with pytest.raises(DataFileError, match="row 1: the choice 'Incorrect Answer 2' is blank; row 2: the question is"):
        run_stage(tmp_path, broken, dataset="gpqa-main")


def test_another_file_than_the_named_dataset_is_refused(tmp_path):
    with pytest.raises(DataFileError, match=r"math expects the column 'problem', but has 'answer', 'question'\."):
        run_stage(tmp_path, GSM8K, dataset="math")


@pytest.mark.parametrize(
    ("solution", "expected"),
    [
        (r"\boxed{\{1,2\}}", r"\{1,2\}"),
        (r"\boxed{1} and \fbox{\sqrt{2}}", r"\sqrt{2}"),
        (r"$\boxed 7$ pens", "7"),
        (r"\boxed{1} and \boxed{2", None),
        (r"\boxed{}", None),
        (r"\framebox{1}", None),
        ("no box", None),
    ],
)
def test_last_boxed(solution, expected):
    assert last_boxed(solution) == expected


@given(st.recursive(st.sampled_from(["1", "x", r"\{", r"\}"]), lambda inner: inner.map("{{{}}}".format), max_leaves=5))
def test_last_boxed_undoes_boxing_of_balanced_text(content):
    assert last_boxed(rf"a \boxed{{0}} b \boxed{{{content}}} c }}") == content


def test_gold_solutions_without_the_mark_have_no_final_answer_and_stay_as_they_are():
    assert gsm8k_final_answer("so it is 4") is None and gsm8k_final_answer("4\n####  ") is None
    assert plain_rationale(r"so \boxed{4}") == r"so \boxed{4}"
    assert plain_rationale(GSM8K[0]["answer"]) == "1200+34 = 1234\nThe answer is 1,234."


@pytest.fixture
def hub_folder(tmp_path, monkeypatch):
    """Write a folder in the shape of a Hub dataset: one JSON Lines file for each subset and split."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")

    def write(files, name="copy"):
        lines = ["---", "configs:"]
        for (subset, split), rows in files.items():
            file = tmp_path / name / subset / f"{split}.jsonl"
            file.parent.mkdir(parents=True)
            write_rows(rows, str(file))
            lines += [f"- config_name: {subset}", "  data_files:"]
            lines += [f"  - split: {split}", f"    path: {subset}/{split}.jsonl"]
        (tmp_path / name / "README.md").write_text("\n".join([*lines, "---", ""]))
        return tmp_path / name

    return write


def test_a_folder_of_math_is_read_subject_by_subject(tmp_path, hub_folder):
    files = {
        (subject, "test"): [{**MATH[0], "problem": f"Of {subject}?", "type": subject}]
        for subject in DATASETS["math"].subsets
    }
    folder = hub_folder(files)
    rows = run_stage(tmp_path, dataset="math", path=str(folder), split="test")
    assert [row["type"] for row in rows] == list(DATASETS["math"].subsets)
    manifest = Manifest.read(tmp_path / "out" / "rows.jsonl", "data")
    assert list(manifest.inputs) == [f"math/{subject}/test" for subject in DATASETS["math"].subsets]
    assert manifest.settings["path"] == "copy" and str(tmp_path) not in json.dumps(manifest.settings)


def test_a_hub_dataset_is_read_from_the_cache_and_its_commit_is_recorded(tmp_path, hub_folder):
    commit = "0123456789abcdef" * 2 + "01234567"
    folder = hub_folder({("main", "train"): GSM8K}, name="gsm8k")
    read_dataset(str(folder), "gsm8k", "train", ("main",))
    (prepared,) = (tmp_path / "cache" / "gsm8k" / "main" / "0.0.0").glob("*/")  # what a download leaves, but its name
    cached = tmp_path / "cache" / "openai___gsm8k" / "main" / "0.0.0" / commit
    cached.parent.mkdir(parents=True)
    prepared.rename(cached)
    rows = run_stage(tmp_path, dataset="gsm8k", revision=commit)
    assert [row["final_answer"] for row in rows] == ["1234", "-2"]
    assert list(Manifest.read(tmp_path / "out" / "rows.jsonl", "data").inputs) == [f"gsm8k@{commit}/main/train"]
    with pytest.raises(DataFileError, match=f"expects the revision {'f' * 40}, but {commit} is cached"):
        run_stage(tmp_path, dataset="gsm8k", revision="f" * 40)


def test_what_cannot_be_loaded_is_said_with_what_to_do(tmp_path, hub_folder):
    folder = hub_folder({("main", "train"): GSM8K})
    with pytest.raises(DataFileError, match=r"Unknown split .dev.*name a local copy with --path"):
        run_stage(tmp_path, path=str(folder), subset="main", split="dev")
    with pytest.raises(DataFileError, match="Idavidrein/gpqa could not be loaded: .*for a gated dataset"):
        run_stage(tmp_path, dataset="gpqa-main")


@pytest.mark.parametrize("suffix", ["json", "jsonl", "csv", "parquet"])
def test_columns_and_labels_of_a_user_file(tmp_path, suffix):
    columns = Columns("q", final_answer="gold", prediction="a", label={"factuality": "stars", "tone": "word"})
    rows = [
        {"q": "2 + 2?", "gold": "4", "a": "4", "stars": "5", "word": "good", "note": "x"},
        {"q": "2  + 2?", "gold": "4", "a": "5", "stars": " ", "word": "odd", "note": "y"},
        {"q": "3 + 3?", "gold": "6", "a": "6", "stars": "3.5", "word": "bad", "note": "z"},
    ]
    words = {"good": 1, "bad": 0}
    with pytest.raises(DataFileError, match=r"tone expects labels of 0 and 1, but 1 of 3 .*row 1: 'odd' is no number"):
        run_stage(tmp_path, rows, name=f"rated.{suffix}", columns=columns, words=words)
    settings = {"columns": columns, "words": words, "allow_unreadable": True}
    found = run_stage(tmp_path, rows, name=f"rated.{suffix}", **settings)
    assert [row["scores"] for row in found] == [
        {"factuality": 5, "tone": 1},
        {"factuality": None, "tone": None},
        {"factuality": 3.5, "tone": 0},
    ]
    assert found[0]["reasons"] == {} and found[2]["reasons"] == {}
    assert found[1]["reasons"] == {"factuality": "the label is blank", "tone": "'odd' is no number"}
    told = read_json(tmp_path / "out" / "rows.jsonl.labels.json")["aspects"]
    assert told["tone"]["unused"] == {"is no number": 1} and told["factuality"]["blank"] == 1
    assert [(row["id"], row["sample"], row["note"]) for row in found] == [
        (question_id("2 + 2?"), 0, "x"),
        (question_id("2 + 2?"), 1, "y"),
        (question_id("3 + 3?"), 0, "z"),
    ]
    assert found[0]["final_answer"] == "4" and found[0]["dataset"] == "rated" and "split" not in found[0]
    assert len(labelled_pairs(found)) == 2


@pytest.mark.parametrize(
    ("cell", "score"),
    [(4, 4), (4.0, 4), ("4", 4), (" -1 ", -1), ("4.00", 4), (True, 1), (1e20, 10**20), ("3.5", None), (3.5, None)]
    + [
        ("", None),
        (None, None),
        (float("nan"), None),
        (float("inf"), None),
        ("four", None),
        ("1e1", None),
        ([4], None),
    ],
)
def test_a_label_is_a_whole_number_or_nothing(cell, score):
    found, reason = parse_label(cell)
    assert found == score and type(found) is type(score) and (reason is None) == (score is not None)


@given(st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text()))
def test_a_label_is_never_rounded(cell):
    score, reason = parse_label(cell)
    assert (score is None) != (reason is None)
    if score is not None:
        assert float(score) == float(cell)


def test_unusable_rows_of_a_user_file_go_beside_the_output_with_their_reasons(tmp_path, caplog):
    rows = [
        {"id": 1, "question": "Why?", "prediction": "So."},
        {"id": 2, "question": " ", "prediction": "So."},
        {"id": 3, "question": 5, "prediction": "So."},
        {"id": 4, "question": "How?", "prediction": None},
        {"id": None, "question": "When?", "prediction": "Now."},
        {"id": 6, "question": "half \ud800", "prediction": "Now."},
    ]
    (tmp_path / "rows.json").write_text(json.dumps(rows))
    assert [row["id"] for row in run_stage(tmp_path, path=str(tmp_path / "rows.json"))] == [1]
    assert [(row["row"], row["reason"]) for row in rejects(tmp_path)] == [
        (1, "the question is blank"),
        (2, "the question is int, not text"),
        (3, "the prediction is blank"),
        (4, "the id is 'None', not a text or a whole number"),
        (5, "the question holds half of a surrogate pair, which no file can store"),
    ]
    assert rejects(tmp_path)[1]["source"] == rows[2]
    assert "Rejected 5 rows (1 times the question is blank" in caplog.text
    (tmp_path / "rows.json").write_text(json.dumps(rows[:1]))
    run_stage(tmp_path, path=str(tmp_path / "rows.json"))
    assert not (tmp_path / "out" / "rows.jsonl.rejects.jsonl").exists()


def test_a_file_without_any_usable_row_is_an_error(tmp_path):
    with pytest.raises(DataFileError, match="but none is: 2 times the question is blank"):
        run_stage(tmp_path, [{"question": ""}, {"question": " "}])
    with pytest.raises(DataFileError, match="rows expects rows, but has none"):
        run_stage(tmp_path, [])


def test_a_question_that_comes_again_without_a_response_is_rejected_even_in_a_named_dataset(tmp_path):
    assert len(run_stage(tmp_path, [*MATH, MATH[0]], dataset="math")) == 2
    assert [(row["row"], row["reason"]) for row in rejects(tmp_path)] == [(2, "the question came before")]


def test_one_id_for_two_questions_is_an_error(tmp_path):
    with pytest.raises(DataFileError, match="one question for every id, but '7' names 'Why"):
        run_stage(tmp_path, [{"id": 7, "question": "Why?"}, {"id": "7", "question": "How?"}])


def test_ids_from_text_settle_one_id_for_two_questions(tmp_path):
    rows = [{"id": 7, "question": text, "prediction": "So."} for text in ("Why?", "How?", "why? ")]
    found = run_stage(tmp_path, rows, ids_from_text=True)
    assert [(row["id"], row["source_id"], row["sample"]) for row in found] == [
        (question_id("Why?"), 7, 0),
        (question_id("How?"), 7, 0),
        (question_id("Why?"), 7, 1),
    ]


def test_samples_are_counted_for_each_question_and_generator():
    rows = [
        {"id": 1, "question": "Why?", "prediction": text, "generator": name}
        for text, name in [("a", "x"), ("b", "y"), ("c", "x")]
    ]
    assert [row["sample"] for row in number_samples(rows, "file")] == [0, 0, 1]
    with pytest.raises(DataFileError, match="the id '1' has sample 2 twice"):
        number_samples([{**row, "sample": 2, "generator": "x"} for row in rows], "file")


def test_a_column_whose_name_a_mapped_one_takes_is_left_out_and_said(caplog):
    source = Source("file", None, [{"question": "old", "text": "new", "dataset": "mine"}])
    (row,), _ = make_rows(source, Columns(question="text"), {})
    assert row == {"id": question_id("new"), "question": "new", "dataset": "mine"}
    assert "the column 'question' is left out, since 'text' is read as the question" in caplog.text


def test_labels_need_responses():
    source = Source("file", None, [{"question": "Why?", "stars": 3}])
    with pytest.raises(DataFileError, match="expects a response beside its labels"):
        make_rows(source, Columns(label={"factuality": "stars"}), {})


@settings(max_examples=50)
@given(st.integers(2, 30), st.integers(1, 20), st.integers(0, 5), st.randoms())
def test_a_random_subset_hangs_on_ids_alone_and_keeps_all_responses(n, limit, seed, random):
    rows = [{"id": i, "question": f"{i}?", "sample": s} for i in range(n) for s in (0, 1)]
    shuffled = random.sample(rows, len(rows))
    kept = subset_of(rows, limit, seed)
    assert sorted(kept, key=str) == sorted(subset_of(shuffled, limit, seed), key=str)
    assert len({row["id"] for row in kept}) == min(limit, n) and len(kept) == 2 * min(limit, n)
    assert [row for row in rows if row in kept] == kept
    assert {row["id"] for row in subset_of(rows, limit, None)} == set(range(min(limit, n)))


def test_the_real_probing_set_is_recognised(tmp_path, data_dir):
    probing = data_dir / "reference" / "Meta-Llama-3-8B-Instruct_gsm8k_roscoe5dim_probing.json"
    rows = run_stage(tmp_path, path=str(probing), dataset="gsm8k")
    assert len(rows) == 851 and sum(len(row["scores"]) for row in rows) == 1040
    questions = {row["id"]: row["question"] for row in read_gsm8k(tmp_path, data_dir)}
    known = [row for row in rows if row["id"] in questions]
    assert len(known) == 811 and all(question_id(row["question"]) == question_id(questions[row["id"]]) for row in known)


def read_gsm8k(tmp_path, data_dir):
    (tmp_path / "gsm8k").mkdir()
    return run_stage(tmp_path / "gsm8k", dataset="gsm8k", path=str(data_dir / "gsm8k_train.jsonl"))


def test_the_manifest_vouches_until_source_or_settings_change(tmp_path, caplog):
    caplog.set_level("INFO")
    run_stage(tmp_path, GSM8K, dataset="gsm8k")
    before = manifest_path(tmp_path / "out" / "rows.jsonl").read_text()
    run_stage(tmp_path, dataset="gsm8k", path=str(tmp_path / "rows.jsonl"))
    assert "is already there" in caplog.text
    run_stage(tmp_path, dataset="gsm8k", path=str(tmp_path / "rows.jsonl"), limit=1)
    assert manifest_path(tmp_path / "out" / "rows.jsonl").read_text() != before
    assert len(run_stage(tmp_path, GSM8K[::-1], dataset="gsm8k")) == 2


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({}, "expects a source, but got none"),
        ({"path": "nowhere.csv"}, "--path expects a file or folder, but there is none at nowhere.csv"),
        ({"dataset": "gms8k"}, "expects gsm8k, math, .* or a Hub id such as org/name, but got 'gms8k'"),
        ({"dataset": "gsm8k", "split": "dev"}, "gsm8k has the splits train, test, but got 'dev'"),
        ({"dataset": "gsm8k", "output": "rows.csv"}, "--output expects a .jsonl file"),
        ({"dataset": "gsm8k", "limit": 0}, "--limit expects 1 or more"),
        ({"dataset": "gsm8k", "seed": 3}, "--seed expects a --limit"),
    ],
)
def test_settings_that_do_not_fit_are_refused(changes, message):
    with pytest.raises(DataFileError, match=message):
        data(replace(DataConfig(output="rows.jsonl"), **changes))


def test_the_command_takes_columns_and_words_as_flags_and_as_yaml(tmp_path):
    write_rows([{"q": "Why?", "a": "So.", "word": "good"}], str(tmp_path / "rated.csv"))
    flags = [
        "--columns.question",
        "q",
        "--columns.prediction",
        "a",
        "--columns.label.tone",
        "word",
        "--words.good",
        "1",
    ]
    place = ["--path", str(tmp_path / "rated.csv"), "--output"]
    main(["data", *place, str(tmp_path / "flags.jsonl"), *flags])
    yaml = "columns:\n  question: q\n  prediction: a\n  label:\n    tone: word\nwords:\n  good: 1\n"
    (tmp_path / "columns.yaml").write_text(yaml)
    main(["data", "--config", str(tmp_path / "columns.yaml"), *place, str(tmp_path / "yaml.jsonl")])
    (row,) = read_records(tmp_path / "flags.jsonl")
    assert row["scores"] == {"tone": 1} and read_records(tmp_path / "yaml.jsonl") == [row]


@pytest.mark.parametrize("kind", ["teacher", "evaluated", "probing"])
def test_words_are_labels_in_published_files_too(tmp_path, kind):
    """They were lost without a word once: with words, the file was no longer seen to be of a published format."""
    words, said = {"good": 5, "bad": 1}, ["good", "bad", "odd"]
    rows = [{"id": i, "question": f"Why {i}?", "prediction": f"So {i}."} for i in range(3)]
    if kind == "teacher":
        rows = [row | {"roscoe5dim_score": {"fluency": {"score": word}}} for row, word in zip(rows, said, strict=True)]
    elif kind == "evaluated":
        rows = [row | {"fluency": word, "total_score": 1} for row, word in zip(rows, said, strict=True)]
    else:
        texts = [f"Rate.\n{row['question']}\n\nA:\n{row['prediction']}\n\nScore:" for row in rows]
        entries = zip(texts, said, strict=True)
        rows = {"fluency": [{"id": i, "eval_prompt": text, "score": word} for i, (text, word) in enumerate(entries)]}
    path = tmp_path / ("a.jsonl" if kind == "teacher" else "a.json")
    path.write_text("\n".join(map(json.dumps, rows)) if kind == "teacher" else json.dumps(rows))
    data(DataConfig(str(tmp_path / "rows.jsonl"), path=str(path), words=words))
    found = read_records(tmp_path / "rows.jsonl")
    assert [row["scores"]["fluency"] for row in found] == [5, 1, None]
    assert found[2]["reasons"] == {"fluency": "odd is not a whole number or a known word"}
    data(DataConfig(str(tmp_path / "two.jsonl"), path=str(path), words=words, binary=True))
    assert [row["scores"]["fluency"] for row in read_records(tmp_path / "two.jsonl")] == [1, 0, None]
