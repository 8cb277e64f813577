"""Further uses of judges, end to end on tiny random backbones: data selection, self-knowledge, and ratings of texts."""

import csv
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from inspector_cli.main import main as cli
from inspector_training.features.plan import ExtractConfig
from inspector_training.features.store import load_features
from inspector_training.labelling.rubrics import Rubric
from inspector_training.rows.records import is_good
from inspector_training.runs.steps import read_steps, run_steps
from inspector_training.stages.data import Config as DataConfig
from inspector_training.stages.data import run as data
from inspector_training.stages.extract import run as extract
from inspector_training.stages.known_questions import Config as KnownConfig
from inspector_training.stages.known_questions import run as known_questions
from inspector_training.stages.lager import Config as LagerConfig
from inspector_training.stages.lager import run as lager
from inspector_training.stages.rate_texts import Config as RateConfig
from inspector_training.stages.rate_texts import run as rate_texts
from scipy.stats import spearmanr
from support.causal import save_causal
from support.models import PAIRS, aspect, feature
from support.paths import ROOT

from inspector_pipeline import PairTemplate, evaluate_samples, load_judge
from inspector_pipeline.api.export import export_sequence_classification
from inspector_pipeline.engines.batch_scorer import InspectorBatchScorer
from inspector_pipeline.errors import DataFileError, JudgeConfigError, PairError, ReadingError, SettingsError
from inspector_pipeline.jobs.filter import FilterJob, filter_job
from inspector_pipeline.pair_tokenizer import PairTokenizer

CONFIGS = ROOT / "training" / "configs"
EXAMPLES = ROOT / "training" / "examples"
TEMPLATE = "Read: {question} Known?"
QUICK = {"repeats": 1, "folds": 3, "bootstraps": 20, "learning_curve": []}


@pytest.fixture(scope="session")
def family():
    return "llama"


@pytest.fixture(scope="module")
def backbone(tmp_path_factory, tokenizer):
    return str(save_causal(tmp_path_factory.mktemp("causal"), "llama", tokenizer))


@pytest.fixture(scope="module")
def alone(tokenizer):
    """Encode questions alone, to at most 64 tokens."""
    return PairTokenizer(PairTemplate.from_template(TEMPLATE, question_only=True), tokenizer, 64)


@pytest.fixture
def folder(make_judge):
    """A judge that reads the question alone, in two poolings."""
    reading = PairTemplate.from_template(TEMPLATE, question_only=True).to_dict()
    read = [feature(2, "response_mean", "rms_normed", "alone"), feature(3, "last", "raw", "alone")]
    return make_judge([aspect("known", read, classes=(0, 1))], {"alone": reading})


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def lines(path):
    return [json.loads(line) for line in Path(path).read_text(encoding="utf-8").splitlines()]


def run_config(name, variables, backbone, tmp_path):
    """Run a shipped config on a tiny backbone, with a quick evaluation."""
    steps = yaml.safe_load((CONFIGS / name).read_text(encoding="utf-8"))
    for step in steps:
        if step["stage"] in ("lager", "extract"):
            step |= {"backbone_id": backbone, "backbone_revision": None}
        if "search" in step:
            step["search"] |= {"depths": [2, 4], "inner_folds": 3}
        step |= QUICK if step["stage"] == "evaluate" else {}
    changed = tmp_path / name
    changed.write_text(yaml.safe_dump(steps, sort_keys=False), encoding="utf-8")
    run_steps(read_steps(str(changed), variables), name)


# Readings of the question alone


def test_a_reading_of_the_question_alone_is_said_and_kept(tokenizer):
    reading = PairTemplate.from_template(TEMPLATE, question_only=True)
    assert reading.text("2 + 2?", "4") == "Read: 2 + 2? Known?"
    assert PairTemplate.from_dict(json.loads(json.dumps(reading.to_dict()))) == reading and reading.question_only
    assert not PairTemplate.from_template("{question}{prediction}").question_only
    with pytest.raises(ReadingError, match="with {question} and {prediction} once each"):
        PairTemplate.from_template(TEMPLATE)
    with pytest.raises(ReadingError, match="with {question} once and without {prediction}, but got 1 and 1"):
        PairTemplate.from_template("{question}{prediction}", question_only=True)
    with pytest.raises(ReadingError, match="prefix expects str, but got"):
        PairTemplate.from_dict(reading.to_dict() | {"prefix": None})


@settings(max_examples=40)
@given(question=st.text(min_size=1).filter(lambda text: text.strip()), prediction=st.text(max_size=9))
def test_the_question_takes_the_place_of_the_response(alone, tokenizer, question, prediction):
    found = alone(question, prediction)
    assert found == alone(question, "") and len(found.input_ids) <= 64
    assert 0 < found.response.start < found.response.end <= len(found.input_ids)
    assert not alone.control_ids & set(found.input_ids[found.response.start : found.response.end])
    if not found.truncated:
        at = found.response
        assert question.strip() in tokenizer.decode(found.input_ids[at.start : at.end]) or "\ufffd" in question


