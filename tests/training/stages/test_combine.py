"""The judge that stacks score tokens with probes: its head, its config, the stage, and the same uses as any judge."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from inspector_cli.main import main as cli
from inspector_training.evaluation.methods.base import Fold
from inspector_training.evaluation.methods.probes import ProbesConfig, ProbesMethod, open_design
from inspector_training.evaluation.methods.stacked import CombinedMethod
from inspector_training.evaluation.procedure import Procedure
from inspector_training.features.plan import ExtractConfig
from inspector_training.labelling.rubrics import Rubric
from inspector_training.probing.settings import SearchConfig
from inspector_training.probing.table import Labels, counted_table
from inspector_training.rows.records import LabelledPair, labelled_pairs, read_records
from inspector_training.score_tokens.judge import ScoreStates
from inspector_training.score_tokens.logits import LogitsSettings, cached_layer_logits
from inspector_training.score_tokens.stack import NO_LABELS, ONE_KIND, Combination, Stack, left_out
from inspector_training.score_tokens.weights import TuningConfig
from inspector_training.stages.combine import Config as CombineConfig
from inspector_training.stages.combine import run as combine
from inspector_training.stages.compare import Config as CompareConfig
from inspector_training.stages.compare import ScoreTokensConfig
from inspector_training.stages.compare import run as compare
from inspector_training.stages.extract import run as extract
from inspector_training.stages.lager import Config as LagerConfig
from inspector_training.stages.lager import run as lager
from support.causal import save_causal
from transformers import pipeline

from hub_cards.backbone_license import find_license
from hub_cards.saved_judge import SavedJudge
from hub_cards.staging import stage
from inspector_pipeline import InspectorConfig, load_judge
from inspector_pipeline.errors import DataFileError, JudgeConfigError, SettingsError
from inspector_pipeline.files.tables import read_json
from inspector_pipeline.heads import StackedHead
from push_to_hub import main as push

RUBRICS = (Rubric("tone", "How kind it is.", 1, 5, {1: "rude", 5: "kind"}), Rubric("wit", "How witty it is.", 1, 5))
KIND, RUDE = ("thank you", "please", "well done"), ("go away", "no", "nonsense")
SEARCH = SearchConfig(heads=(), finalists=1, inner_folds=2, penalties=(1.0,), sharings=(1.0,))
SHARED = {"backbone_revision": None}


def make_labelled(n=30, one_kind=()):
    """Pairs whose tone is said by a word; nobody is scored 2, though it is asked for; one aspect does not count."""
    rng = np.random.default_rng(0)
    pairs = []
    for i in range(n):
        kind = i % 2 == 0
        words = " ".join(rng.choice(KIND if kind else RUDE, 3))
        tone, wit = int(rng.choice([4, 5] if kind else [1, 3])), int(rng.choice([1, 3, 4, 5]))
        scores = {"tone": tone, "wit": wit, "correctness": int(i % 3 == 0)}
        scores |= dict.fromkeys(one_kind, 1)
        pairs.append(LabelledPair(f"q{i}", f"What of {i}?", f"{words}, {i}.", scores))
    return pairs


def write(path, pairs):
    path.write_text("".join(json.dumps(vars(pair)) + "\n" for pair in pairs))
    return path


def make_inputs(folder, family, tokenizer):
    backbone = str(save_causal(folder / "backbone", family, tokenizer))
    rows = write(folder / "labelled.jsonl", make_labelled())
    extract(ExtractConfig(str(rows), str(folder / "features"), backbone_id=backbone, **SHARED))
    lager(LagerConfig(str(folder / "lager"), aspects=(), custom_aspects=RUBRICS, backbone_id=backbone, **SHARED))
    return folder


@pytest.fixture(scope="session")
def _made(tmp_path_factory, tokenizer):
    made = {}

    def make(family):
        if family not in made:
            made[family] = make_inputs(tmp_path_factory.mktemp(f"combine-{family}"), family, tokenizer)
            combine(config_in(made[family], made[family] / "combined"))
        return made[family]

    return make


@pytest.fixture
def both(_made, family):
    """Labelled rows, features, a judge of score tokens and the combined one, on each family's backbone."""
    return _made(family)


@pytest.fixture
def made(_made):
    """The same on one family's, where nothing depends on it."""
    return _made("llama")


