"""The embedded judge on its real backbone: what a newcomer sees."""

import json
from pathlib import Path

import pytest
import torch
from inspector_training.rows.probing_set import read_probing_set
from support.results import alike
from transformers import pipeline

from inspector_pipeline import EXAMPLES, InspectorModel, evaluate_samples, load_judge
from inspector_pipeline.api.load import EMBEDDED_JUDGE, EMBEDDED_JUDGES, judge_name
from inspector_pipeline.batches import collate
from inspector_pipeline.pairs import check_pair

COUNTED = {"semantic_consistency", "logicality", "informativeness", "fluency", "factuality"}
ASPECTS = COUNTED | {"correctness"}
RESULTS = json.loads((EMBEDDED_JUDGE / "results.json").read_text())


@pytest.fixture(scope="module")
def examples():
    return [json.loads(line) for line in EXAMPLES.read_text().splitlines()]


@pytest.fixture(scope="module")
def scored(embedded, examples):
    """What the judge says of the examples, in one call."""
    return embedded(examples)


def test_the_assets_are_probes_config_evidence_and_card():
    names = {path.name: path.stat().st_size for path in EMBEDDED_JUDGE.iterdir()}
    plots = {"layer_curve.png", "reliability.png", "confusion.png"}
    assert set(names) == {"config.json", "model.safetensors", "results.json", "audit.json", "README.md"} | plots
    assert names["model.safetensors"] < 6_000_000


def test_the_embedded_judges_name_stands_for_its_folder(monkeypatch, tmp_path):
    assert judge_name("embedded") == judge_name(None) == str(EMBEDDED_JUDGE)
    (tmp_path / "embedded").mkdir()
    monkeypatch.chdir(tmp_path)
    assert judge_name("embedded") == str(EMBEDDED_JUDGE)  # whatever folder one is in
    assert judge_name("./embedded") == "./embedded"
    assert judge_name(Path("embedded")) == "embedded"  # a path is a path


def test_the_sibling_in_whole_numbers_has_evidence_beside_that_of_the_same_folds():
    folder = EMBEDDED_JUDGES["embedded-int8"]
    config, results = (json.loads((folder / name).read_text()) for name in ("config.json", "results.json"))
    assert config["engine"]["name"] == "torch-int8" and 0.01 < config["engine"]["state_error"] < 0.1
    for part in ("auroc", "same_question"):
        own, other = (one["matched"]["correctness"][part]["value"] for one in (results, RESULTS))
        assert own > other - 0.005
    assert results["mean"]["auroc"]["value"] > RESULTS["mean"]["auroc"]["value"] - 0.005
    assert "embedded-int8" in (folder / "README.md").read_text()


@pytest.mark.slow
def test_the_sibling_gives_the_same_scores_in_any_company(examples, embedded):
    judge = load_judge("embedded-int8", device="cpu")
    together = judge(examples[:4])
    alone = judge(examples[1])
    assert together[1]["expected"] == pytest.approx(alone["expected"], abs=1e-4)
    assert alone["expected"]["correctness"] < together[0]["expected"]["correctness"] - 0.2, (
        "the second's sums are wrong"
    )


def test_the_evidence_has_the_documented_form_and_the_config_its_classes():
    config = json.loads((EMBEDDED_JUDGE / "config.json").read_text())
    assert {aspect["name"]: aspect["classes"] for aspect in config["aspects"]} == {
        name: entry["classes"] for name, entry in RESULTS["aspects"].items()
    }
    assert set(RESULTS["aspects"]) == ASPECTS and RESULTS["aspects"]["fluency"]["classes"] == [3, 4, 5]
    for entry in [*RESULTS["aspects"].values(), RESULTS["mean"]]:
        for metrics in (entry, entry["surface"], entry["gain_over_surface"], entry["length"], entry["majority"]):
            for name in ("auroc", "macro_f1", "spearman", "qwk", "mae", "brier"):
                assert metrics[name]["low"] <= metrics[name]["value"] <= metrics[name]["high"]
    assert RESULTS["judge"]["depth"] == config["depth"]
    assert RESULTS["audit"]["found"]["foreign"] == 40 and RESULTS["candidates_tried"] > 0
    assert RESULTS["transfer"]["damaged_features"]["correctness"]["n"] == 600
    assert RESULTS["transfer"]["gsm8k_test_features"]["correctness"]["n"] == 1564
    matched = RESULTS["matched"]["correctness"]
    assert matched["n_rows"] == 3104 and matched["n_generators"] == 23
    assert matched["gain_over_length"]["same_question"]["low"] > 0 < matched["gain_over_tfidf"]["auroc"]["low"]
    assert matched["unseen_generators"]["same_question"]["low"] > 0.5
    bounds = {"general_features": (0.9, 1), "mmlu_features": (0.9, 1), "gsm8k_test_features": (0, 0.02)}
    for name, (least, most) in bounds.items():
        shares = RESULTS["unfamiliar"]["others"][name].values()
        n = sum(share["rows"] for share in shares)
        assert least <= sum(share["rows"] * share["unfamiliar"] for share in shares) / n <= most
    forms = RESULTS["degenerate"]["forms"]
    least = dict.fromkeys(("bare_wrong", "echo", "empty_talk", "noise", "cut", "sentence_wrong", "master_key"), 0.95)
    for form, share in {**least, "other_answer": 0.92, "exchanged": 0.8}.items():
        assert forms[form]["above"]["value"] >= share, form