def test_a_long_question_is_cut_in_its_middle(alone, tokenizer):
    found = alone("first " + "word " * 200 + "last", "")
    text = tokenizer.decode(found.input_ids)
    assert found.truncated and len(found.input_ids) == 64
    assert text.startswith("Read: first") and text.endswith("last Known?")


def test_control_tokens_that_a_question_spells_are_split(alone, tokenizer):
    found = alone("Is <|im_end|> a word?", "")
    assert tokenizer.convert_tokens_to_ids("<|im_end|>") not in found.input_ids
    assert tokenizer.decode(found.input_ids) == "Read: Is <|im_end|> a word? Known?"


def test_a_judge_of_questions_needs_no_prediction_and_ignores_one(folder, full_model, tokenizer):
    judge = load_judge(folder, device="cpu")
    questions = [pair["question"] for pair in PAIRS]
    results = judge([{"question": question} for question in questions])
    assert results == judge(PAIRS) == judge([{"question": q, "prediction": None} for q in questions])
    ids = tokenizer("Read: What is 2 + 2? Known?", return_tensors="pt")["input_ids"]
    states = full_model(ids, output_hidden_states=True).hidden_states
    read = judge.reader([judge.encode({"question": questions[0]})])
    last = next(values for feature, values in read.items() if feature.pooling == "last")
    assert last[0].tolist() == pytest.approx(states[3][0, -1].tolist(), abs=1e-4)
    with pytest.raises(PairError, match="Pair 1 expects the keys question, but 'question' is missing"):
        judge([{"question": "Why?"}, {"prediction": "So."}])
    with pytest.raises(PairError, match="for 'question', but got a blank string"):
        judge({"question": " "})


def test_another_judge_still_needs_predictions(judge):
    with pytest.raises(PairError, match="expects the keys question and prediction, but 'prediction' is missing"):
        judge({"question": "Why?"})


def test_every_way_to_score_takes_questions_alone(folder, tmp_path, capsys):
    rows = [{"question": pair["question"]} for pair in PAIRS]
    judge = load_judge(folder, device="cpu")
    expected = [result["scores"]["known"] for result in judge(rows)]
    assert [row["known"] for row in evaluate_samples(rows, judge)] == expected
    source, target, parts = write(tmp_path / "rows.jsonl", rows), tmp_path / "out.jsonl", tmp_path / "parts"
    common = ["score", source, "--judge", str(folder), "--device", "cpu"]
    assert cli([*common, "--output", str(target), "--format", "table"]) == 0
    assert [row["known"] for row in lines(target)] == expected
    assert cli([*common, "--output", f"{parts}/"]) == 0
    scored = [row for part in sorted(parts.glob("*.jsonl")) for row in lines(part)]
    assert [row["known"] for row in scored] == expected
    table = InspectorBatchScorer(judge)(pa.table({"question": [row["question"] for row in rows]}))
    assert table["known"].to_pylist() == expected
    capsys.readouterr()
    bad = write(tmp_path / "bad.jsonl", [{"prediction": "So."}])
    assert cli([*common[:1], bad, *common[2:]]) == 1
    assert "'question' is missing" in capsys.readouterr().err


def test_a_judge_of_questions_is_no_sequence_classifier(make_judge, tmp_path):
    reading = PairTemplate.from_template(TEMPLATE, question_only=True).to_dict()
    one = aspect("known", [feature(2, "last", "rms_normed", "alone")], "regression", classes=(0, 1))
    judge = load_judge(make_judge([one], {"alone": reading}), device="cpu")
    judge.model.centers.data.zero_()
    probe = judge.model.probes["known_probe"]
    probe.bias.data.zero_()
    probe.levels.data = probe.levels.data.new_tensor([0.0, 1.0])
    with pytest.raises(JudgeConfigError, match="question and prediction, but this judge's holds the question alone"):
        export_sequence_classification(judge, tmp_path / "plain")


def test_features_of_questions_hold_no_response(backbone, tmp_path):
    rows = [{"id": i, **pair, "scores": {"known": i % 2}} for i, pair in enumerate(PAIRS)]
    rows.append({"id": 9, "question": "Without a response?", "prediction": None, "scores": {"known": 1}})
    pairs = write(tmp_path / "rows.jsonl", rows)

    def features(name, *readings):
        config = ExtractConfig(pairs, str(tmp_path / name), backbone_id=backbone, backbone_revision=None, layers=(2,))
        extract(ExtractConfig(**{**vars(config), "readings": readings, "poolings": ("last",)}))
        return load_features(tmp_path / name)

    templates = tmp_path / "templates.json"
    templates.write_text(json.dumps([{"name": "alone", "template": TEMPLATE, "question_only": True}]))
    both = features("alone", "question", str(templates))
    assert list(both.readings) == ["question", "alone"]
    assert both.readings["question"].text("Why?", "").endswith("Why?<|im_end|>\n<|im_start|>assistant\n")
    assert [pair.prediction for pair in both.pairs] == [""] * 4, "a baseline may not know what the judge does not read"
    mixed = features("mixed", "question", "chat")
    assert [pair.prediction for pair in mixed.pairs] == [pair["prediction"] for pair in PAIRS]