def config_in(folder, output, **changes):
    inputs = {"pairs": "labelled.jsonl", "features": "features", "judge": "lager"}
    paths = {name: str(folder / place) for name, place in inputs.items()}
    logits = str(folder / "logits.safetensors")
    return CombineConfig(**{**paths, "output": str(output), "search": SEARCH, "logits": logits, **changes})


def opened(folder):
    """Open what the stage fits on: probes and score tokens of all rows."""
    config = config_in(folder, folder / "combined")
    pairs = labelled_pairs(read_records(config.pairs), unlabelled=True)
    labels = counted_table(pairs, SEARCH.uncounted)
    probes = ProbesMethod("probes", open_design(config.features, pairs, labels), SEARCH)
    settings = LogitsSettings(config.judge, config.pairs, SEARCH.uncounted)
    return pairs, labels, probes, cached_layer_logits(settings, pairs, labels, config.logits_file)


# The head


@given(st.integers(1, 3), st.integers(1, 4), st.integers(2, 5), st.integers(2, 6), st.integers(0, 99))
def test_the_head_is_its_formula(n_features, n_states, n_classes, n_tokens, seed):
    generator = torch.Generator().manual_seed(seed)
    head = StackedHead(n_features, n_states, 4, n_classes, n_tokens, "ordinal")
    for parameter in head.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator)
    features = torch.randn(3, n_features, 4, generator=generator)
    states = torch.randn(3, n_states, 4, generator=generator)
    found = head(features, states)
    assert found.shape == (3, 1)
    for i in range(3):
        value = head.bias.double().item() + (head.weight[0].double() * features[i].double()).sum().item()
        for layer in range(n_states):
            logits = head.token_weight.double() @ states[i, layer].double() + head.token_bias.double()
            shares = (logits - logits.max()).exp()
            value += head.expectation_weights[layer].item() * (shares / shares.sum() @ head.levels.double()).item()
        assert found[i].item() == pytest.approx(value, abs=1e-4)


