"""LAGER's own rows, scored by whole prompts: directly, and after feedback."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from inspector_training.evaluation.correlations import correlations, pearson
from inspector_training.labelling.rubrics import CRITERIA, chosen_rubrics
from inspector_training.runs.manifest import Manifest
from inspector_training.score_tokens.prompt_rows import PromptColumns
from inspector_training.score_tokens.weights import TuningConfig
from inspector_training.stages.lager_prompts import Config as LagerPromptsConfig
from inspector_training.stages.lager_prompts import run as lager_prompts
from scipy.stats import kendalltau, pearsonr, spearmanr
from support.causal import save_causal
from transformers import AutoModelForCausalLM, LlamaForCausalLM

from inspector_pipeline.errors import DataFileError, ReadingError, SettingsError

N = 12
ROWS = [
    {
        "id": f"r{i}",
        "user_prompt": f"Rate from 1 to 5 how kind this is: {'well done ' * (i % 4)}{i}",
        "user_prompt_feedback": f"Explain, then rate {i} from 1 to 5, as Score: <integer>",
        "score": [1 + i % 5, 3] if i % 2 else 1 + i % 5,
    }
    for i in range(N)
]
GIVEN = [float(np.mean(row["score"])) for row in ROWS]


@pytest.fixture(scope="module")
def backbone(tmp_path_factory, tokenizer):
    return str(save_causal(tmp_path_factory.mktemp("causal"), "llama", tokenizer))


@pytest.fixture
def scored(backbone, tmp_path):
    """Run the stage, and return its rows and results."""

    def run(rows=ROWS, **changes):
        source, output = tmp_path / "rows.jsonl", tmp_path / "out"
        source.write_text("".join(json.dumps(row) + "\n" for row in rows))
        lager_prompts(LagerPromptsConfig(str(source), str(output), backbone, backbone_revision=None, **changes))
        found = [json.loads(line) for line in (output / "scored.jsonl").read_text().splitlines()]
        return found, json.loads((output / "results.json").read_text())

    return run


@torch.no_grad()
def expected_score(backbone, tokenizer, text, written, scores=(1, 2, 3, 4, 5)):
    """What the score tokens after a text expect, all layers alike, by plain transformers."""
    model = AutoModelForCausalLM.from_pretrained(backbone).eval()
    ids = tokenizer(text, add_special_tokens=False, return_tensors="pt")["input_ids"]
    states = model(ids, output_hidden_states=True).hidden_states
    tokens = [tokenizer(f"{text}{word}", add_special_tokens=False)["input_ids"][ids.shape[1]] for word in written]
    logits = torch.stack([state[0, -1] @ model.lm_head.weight[tokens].T for state in states]).mean(dim=0)
    return float(logits.softmax(dim=0) @ torch.tensor(scores, dtype=torch.float32))


def as_turn(tokenizer, prompt):
    return tokenizer.apply_chat_template(
        [{"role": "user", "content": prompt}], tokenize=False, add_generation_prompt=True
    )


def test_each_prompt_is_scored_by_one_prefill_and_measured_against_its_own_score(scored, backbone, tokenizer, tmp_path):
    found, results = scored([*ROWS, {"user_prompt": "Rate this, which nobody did.", "note": "kept"}])
    assert [{key: row[key] for key in own} for row, own in zip(found, ROWS, strict=False)] == ROWS
    assert found[-1]["note"] == "kept" and found[-1]["lager_score"] in range(1, 6)
    for row in found[:3]:
        expected = expected_score(backbone, tokenizer, as_turn(tokenizer, row["user_prompt"]), "12345")
        assert row["lager_expected"] == pytest.approx(expected, abs=1e-4)
        assert row["lager_score"] == round(expected) and row["lager_reason"] is None
    ours = [row["lager_expected"] for row in found[:N]]
    assert results["spearman"]["value"] == pytest.approx(spearmanr(ours, GIVEN).statistic, abs=1e-4)
    assert results["pearson"]["value"] == pytest.approx(pearsonr(ours, GIVEN).statistic, abs=1e-4)
    assert results["kendall"]["value"] == pytest.approx(kendalltau(ours, GIVEN).statistic, abs=1e-4)
    assert results["mae"]["value"] == pytest.approx(np.abs(np.array(ours) - GIVEN).mean(), abs=1e-4)
    for metric in ("spearman", "pearson", "kendall", "mae"):
        assert results[metric]["low"] < results[metric]["value"] < results[metric]["high"]
    assert (results["n"], results["n_compared"], results["n_null"]) == (N + 1, N, 0)
    assert results["condition"] == "direct" and results["layer_weights"] == "uniform"
    assert set(Manifest.read(tmp_path / "out", "lager_prompts").outputs) == {"scored.jsonl", "results.json"}


def test_a_scale_may_be_written_in_other_words_and_weights_tuned(scored, backbone, tokenizer, tmp_path):
    rows = [{"user_prompt": f"Choose A, B or C for {i}.", "score": 50 * (i % 3)} for i in range(6)]
    letters = {"scores": (0, 50, 100), "written": ("A", "B", "C"), "answer": "Score:"}
    found, results = scored(rows, **letters)
    text = as_turn(tokenizer, rows[0]["user_prompt"]) + "Score:"
    expected = expected_score(backbone, tokenizer, text, "ABC", (0, 50, 100))
    assert found[0]["lager_expected"] == pytest.approx(expected, abs=1e-3) and found[0]["lager_score"] in (0, 50, 100)
    tuned, told = scored(rows, **letters, validation=str(tmp_path / "rows.jsonl"), tuning=TuningConfig(method="convex"))
    assert len(told["layer_weights"]) == 5 and sum(told["layer_weights"]) == pytest.approx(1, abs=1e-5)
    assert told["mae"]["value"] != results["mae"]["value"]
    assert [row["lager_expected"] for row in tuned] != [row["lager_expected"] for row in found]


def test_feedback_is_written_first_and_its_score_read_in_place(scored, backbone, tokenizer, monkeypatch):
    said = {"Explain, then rate 1 ": "Well said. Score: 3. Bye", "Explain, then rate 2 ": "I cannot."}
    asked = []

    def generate(self, input_ids, max_new_tokens, **_options):  # a random model would not say it
        asked.append(max_new_tokens)
        replies = [next(r for start, r in said.items() if start in tokenizer.decode(ids)) for ids in input_ids]
        encoded = [tokenizer(reply)["input_ids"] for reply in replies]
        width = max(map(len, encoded))
        end = self.generation_config.eos_token_id
        return torch.cat([input_ids, torch.tensor([ids + [end] * (width - len(ids)) for ids in encoded])], dim=1)

    monkeypatch.setattr(LlamaForCausalLM, "generate", generate)
    rows = [*ROWS[1:3], {"user_prompt": "Rate it.", "score": 2}]
    found, results = scored(rows, feedback=True)
    text = as_turn(tokenizer, ROWS[1]["user_prompt_feedback"]) + "Well said. Score:"
    expected = expected_score(backbone, tokenizer, text, [" 1", " 2", " 3", " 4", " 5"])
    assert found[0]["lager_expected"] == pytest.approx(expected, abs=1e-4)
    assert found[0]["lager_feedback"] == "Well said. Score: 3. Bye" and found[0]["lager_reason"] is None
    assert [row["lager_score"] for row in found[1:]] == [None, None] == [row["lager_expected"] for row in found[1:]]
    assert found[1]["lager_reason"] == "the reply gives no score" and found[1]["lager_feedback"] == "I cannot."
    assert found[2]["lager_reason"] == "the row has no user_prompt_feedback"
    assert set(asked) == {256} and results["condition"] == "feedback"
    assert results["reasons"] == {"the reply gives no score": 1, "the row has no user_prompt_feedback": 1}
    assert (results["n_null"], results["n_compared"], results["spearman"]["value"]) == (2, 1, None)
    assert results["mae"]["value"] == pytest.approx(abs(expected - GIVEN[1]), abs=1e-3)


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"scores": (1, 2, 3)}, DataFileError, "row 2 expects a score from 1 to 3, but got 4"),
        ({"scores": (1, 10, 11)}, ReadingError, "but 1 and 10 both begin with '1'"),
        ({"scores": (5, 1)}, SettingsError, "scores expects two or more, ascending"),
        ({"written": ("A", "B")}, SettingsError, "written expects a text for each of"),
    ],
)
def test_scales_that_do_not_fit_are_refused(scored, changes, error, message):
    with pytest.raises(error, match=message):
        scored([{**row, "score": 1 + i if i < 4 else 1} for i, row in enumerate(ROWS)][1:], **changes)


@torch.no_grad()
def logits_after(backbone, tokenizer, text, tokens):
    model = AutoModelForCausalLM.from_pretrained(backbone).eval()
    ids = tokenizer(text, add_special_tokens=False, return_tensors="pt")["input_ids"]
    states = model(ids, output_hidden_states=True).hidden_states
    return torch.stack([state[0, -1] @ model.lm_head.weight[tokens].T for state in states]).mean(dim=0)


def test_ten_levels_are_told_apart_by_a_second_state_where_the_tokenizer_splits_ten(scored, backbone, tokenizer):
    rows = [{"user_prompt": f"Rate {i} from 1 to 10.", "score": 1 + i % 10} for i in range(3)]
    found, results = scored(rows, scores=tuple(range(1, 11)))
    assert results["scores"] == list(range(1, 11)) and results["layer_weights"] == "uniform"
    digits = [tokenizer(str(i), add_special_tokens=False)["input_ids"] for i in range(11)]
    assert len(digits[10]) == 2 and digits[10] == digits[1] + digits[0]
    for row, own in zip(rows, found, strict=True):
        text = as_turn(tokenizer, row["user_prompt"])
        shares = logits_after(backbone, tokenizer, text, [digits[i][0] for i in range(1, 10)]).softmax(dim=0)
        end, zero = logits_after(backbone, tokenizer, f"{text}1", [tokenizer.eos_token_id, digits[0][0]]).softmax(dim=0)
        levels = [*range(2, 10), 1, 10]
        joined = torch.cat([shares[1:], shares[:1] * end, shares[:1] * zero])
        assert joined.sum() == pytest.approx(1, abs=1e-5)
        assert own["lager_expected"] == pytest.approx(float(joined @ torch.tensor(levels).float()), abs=1e-3)
        assert own["lager_score"] == round(own["lager_expected"])
    with pytest.raises(SettingsError, match="10 begins with that of 1 in this tokenizer"):
        scored(rows, scores=tuple(range(1, 11)), feedback=True)


def test_lagers_files_are_read_as_they_are_and_told_by_criterion(backbone, tmp_path):
    """Objects, one a line, in a file named .json; the prompt of one criterion; several scores of people."""
    names = ("relevance", "diversity")
    rows = [
        {"prompt_relevance": f"Rate {i} from 1 to 9.", "aspect": names[i % 2], "human": [1 + i % 9, 2 + i % 8]}
        for i in range(8)
    ]
    source = tmp_path / "flask.json"
    source.write_text("".join(json.dumps(row) + "\n" for row in rows))
    columns = PromptColumns(prompt="prompt_relevance", score="human")
    config = LagerPromptsConfig(str(source), str(tmp_path / "out"), backbone, None, columns=columns, criterion="aspect")
    lager_prompts(replace(config, scores=tuple(range(1, 10))))
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    found = [json.loads(line) for line in (tmp_path / "out" / "scored.jsonl").read_text().splitlines()]
    assert [{key: row[key] for key in rows[0]} for row in found] == rows
    for at, name in enumerate(names):
        own = results["by_criterion"][name]
        expected = [row["lager_expected"] for row in found[at::2]]
        truth = [float(np.mean(row["human"])) for row in rows[at::2]]
        assert own["n_compared"] == 4
        assert own["kendall"]["value"] == pytest.approx(kendalltau(truth, expected).statistic, abs=1e-4)
        assert own["pearson"]["value"] == pytest.approx(pearsonr(truth, expected).statistic, abs=1e-4)
    with pytest.raises(DataFileError, match="row 0 expects a value of 'domain', the criterion"):
        lager_prompts(replace(config, criterion="domain", output=str(tmp_path / "other")))
    source.write_text(json.dumps(rows[0]) + "\n{")
    with pytest.raises(DataFileError, match=r"flask.json:2 expects a JSON object"):
        lager_prompts(config)


def test_correlations_are_those_of_scipy_in_every_resample():
    rng = np.random.default_rng(3)
    truth = rng.integers(1, 6, 30).astype(float)
    values = truth + rng.normal(size=30)
    weights = np.vstack([np.ones(30), rng.multinomial(30, [1 / 30] * 30, size=3)])
    for draw, found in zip(weights, pearson(truth, values, weights), strict=True):
        drawn = np.repeat(np.arange(30), draw.astype(int))
        assert found == pytest.approx(pearsonr(truth[drawn], values[drawn]).statistic, abs=1e-12)
    flat, none = correlations(truth, np.full(30, 2.0), 5, 0), correlations(np.full(30, 2.0), values, 5, 0)
    assert {one["value"] for one in flat.values()} == {0.0} and {one["value"] for one in none.values()} == {None}


def test_the_seven_criteria_are_rubrics_of_nine_levels():
    names = ["answer_accuracy", "logical_consistency", "relevance", "fluency_and_clarity", "length_appropriateness"]
    names += ["diversity", "instruction_difficulty"]
    assert list(CRITERIA) == names
    assert [rubric.scores for rubric in chosen_rubrics(names, "1-9", ())] == [list(range(1, 10))] * 7
    with pytest.raises(SettingsError, match="expects names out of answer_accuracy, .* but got 'factuality'"):
        chosen_rubrics(["factuality"], "1-9", ())