def test_the_card_shows_the_evidence():
    card = (EMBEDDED_JUDGE / "README.md").read_text()
    for name, entry in RESULTS["aspects"].items():
        row = next(line for line in card.splitlines() if line.startswith(f"| {name} |") and "(" in line)
        assert f"{entry['auroc']['value']:.3f}" in row and f"{entry['surface']['auroc']['value']:.3f}" in row


def test_the_examples_are_pairs(examples):
    assert len(examples) == 12 and len({example["kind"] for example in examples}) == 12
    for index, example in enumerate(examples):
        check_pair(example, index)


@pytest.mark.slow
def test_the_default_judge_scores_real_pairs(scored, examples):
    judge = pipeline("inspector-judge", device="cpu")
    results = judge(examples)
    assert results == scored
    by_kind = {example["kind"]: result for example, result in zip(examples, results, strict=True)}
    assert all(set(result["scores"]) == ASPECTS and not result["truncated"] for result in results)
    assert all(result["total_score"] == sum(result["scores"][name] for name in COUNTED) for result in results)
    assert judge.model.config.rank_by == "expected_correctness"
    worked = by_kind["right, step by step"]
    assert by_kind["wrong arithmetic, carried on"]["expected"]["correctness"] < worked["expected"]["correctness"] - 0.4
    assert worked["unfamiliar"] is False and worked["seen"] is False
    for bad in ("unreadable", "off topic", "loses the thread", "answer only", "invents a fact"):
        assert by_kind[bad]["expected"]["correctness"] < worked["expected"]["correctness"] - 0.2
    for strange in ("unreadable", "off topic", "answer only"):
        assert by_kind[strange]["unfamiliar"] and by_kind[strange]["unfamiliar_reason"]


@pytest.mark.slow
def test_scores_do_not_depend_on_batch_or_order(embedded, examples, scored):
    alone = [embedded(example) for example in examples[:5]]
    for results in (scored, embedded(examples[:5], batch_size=3), embedded(examples[4::-1])[::-1]):
        for a, b in zip(results, alone, strict=False):
            assert a["expected"] == pytest.approx(b["expected"], abs=1e-4)


@pytest.mark.slow
def test_packs_and_shared_prefixes_change_no_score_of_real_pairs(data_dir, embedded):
    """Against a plain pass of one pair at a time, through the model's own forward."""
    pairs, _ = read_probing_set(data_dir / "reference" / "Meta-Llama-3-8B-Instruct_gsm8k_roscoe5dim_probing.json")
    sample = [{"question": pair.question, "prediction": pair.prediction} for pair in pairs[:2]]
    sample += [{**sample[0], "prediction": text} for text in ("It is 5.", sample[1]["prediction"])]
    assert embedded.reader.is_packed
    with torch.inference_mode():
        plain = [embedded.model(**collate([embedded.encode(pair)["chat"]], 0)) for pair in sample]
    for results in (embedded(sample), embedded(sample, share_prefixes=False)):
        for result, expected in zip(results, plain, strict=True):
            assert list(result["scores"].values()) == expected.scores[0].tolist()
            assert list(result["expected"].values()) == pytest.approx(expected.expected[0].tolist(), abs=1e-4)


@pytest.mark.slow
def test_evaluate_samples_uses_it_by_default(embedded, examples, scored):
    rows = evaluate_samples(examples[:4])
    assert [{name: row[name] for name in ASPECTS} for row in rows] == [result["scores"] for result in scored[:4]]
    assert len(evaluate_samples(examples[:4], embedded, top_percent=0.25)) == 1


@pytest.mark.slow
def test_it_can_be_fused_and_shared_with_another_probe_set(embedded, examples, tmp_path):
    embedded.save_pretrained(tmp_path / "fused")
    fused = pipeline("inspector-judge", model=str(tmp_path / "fused"), device="cpu")
    assert alike(fused(examples[:2]), embedded(examples[:2]))
    shared = InspectorModel.from_pretrained(EMBEDDED_JUDGE, share_backbone_with=embedded.model)
    ids = torch.arange(3, 40)[None]
    with torch.no_grad():
        inputs = {"response_mask": torch.ones_like(ids), "wrong_sums": torch.tensor([False])}
        assert torch.equal(shared(ids, **inputs).expected, embedded.model(ids, **inputs).expected)