# The fit


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 99), st.integers(1, 5))
def test_a_stack_is_one_linear_map_of_each_aspect(seed, n_layers):
    rng = np.random.default_rng(seed)
    n = 24
    pairs = [LabelledPair(f"q{i}", f"{i}?", "!", {"a": 1 + i % 5, "b": 5 - i % 4}) for i in range(n // 2)]
    rows = Labels.of(pairs)
    values, expected = rng.normal(size=n), rng.normal(3, 1, size=(n, n_layers))
    stack = Stack.fit(values, expected, rows, SearchConfig())
    assert 0 <= stack.probe_share <= 1
    found = stack.values(values, expected, rows.aspect)
    for a in (0, 1):
        own, linear = rows.aspect == a, stack.linear(a)
        folded = linear.probe * values[own] + expected[own] @ linear.layers + linear.bias
        np.testing.assert_allclose(folded, found[own], atol=1e-9)


def test_a_stack_trusts_what_knows_the_label():
    rng = np.random.default_rng(0)
    pairs = [LabelledPair(f"q{i}", f"{i}?", "!", {"a": 1 + i % 5}) for i in range(100)]
    rows = Labels.of(pairs)
    truth, noise = rows.score + rng.normal(0, 0.3, 100), rng.normal(size=100)
    probe_knows = Stack.fit(truth, np.stack([noise, rng.normal(size=100)], axis=1), rows, SearchConfig())
    layer_knows = Stack.fit(noise, np.stack([truth, rng.normal(size=100)], axis=1), rows, SearchConfig())
    assert probe_knows.probe_share > 0.8 > 0.3 > layer_knows.probe_share
    assert layer_knows.linear(0).layers[0] > 10 * abs(layer_knows.linear(0).layers[1])


def test_a_stack_does_not_read_rounding():
    """A layer whose state hardly differs between pairs, as the embeddings do not, is not blown up to the others."""
    rng = np.random.default_rng(0)
    rows = Labels.of([LabelledPair(f"q{i}", f"{i}?", "!", {"a": 1 + i % 5}) for i in range(100)])
    truth = rows.score + rng.normal(0, 1, 100)
    rounding = 3 + 1e-7 * rows.score  # it happens to know the label
    linear = Stack.fit(rng.normal(size=100), np.stack([rounding, truth], axis=1), rows, SearchConfig()).linear(0)
    assert abs(linear.layers[0]) * 1e-7 < 1e-4 < abs(linear.layers[1])


# The judge


def test_the_judge_scores_as_the_compared_method_predicts(both):
    pairs, labels, probes, logits = opened(both)
    method = CombinedMethod("combined", probes, logits)
    judge = load_judge(both / "combined", device="cpu")
    results = judge([{"question": pair.question, "prediction": pair.prediction} for pair in pairs])
    seen = []
    for rows, prediction in method.fit(Fold(0, 0, labels, labels))(labels):
        name = labels.names[labels.aspect[rows[0]]]
        own = [results[i] for i in labels.pair[rows]]
        np.testing.assert_allclose([r["expected"][name] for r in own], prediction.expected, atol=1e-4)
        assert [r["scores"][name] for r in own] == prediction.score.tolist()
        good = [sum(p for score, p in r["probabilities"][name].items() if int(score) >= 4) for r in own]
        np.testing.assert_allclose(good, prediction.good_probability, atol=1e-4)
        assert len(set(prediction.score.tolist())) > 1
        seen.append(name)
    assert seen == ["tone", "wit"] == [aspect.name for aspect in judge.model.aspects]


@torch.inference_mode()
def test_scores_do_not_depend_on_the_batch_nor_on_packs(both):
    judge = load_judge(both / "combined", device="cpu")
    pairs = [{"question": p.question, "prediction": p.prediction} for p in make_labelled(5)]
    together = [list(result["expected"].values()) for result in judge(pairs)]
    alone = [list(judge(pair)["expected"].values()) for pair in pairs]
    np.testing.assert_allclose(alone, together, atol=1e-4)
    for pair, expected in zip(pairs, together, strict=True):  # one plain pass for each reading
        encoded = judge.encode(pair)
        ids = {name: torch.tensor([one.input_ids]) for name, one in encoded.items()}
        masks = {name: torch.zeros_like(tokens) for name, tokens in ids.items()}
        for name, one in encoded.items():
            masks[name][0, one.response.start : one.response.end] = 1
        assert judge.model(ids, response_mask=masks).expected[0].tolist() == pytest.approx(expected, abs=1e-4)


def test_its_config_says_what_is_read(both):
    config = InspectorConfig.from_pretrained(both / "combined")
    assert config.format_version == 2 and config.depth == 4
    assert set(config.readings) == {"chat", "score:tone", "score:wit"}
    for aspect in config.parsed_aspects:
        assert aspect.head.type == "stacked" and aspect.classes == (1, 3, 4, 5) and len(aspect.head.token_ids) == 5
        assert {f.reading for f in aspect.probe_features} == {"chat"}
        assert [f.layer for f in aspect.token_features] == [0, 1, 2, 3, 4]
        assert {f.reading for f in aspect.token_features} == {f"score:{aspect.name}"}
    assert InspectorConfig.from_dict(config.to_dict()).to_dict() == config.to_dict()


@pytest.mark.parametrize("fused", [True, False])
def test_it_is_saved_and_loaded_unchanged_and_runs_by_its_task(made, tmp_path, fused):
    judge = load_judge(made / "combined", device="cpu")
    judge.save_pretrained(tmp_path / "again", fused=fused)
    again = pipeline("inspector-judge", model=str(tmp_path / "again"), device="cpu")
    pairs = [{"question": p.question, "prediction": p.prediction} for p in make_labelled(3)]
    assert again(pairs) == judge(pairs) and again.model.config.fused is fused
    assert again.model.config.aspects == judge.model.config.aspects
    shapes = {name: tuple(p.shape) for name, p in again.model.probes["tone_probe"].named_parameters()}
    assert shapes["token_weight"] == (5, 32) and shapes["expectation_weights"] == (5,) and shapes["cuts"] == (3,)


def test_the_command_line_scores_with_it(made, tmp_path, capsys):
    source, target = tmp_path / "pairs.json", tmp_path / "out.jsonl"
    source.write_text(json.dumps([{"question": p.question, "prediction": p.prediction} for p in make_labelled(3)]))
    judge = str(made / "combined")
    assert cli(["score", str(source), "--judge", judge, "--output", str(target), "--device", "cpu"]) == 0
    rows = [json.loads(line) for line in target.read_text().splitlines()]
    assert [row["total_score"] for row in rows] == [row["tone"] + row["wit"] for row in rows] and len(rows) == 3
    assert cli(["info", judge]) == 0
    assert "tone: scores 1 3 4 5 by ordinal" in capsys.readouterr().out


def test_its_folder_says_how_it_was_fitted(made):
    folder = made / "combined"
    told = read_json(folder / "results.json")
    _, labels, probes, logits = opened(made)
    stack = Combination.fit(probes.design, logits, labels, SEARCH).stack
    share = round(stack.probe_share, 3)
    assert told["stack"] == {
        "labels": 60,
        "penalty": stack.penalty,
        "probe_share": share,
        "layers": 5,
        "aspects": ["tone", "wit"],
    }
    assert told["aspects"]["tone"]["class_counts"].keys() == {"1", "3", "4", "5"} and told["score_tokens_alone"] == {}
    card = (folder / "README.md").read_text()
    assert "probes, stacked with score tokens' logits (LAGER)" in card and "2508.03550" in card
    assert "ridge regression on 60 labels: a probe's value" in card
    assert f"penalty {stack.penalty:.3g} was chosen by left-out errors; {stack.probe_share:.0%} of" in card
    assert "| 5 | " in card and "kind |" in card and "`labelled.jsonl` (sha256" in card


def test_a_finished_folder_is_left_alone(made):
    before = {path: path.stat().st_mtime_ns for path in (made / "combined").iterdir()}
    combine(config_in(made, made / "combined"))
    assert {path: path.stat().st_mtime_ns for path in (made / "combined").iterdir()} == before


# From no labels on


def test_without_labels_it_is_the_judge_of_score_tokens(made, tmp_path):
    combine(CombineConfig(str(made / "lager"), str(tmp_path / "none")))
    pairs = [{"question": p.question, "prediction": p.prediction} for p in make_labelled(3)]
    ours, theirs = (load_judge(folder, device="cpu")(pairs) for folder in (tmp_path / "none", made / "lager"))
    assert ours == theirs
    config = InspectorConfig.from_pretrained(tmp_path / "none")
    assert config.format_version == 1 and set(config.readings) == {"score:tone", "score:wit"}
    card = (tmp_path / "none" / "README.md").read_text()
    assert f"score tone ({NO_LABELS}); wit ({NO_LABELS})" in " ".join(card.split())
    assert "No labelled data: nothing was fitted." in card and "All layers weigh alike" in card


def test_aspects_that_do_not_count_stay_out_of_the_total(made, tmp_path):
    combine(CombineConfig(str(made / "lager"), str(tmp_path / "one"), search=replace(SEARCH, uncounted=("wit",))))
    aspects = InspectorConfig.from_pretrained(tmp_path / "one").parsed_aspects
    assert {aspect.name: aspect.counts_in_total for aspect in aspects} == {"tone": True, "wit": False}


def test_an_aspect_of_one_kind_is_left_to_its_score_tokens(made, tmp_path):
    rows = write(tmp_path / "labelled.jsonl", make_labelled(one_kind=("wit",)))
    backbone = InspectorConfig.from_pretrained(made / "lager").backbone_id
    extract(ExtractConfig(str(rows), str(tmp_path / "features"), backbone_id=backbone, **SHARED))
    inputs = {"pairs": str(rows), "features": str(tmp_path / "features"), "logits": None}
    combine(config_in(made, tmp_path / "mixed", **inputs))
    config = InspectorConfig.from_pretrained(tmp_path / "mixed")
    assert [aspect.head.type for aspect in config.parsed_aspects] == ["stacked", "score_tokens"]
    assert config.format_version == 2 and set(config.readings) == {"chat", "score:tone", "score:wit"}
    pairs = [{"question": p.question, "prediction": p.prediction} for p in make_labelled(3)]
    mixed, tokens = (load_judge(folder, device="cpu")(pairs) for folder in (tmp_path / "mixed", made / "lager"))
    for a, b in zip(mixed, tokens, strict=True):
        assert a["expected"]["wit"] == pytest.approx(b["expected"]["wit"], abs=1e-5)
    told = read_json(tmp_path / "mixed" / "results.json")
    assert told["score_tokens_alone"] == {"wit": ONE_KIND} and told["stack"]["aspects"] == ["tone"]
    card = " ".join((tmp_path / "mixed" / "README.md").read_text().split())
    assert "or for an aspect of score tokens alone of the values that its reading asks for" in card
    assert (tmp_path / "mixed_layer_logits.safetensors").is_file()


def test_too_few_questions_leave_all_to_the_score_tokens(made, tmp_path, caplog):
    rows = write(tmp_path / "labelled.jsonl", make_labelled(3))
    backbone = InspectorConfig.from_pretrained(made / "lager").backbone_id
    extract(ExtractConfig(str(rows), str(tmp_path / "features"), backbone_id=backbone, **SHARED))
    inputs = {"pairs": str(rows), "features": str(tmp_path / "features"), "logits": None}
    combine(config_in(made, tmp_path / "few", **inputs, search=replace(SEARCH, inner_folds=5)))
    config = InspectorConfig.from_pretrained(tmp_path / "few")
    assert {aspect.head.type for aspect in config.parsed_aspects} == {"score_tokens"}
    assert "Score tokens alone give the scores: Expected at least 5 questions for 5 folds, but got 3" in caplog.text
    assert "probes could not be fitted (Expected at least 5" in (tmp_path / "few" / "README.md").read_text()


def test_why_aspects_are_left_out_is_said():
    pairs = make_labelled(6, one_kind=("wit",))
    pairs.append(replace(pairs[0], scores={"style": 3}, auxiliary=True))
    found = left_out(pairs, ["tone", "wit", "style", "depth"], ("correctness",))
    expected = {"wit": ONE_KIND, "style": NO_LABELS, "depth": NO_LABELS}
    assert found == {**expected, "correctness": "it does not count in the total"}


# Evidence and publishing


@pytest.fixture(scope="session")
def compared(_made):
    folder = _made("llama")
    config = CompareConfig(
        str(folder / "labelled.jsonl"),
        str(folder / "compare"),
        judge="combined",
        baselines=("surface",),
        probes={"probes": ProbesConfig(str(folder / "features"), SEARCH)},
        score_tokens=ScoreTokensConfig(str(folder / "lager"), ("logits_uniform_expectation",)),
        combined="probes",
        learning_curve=(0.6,),
        curve_methods=("combined",),
        folds=2,
        bootstraps=20,
    )
    return folder, compare(config)


def test_a_comparison_is_its_evidence_and_it_can_be_published(compared, tmp_path, caplog):
    folder, found = compared
    combine(config_in(folder, tmp_path / "combined", compare=str(folder / "compare"), fused=True))
    told = read_json(tmp_path / "combined" / "results.json")
    for name, entry in found["methods"]["combined"]["aspects"].items():
        for metric in ("auroc", "spearman", "macro_f1"):
            assert told["aspects"][name][metric]["value"] == entry[metric]["value"], (name, metric)
        surface = found["methods"]["surface"]["aspects"][name]["auroc"]["value"]
        assert told["aspects"][name]["surface"]["auroc"]["value"] == surface
        gain = told["aspects"][name]["gain_over_surface"]["auroc"]["value"]
        assert gain == pytest.approx(entry["auroc"]["value"] - surface, abs=2e-4)
    assert told["mean"]["auroc"]["value"] == found["methods"]["combined"]["mean"]["auroc"]["value"]
    *points, last = told["learning_curve"]
    *expected, whole = found["learning_curve"]["combined"]
    assert points == expected and last["n"] == whole["n"]
    assert last["auroc"] == told["mean"]["auroc"] and last["auroc"]["value"] == whole["auroc"]["value"]
    card = (tmp_path / "combined" / "README.md").read_text()
    assert "2 folds by question id" in card and "surface AUROC" in card and "learning_curve.png" in card
    with caplog.at_level("INFO"):
        push([str(tmp_path / "combined"), "org/combined", "--dry-run", "--backbone-license", "mit"])
    assert "the same expected scores on 4 example pairs" in caplog.text and "heads.py" in caplog.text


def test_a_plain_judge_of_score_tokens_has_its_evidence_too(compared, tmp_path, caplog, forked_stranger):
    folder, found = compared
    inputs = {"pairs": str(folder / "labelled.jsonl"), "compare": str(folder / "compare")}
    output = tmp_path / "plain"
    combine(CombineConfig(str(folder / "lager"), str(output), **inputs, search=SEARCH, fused=True))
    told, own = read_json(output / "results.json"), found["methods"]["lager_logits_uniform_expectation"]
    for name, entry in own["aspects"].items():
        for metric in ("auroc", "spearman", "macro_f1"):
            assert told["aspects"][name][metric]["value"] == entry[metric]["value"], (name, metric)
        assert {"surface", "gain_over_surface", "confusion"} <= told["aspects"][name].keys()
        assert not {"reliability", "brier", "ece"} & told["aspects"][name].keys()
    assert told["mean"]["auroc"]["value"] == own["mean"]["auroc"]["value"]
    assert told["protocol"]["chosen_inside_each_fold"] == [] and "brier" not in told["protocol"]["metrics"]
    card = (output / "README.md").read_text()
    assert "surface AUROC" in card and "reliability.png" not in card and "not evaluated it" not in card
    assert not (output / "reliability.png").exists()
    pairs = [{"question": p.question, "prediction": p.prediction} for p in make_labelled(3)]
    ours, theirs = (load_judge(judge, device="cpu")(pairs) for judge in (output, folder / "lager"))
    for one, other in zip(ours, theirs, strict=True):
        assert one["expected"] == pytest.approx(other["expected"], abs=1e-5)
    with caplog.at_level("INFO"):
        push([str(output), "org/lager", "--dry-run", "--backbone-license", "mit"])
    assert "the same expected scores on 4 example pairs" in caplog.text and "heads.py" in caplog.text


def test_the_method_that_is_cited_is_the_judges_own(compared, tmp_path):
    folder, _ = compared
    rows, backbone = folder / "labelled.jsonl", InspectorConfig.from_pretrained(folder / "lager").backbone_id
    shared = {"aspects": (), "custom_aspects": RUBRICS[:1], "backbone_id": backbone, **SHARED}
    states = ScoreStates(layers="last", aggregation="probabilities", decision="argmax")
    tuning = TuningConfig(epochs=1)
    lager(LagerConfig(str(tmp_path / "last"), states=states, **shared))
    lager(LagerConfig(str(tmp_path / "tuned"), labels=str(rows), tuning=tuning, **shared))
    assert Procedure.lager(folder / "lager", rows, ()).method == "lager_logits_uniform_expectation"
    assert Procedure.lager(tmp_path / "last", rows, ()).method == "lager_last_argmax"
    tuned = Procedure.lager(tmp_path / "tuned", rows, ())
    assert (tuned.method, tuned.chosen) == ("lager_logits_adam_expectation", ("layer weights",))
    same, other = (repr({"adam": own, "convex": TuningConfig(method="convex")}) for own in (tuning, TuningConfig()))
    assert tuned.differs({"uncounted": [], "method": {"tuning": same}}) is None
    assert tuned.differs({"uncounted": [], "method": {"tuning": other}}) == "the tuning"
    assert tuned.differs({"uncounted": ["tone"], "method": {"tuning": same}}) == "the setting uncounted"
    with pytest.raises(DataFileError, match="expects layer weights that are uniform or tuned on .*other.jsonl"):
        Procedure.lager(tmp_path / "tuned", write(tmp_path / "other.jsonl", make_labelled(9)), ())
    compare_there = {"pairs": str(rows), "compare": str(folder / "compare"), "search": SEARCH}
    with pytest.raises(DataFileError, match="Expected a file at .*lager_last_argmax.json"):
        combine(CombineConfig(str(tmp_path / "last"), str(tmp_path / "out"), **compare_there))


def test_a_repo_of_probes_alone_runs_by_its_own_code_where_the_backbone_is_not_at_hand(made, tmp_path, forked_stranger):
    judge = SavedJudge.read(made / "combined", with_backbone=False, allow_unevaluated=True)
    license_ = find_license(judge.config.backbone_id, "mit", "The licence.\n", None)
    stage(judge, tmp_path / "repo", repo_id="org/combined", license_=license_, probes_only=True)
    assert {"heads.py", "decisions.py"} <= {path.name for path in (tmp_path / "repo").iterdir()}
    assert "random rows on a random backbone" in judge.check_reload(tmp_path / "repo")


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"search": replace(SEARCH, inner_folds=3)}, "the search setting inner_folds differs"),
        ({"pairs": "other.jsonl"}, "rows, features, score tokens or folds differs"),
    ],
)
def test_another_comparison_is_no_evidence(compared, tmp_path, changes, what):
    folder, _ = compared
    if "pairs" in changes:
        changes = {"pairs": str(write(tmp_path / "other.jsonl", make_labelled(29)))}
    with pytest.raises(DataFileError, match=f"comparison of this judge's own procedure, .* but {what}"):
        combine(config_in(folder, tmp_path / "combined", compare=str(folder / "compare"), **changes))