# Self-knowledge


def test_known_questions_are_those_answered_right_more_often_than_not(tmp_path):
    given_rows = [(1, "a", 1), (1, "a", 1), (1, "b", 0), (1, "c", 0), (2, "a", 1), (2, "b", 0), (3, "x", None)]
    rows = [
        {"id": i, "question": f"Q{i}", "prediction": text, "scores": {"correctness": score, "fluency": 5}}
        for i, text, score in given_rows
    ]
    labelled = write(tmp_path / "labelled.jsonl", rows)
    found = known_questions(KnownConfig(labelled, str(tmp_path / "known.jsonl")))
    assert found == lines(tmp_path / "known.jsonl")
    assert [(row["id"], row["scores"]["known"]) for row in found] == [(1, 0), (2, None), (3, None)]
    assert "1 responses are right and as many are wrong" in found[1]["reasons"]["known"]
    assert all(row.keys() == {"id", "question", "scores", "reasons"} for row in found)


def test_self_knowledge_from_questions_to_a_judge(backbone, tmp_path):
    rows = [
        {"id": i, "question": f"What is {i} + {i % 7}" + ("?" if i % 3 else ", and why is that so?")}
        | {"prediction": str(i), "scores": {"correctness": int(i % 3 == 0)}}
        for i in range(40)
    ]
    known = tmp_path / "known.jsonl"
    known_questions(KnownConfig(write(tmp_path / "labelled.jsonl", rows), str(known)))
    run_config("self_knowledge.yaml", {"known": str(known), "work": str(tmp_path)}, backbone, tmp_path)
    entry = json.loads((tmp_path / "results.json").read_text())["aspects"]["known"]
    assert entry["n"] == 40 and entry["classes"] == [0, 1]
    assert entry["auroc"]["value"] > 0.9, "the kinds of question differ in their words"
    assert {"auroc"} <= entry["surface"].keys() and "gain_over_surface" in entry
    judge = load_judge(tmp_path / "judge", device="cpu")
    result = judge({"question": "What is 3 + 4?"})
    assert set(result["probabilities"]["known"]) == {0, 1}


# Ratings of texts


@pytest.mark.parametrize(
    ("classes", "good"),
    [([0, 1], [1]), ([1, 2, 3, 4, 5], [4, 5]), ([2, 3], []), (list(range(1, 10)), [7, 8, 9]), ([1, 5, 7, 10], [10])],
)
def test_good_labels_of_any_scale(classes, good):
    assert [c for c, yes in zip(classes, is_good(np.array(classes), classes), strict=True) if yes] == good


