"""The data stage reads what other tools wrote, and what stands beside a pair reaches its features."""

import json

import pytest
from inspector_training.features.plan import ExtractConfig
from inspector_training.features.store import load_features
from inspector_training.rows.reading import as_pairs
from inspector_training.stages.data import Config as DataConfig
from inspector_training.stages.data import run as data
from inspector_training.stages.extract import run as extract
from support.tool_files import ALPACA, ANSWER, ASKED, OTHER, PAIR, QUESTION, RATED, READ, SAID, TALK, lines
from transformers import AutoTokenizer

from inspector_pipeline import PairTemplate
from inspector_pipeline.errors import DataFileError, PairError
from inspector_pipeline.files.tables import read_rows
from inspector_pipeline.pair_tokenizer import PairTokenizer

AGAINST = "Q: {question}\nRight: {reference}\nA: {prediction}\n"


@pytest.fixture(scope="session")
def family():
    return "llama"


@pytest.mark.parametrize("tool", ["TRL prompt and completion", "ShareGPT", "lm-eval", "Label Studio", "completions"])
def test_the_data_stage_reads_them(tool, tmp_path):
    name, text, pairs = READ[tool]
    (tmp_path / name).write_text(text)
    data(DataConfig(str(tmp_path / "rows.jsonl"), path=str(tmp_path / name)))
    rows = read_rows(str(tmp_path / "rows.jsonl"))
    assert [{key: row[key] for key in pair} for row, pair in zip(rows, pairs, strict=True)] == pairs


def test_an_answer_beside_a_problem_is_gold_and_a_preference_one_row(tmp_path):
    (tmp_path / "in.jsonl").write_text(lines({"problem": QUESTION, "answer": "4"}))
    data(DataConfig(str(tmp_path / "rows.jsonl"), path=str(tmp_path / "in.jsonl")))
    (row,) = read_rows(str(tmp_path / "rows.jsonl"))
    assert (row["question"], row["answer"]) == (QUESTION, "4") and "prediction" not in row
    chosen = {"prompt": ASKED, "chosen": SAID, "rejected": [{**SAID[0], "content": OTHER}], "margin": 2}
    names = {"question": None, "prediction": None}
    expected = {"prompt": ASKED, "question": QUESTION, "chosen": ANSWER, "rejected": OTHER, "margin": 2}
    assert as_pairs([chosen], names, "rows") == [expected]
    assert as_pairs([ALPACA], {"question": "instruction"}, "rows") == [ALPACA]  # as it is named
    with pytest.raises(DataFileError, match="--column prediction=response or"):
        as_pairs([{"prompt": "q", "response": "a", "output": "b"}], names, "rows")


def test_what_stands_beside_a_response_in_a_list_stays_with_it():
    good, bad = as_pairs([RATED], {"question": None, "prediction": None}, "rows")
    assert (good["prediction"], good["overall_score"], good["completions.model"]) == (ANSWER, 8.5, "a")
    assert (bad["overall_score"], bad["completions.model"], bad["model"]) == (3, "b", "several")


def test_rows_for_a_judge_hold_every_text_that_it_needs(caplog):
    keys = ("question", "prediction")
    assert as_pairs([PAIR], {}, "rows", keys=keys) == [PAIR]
    found = as_pairs([{"messages": [*TALK["question_turns"], *SAID], "id": 3}], {}, "rows", keys=keys)
    assert [{key: row[key] for key in TALK} for row in found] == [TALK] and found[0]["id"] == 3
    assert "question = messages up to the last reply" in caplog.text
    with pytest.raises(PairError, match="rows: row 1: A conversation expects to end with the assistant"):
        as_pairs([{"messages": [*ASKED, *SAID]}, {"messages": ASKED}], {}, "rows", keys=keys)


def test_a_row_without_a_pair_is_told_and_rejected(tmp_path, caplog):
    (tmp_path / "in.jsonl").write_text(lines({"messages": [*ASKED, *SAID]}, {"messages": ASKED}))
    data(DataConfig(str(tmp_path / "rows.jsonl"), path=str(tmp_path / "in.jsonl")))
    assert len(read_rows(str(tmp_path / "rows.jsonl"))) == 1
    assert len(read_rows(str(tmp_path / "rows.jsonl.rejects.jsonl"))) == 1
    assert "1 rows hold no pair: A conversation expects to end with the assistant's turn" in caplog.text


def test_references_and_conversations_reach_the_features(tmp_path, backbone_dir):
    (tmp_path / "in.jsonl").write_text(lines({**PAIR, "reference": "4"}, {**TALK, "reference": "four"}))
    data(DataConfig(str(tmp_path / "rows.jsonl"), path=str(tmp_path / "in.jsonl")))
    (tmp_path / "against.json").write_text(json.dumps({"name": "against", "template": AGAINST}))
    settings = {"backbone_id": str(backbone_dir), "backbone_revision": None, "max_length": 256, "layers": (1,)}
    readings = ("chat", str(tmp_path / "against.json"))
    extract(ExtractConfig(str(tmp_path / "rows.jsonl"), str(tmp_path / "out"), readings=readings, **settings))
    pairs = load_features(tmp_path / "out").pairs
    assert [pair.reference for pair in pairs] == ["4", "four"] and pairs[1].question_turns == TALK["question_turns"]
    tokenizer = AutoTokenizer.from_pretrained(backbone_dir)
    templates = PairTemplate.from_chat_template(tokenizer), PairTemplate.from_template(AGAINST)
    encoders = [PairTokenizer(template, tokenizer, 256) for template in templates]
    tokens = sum(len(encode(**pair.texts).input_ids) for encode in encoders for pair in pairs)
    assert json.loads((tmp_path / "out" / "stats.json").read_text())["tokens"] == tokens
    (tmp_path / "bare.jsonl").write_text(lines({**PAIR, "id": 1}))
    with pytest.raises(PairError, match="the pair has no reference"):
        extract(ExtractConfig(str(tmp_path / "bare.jsonl"), str(tmp_path / "bare"), readings=readings, **settings))