# What is refused


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda a: a["head"].update(rule="logistic"), "head.rule expects one of ordinal, but got 'logistic'"),
        (
            lambda a: a["head"].update(token_ids=[7]),
            r"head.token_ids expects 2 or more distinct token ids",
        ),
        (
            lambda a: a["head"].update(token_ids=[7, 7]),
            r"head.token_ids expects 2 or more distinct token ids",
        ),
        (lambda a: a["head"].update(n_probe_features=0), r"head.n_probe_features expects 1 to \d+, so that the probe"),
        (lambda a: a["head"].update(n_probe_features=len(a["features"])), r"head.n_probe_features expects 1 to \d+"),
        (lambda a: a["head"].update(members=2), "head has no field named 'members'"),
        (lambda a: a["head"].pop("token_ids"), "head needs the field.s. token_ids"),
        (lambda a: a["features"][-1].update(pooling="mean"), "pooling expects one of last, but got 'mean'"),
        (lambda a: a["features"][-1].update(state="rms_normed"), "state expects one of raw, final_norm"),
        (lambda a: a["features"][-1].update(layer=1), "expects states of one reading, each of another layer"),
        (lambda a: a["features"][-1].update(reading="chat"), "expects states of one reading, each of another layer"),
    ],
)
def test_wrong_heads_are_named(made, change, message):
    data = InspectorConfig.from_pretrained(made / "combined").to_dict()
    change(data["aspects"][0])
    with pytest.raises(JudgeConfigError, match=message):
        InspectorConfig.from_dict(data)