def test_the_ratings_that_are_shipped_follow_no_count_of_the_text():
    with (EXAMPLES / "valence.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    labels = [int(row["valence"]) for row in rows]
    assert len({row["text"] for row in rows}) == len(rows) == 63
    assert all(labels.count(rating) == 7 for rating in range(1, 10))
    texts = [row["text"] for row in rows]
    for counts in ([len(t) for t in texts], [len(t.split()) for t in texts], [t.count(",") for t in texts]):
        assert abs(spearmanr(counts, labels).statistic) < 0.15
    assert not any("!" in text for text in texts)


def test_labels_of_questions_must_be_asked_for(tmp_path):
    table = tmp_path / "table.csv"
    table.write_text("text,prediction,mood\nFine.,no,5\nSad.,no,1\n")
    columns = {"question": "text", "label": {"mood": "mood"}}

    def run(**changes):
        made = {**vars(DataConfig(str(tmp_path / "rows.jsonl"))), "path": str(table)}
        settings = DataConfig(**made).columns
        data(DataConfig(**{**made, "columns": type(settings)(**columns, **changes)}))
        return lines(tmp_path / "rows.jsonl")

    assert [(row["question"], row["scores"]) for row in run(question_only=True)] == [
        ("Fine.", {"mood": 5}),
        ("Sad.", {"mood": 1}),
    ]
    with pytest.raises(DataFileError, match=r"columns\.question_only or columns\.prediction, but got both"):
        run(question_only=True, prediction="prediction")
    table.write_text("text,mood\nFine.,5\n")
    with pytest.raises(DataFileError, match="or give --columns.question-only"):
        run()


def test_emotion_without_labels_with_a_few_and_by_a_probe(backbone, tmp_path):
    table = str(EXAMPLES / "valence.csv")
    run_config("emotion.yaml", {"table": table, "work": str(tmp_path)}, backbone, tmp_path)
    judges = [str(tmp_path / name) for name in ("zero", "tuned", "judge")]
    weights = [load_judge(one, device="cpu").model.probes["valence_probe"].layer_weights.tolist() for one in judges[:2]]
    assert weights[0] == pytest.approx([0.2] * 5) and weights[1] != pytest.approx([0.2] * 5, abs=1e-3)
    rows, few = (lines(tmp_path / f"{name}.jsonl") for name in ("rows", "few"))
    assert len(rows) == 63 and len(few) == 20
    report = rate_texts(
        RateConfig(str(tmp_path / "rows.jsonl"), tuple(judges), "valence", str(tmp_path / "few.jsonl"), 50)
    )
    assert report["n"] == 43
    kept = [row for row in rows if row["id"] not in {one["id"] for one in few}]
    for folder in judges:
        results = load_judge(folder, device="cpu")([{"question": row["question"]} for row in kept])
        expected = [result["expected"]["valence"] for result in results]
        assert all(
            1 <= value <= 9 and set(r["probabilities"]["valence"]) <= set(range(1, 10))
            for value, r in zip(expected, results, strict=True)
        )
        found = report[folder]["spearman"]
        assert found["low"] <= found["value"] <= found["high"]
        if folder == judges[0] or np.ptp(expected) > 1e-3:  # what is fitted to a random backbone may be a constant
            rho = spearmanr(expected, [row["scores"]["valence"] for row in kept]).statistic
            assert found["value"] == pytest.approx(rho, abs=1e-9)
    with pytest.raises(DataFileError, match="expects 5 or more labels of mood, but has 0"):
        rate_texts(RateConfig(str(tmp_path / "rows.jsonl"), (), "mood"))


def test_a_template_with_a_response_does_not_score_texts(backbone, tmp_path):
    templates = tmp_path / "templates.json"
    templates.write_text(json.dumps([{"name": "mood", "template": "{question} {prediction} Mood:"}]))
    settings = {"backbone_id": backbone, "backbone_revision": None, "aspects": (), "templates": str(templates)}
    config = LagerConfig(
        str(tmp_path / "judge"), **settings, custom_aspects=(Rubric("mood", "How glad?", 1, 9),), question_only=True
    )
    with pytest.raises(SettingsError, match="templates expects question_only as the stage has it, True, but one"):
        lager(config)


# Data selection


def test_selection_keeps_the_rows_with_the_best_mean_expectation(backbone, tmp_path):
    run_config("data_selection.yaml", {"work": str(tmp_path)}, backbone, tmp_path)
    source = tmp_path / "instructions.csv"
    some = (EXAMPLES / "support_replies.csv").read_text(encoding="utf-8").splitlines(keepends=True)[:13]
    source.write_text("".join(some), encoding="utf-8")
    judge, scored, best = str(tmp_path / "judge"), tmp_path / "scored", tmp_path / "best.jsonl"
    score = ["score", str(source), "--judge", judge, "--column", "prediction=reply", "--output", f"{scored}/"]
    assert cli([*score, "--device", "cpu"]) == 0
    names = [f"expected_{name}" for name in ("usefulness", "soundness", "depth", "clarity")]
    by = [part for name in names for part in ("--by", name)]
    assert cli(["filter", str(scored), *by, "--top", "0.25", "--reasons", "--output", str(best)]) == 0
    rows = [row for part in sorted(scored.glob("*.jsonl")) for row in lines(part)]
    means = [np.mean([row[name] for name in names]) for row in rows]
    expected = [rows[i] for i in np.argsort(-np.array(means), kind="stable")[:3]]
    assert lines(best) == expected and len(rows) == 12
    why = lines(tmp_path / "best_reasons.jsonl")[0]
    named = f"the mean of {', '.join(names)}"
    assert why[named] == pytest.approx(max(means)) and f"rank 1 of 12 rows by {named}" in why["reason"]


def test_ranking_by_several_columns_needs_all_of_them(tmp_path):
    source = write(tmp_path / "scored.jsonl", [{"a": 1, "b": 4}, {"a": 3, "b": 1}, {"a": 5}, {"a": 2, "b": 3.5}])
    found = filter_job(FilterJob(source, by=("a", "b"), best=2, output=str(tmp_path / "best.jsonl")))
    assert (found.rows, found.kept, found.unranked) == (4, 2, 1) and "'b'" in found.reason
    assert [row["a"] for row in lines(tmp_path / "best.jsonl")] == [2, 1]
    for by in ((), ("a", "a")):
        with pytest.raises(SettingsError, match="--by expects one column or different ones"):
            FilterJob(source, by=by, best=1)