def test_an_older_version_of_the_format_is_refused(made):
    data = InspectorConfig.from_pretrained(made / "combined").to_dict()
    with pytest.raises(JudgeConfigError, match="format_version expects 2, but got 1"):
        InspectorConfig.from_dict({**data, "format_version": 1})


@pytest.mark.parametrize(
    ("name", "broken", "message"),
    [
        ("expectation_weights", torch.full((5,), float("nan")), "finite weights, but .*expectation_weights"),
        ("levels", torch.tensor([5.0, 4, 3, 2, 1]), "ascending .*levels"),
    ],
)
def test_broken_weights_are_refused(made, tmp_path, name, broken, message):
    judge = load_judge(made / "combined", device="cpu")
    judge.model.probes["tone_probe"].get_parameter(name).data = broken
    judge.save_pretrained(tmp_path / "broken", fused=False)
    with pytest.raises(JudgeConfigError, match=message):
        load_judge(tmp_path / "broken", device="cpu")


def test_inputs_that_do_not_fit_are_refused(made, tmp_path):
    with pytest.raises(SettingsError, match="pairs and features expect to be given together"):
        CombineConfig(str(made / "lager"), str(tmp_path / "out"), pairs="labelled.jsonl")
    backbone = InspectorConfig.from_pretrained(made / "lager").backbone_id
    shorter = {"backbone_id": backbone, **SHARED, "max_length": 256}
    lager(LagerConfig(str(tmp_path / "short"), aspects=(), custom_aspects=RUBRICS, **shorter))
    with pytest.raises(DataFileError, match="but max_length is 2048 for the features and 256 for the score tokens"):
        combine(config_in(made, tmp_path / "out", judge=str(tmp_path / "short"), logits=None))
    one = {"aspects": (), "custom_aspects": RUBRICS[:1], "backbone_id": backbone, **SHARED}
    lager(LagerConfig(str(tmp_path / "one"), **one))
    with pytest.raises(DataFileError, match="expects score tokens of all aspects, but those of wit are missing"):
        combine(config_in(made, tmp_path / "out", judge=str(tmp_path / "one"), logits=None))
    with pytest.raises(DataFileError, match="combined expects a judge of score tokens, but tone has another head"):
        combine(config_in(made, tmp_path / "out", judge=str(made / "combined")))
    assert not (Path(tmp_path) / "out").exists()
