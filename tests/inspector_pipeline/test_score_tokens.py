"""LAGER's formula, against a slow and literal computation with the whole causal model."""

import math
from itertools import product

import numpy as np
import pytest
import torch
from gguf import GGMLQuantizationType, GGUFWriter, quantize
from inspector_training.judges.build import BackboneSpec
from inspector_training.score_tokens.judge import ScoreStates, build_lager, set_layer_weights
from inspector_training.score_tokens.logits import layer_logits, load_unembedding
from inspector_training.score_tokens.prompts import AskedAspect, score_reading
from inspector_training.score_tokens.weights import ten_scores, uniform_weights
from support.causal import save_causal
from support.models import PAIRS, aspect, chat_reading, config_of, feature, random_probes
from transformers import AutoModelForCausalLM, LlamaConfig

from inspector_pipeline import InspectorConfig, InspectorModel, PairTemplate, load_judge
from inspector_pipeline.errors import BackboneError, JudgeConfigError

SCORES = [1, 2, 3, 4, 5]
TEMPLATE = "Q: {question}\nA: {prediction}\nScore: "
VARIANTS = list(product(("all", "without_last", "last"), ("raw", "final_norm"), ("logits", "probabilities")))


@pytest.fixture(scope="module")
def _causal_folders(tmp_path_factory, tokenizer):
    return {name: save_causal(tmp_path_factory.mktemp(name), name, tokenizer) for name in ("qwen3", "llama")}


@pytest.fixture
def causal_dir(_causal_folders, family):
    return _causal_folders[family]


@pytest.fixture
def causal(causal_dir):
    return AutoModelForCausalLM.from_pretrained(causal_dir).eval()


@pytest.fixture
def build(causal_dir, tokenizer, tmp_path):
    """Save a judge of one aspect with score tokens and return its folder."""

    def make(states=None, weights=None, scores=SCORES, template=TEMPLATE):
        asked = AskedAspect("a", scores, score_reading(PairTemplate.from_template(template), tokenizer, scores))
        unembedding = load_unembedding(str(causal_dir))
        model = build_lager(BackboneSpec(str(causal_dir), None), [asked], states or ScoreStates(), unembedding)
        if weights is not None:
            set_layer_weights(model, "a", weights)
        model.save_pretrained(tmp_path / "lager", fused=False)
        return tmp_path / "lager"

    return make


def literal(causal, tokenizer, judge, pair, states, weights):
    """Compute P by the paper's formula, one number at a time: z = sum_l w_l (h_l W)[score tokens], P = softmax(z)."""
    described = judge.model.aspects[0]
    reading = judge.model.config.parsed_readings[described.features[0].reading]
    ids = tokenizer(reading.text(pair["question"], pair["prediction"]), return_tensors="pt")["input_ids"]
    hidden = causal.model(ids, output_hidden_states=True).hidden_states
    n_layers = len(hidden) - 1
    layers = {"all": range(n_layers + 1), "without_last": range(n_layers), "last": [n_layers]}[states.layers]
    per_layer = []
    for layer in layers:
        state = hidden[layer][0, -1]
        if states.inner == "final_norm" and layer < n_layers:  # the last one has been through it
            state = causal.model.norm(state)
        logits = causal.lm_head(state)
        per_layer.append([float(logits[token]) for token in described.head.token_ids])
    if states.aggregation == "logits":
        return softmax([sum(w * z[c] for w, z in zip(weights, per_layer, strict=True)) for c in range(len(SCORES))])
    shares = [softmax(z) for z in per_layer]
    return [sum(w * p[c] for w, p in zip(weights, shares, strict=True)) for c in range(len(SCORES))]


def softmax(values):
    exponentials = [math.exp(value - max(values)) for value in values]
    return [value / sum(exponentials) for value in exponentials]


def some_weights(n, seed=5):
    return torch.rand(n, generator=torch.Generator().manual_seed(seed)).double().softmax(dim=0).numpy()


@pytest.mark.parametrize(("layers", "inner", "aggregation"), VARIANTS)
@torch.inference_mode()
def test_every_variant_is_the_formula(build, causal, tokenizer, layers, inner, aggregation):
    n_states = {"all": 5, "without_last": 4, "last": 1}[layers]
    for decision, weights in (("expectation", some_weights(n_states)), ("argmax", uniform_weights(n_states))):
        states = ScoreStates(layers, inner, aggregation, decision)
        judge = load_judge(build(states, weights), device="cpu")
        results = judge(PAIRS)  # the real pipeline, in one padded batch
        for pair, result in zip(PAIRS, results, strict=True):
            expected = literal(causal, tokenizer, judge, pair, states, weights)
            assert list(result["probabilities"]["a"].values()) == pytest.approx(expected, abs=2e-5)
            mean = sum(s * p for s, p in zip(SCORES, expected, strict=True))
            assert result["expected"]["a"] == pytest.approx(mean, abs=1e-4)
            nearest = min(SCORES, key=lambda score, mean=mean: abs(score - mean))
            likeliest = SCORES[expected.index(max(expected))]
            assert result["scores"]["a"] == (nearest if decision == "expectation" else likeliest)
            encoded = judge.encode(pair)["rubric:a"]
            output = judge.model(torch.tensor([encoded.input_ids]))  # the judge's own forward
            assert output.probabilities[0][0].tolist() == pytest.approx(expected, abs=2e-5)


@torch.inference_mode()
def test_the_ten_scores_are_the_formulas(build, causal, tokenizer):
    weights = {"logits": some_weights(5, 1), "probabilities": some_weights(5, 2)}
    judge = load_judge(build(), device="cpu")
    logits = layer_logits(judge, "a", [(pair["question"], pair["prediction"]) for pair in PAIRS])
    assert logits.shape == (3, 5, 5)
    scores = ten_scores(logits, weights, torch.tensor(SCORES).double().numpy())
    assert len(scores) == 10
    uniform = dict.fromkeys(weights, uniform_weights(5))
    last = {"logits": [0, 0, 0, 0, 1]}
    for name, values in scores.items():
        *rest, decision = name.split("_")
        aggregation, how = rest if len(rest) == 2 else ("logits", "last")
        chosen = {"tuned": weights, "uniform": uniform, "last": last}[how][aggregation]
        for pair, value in zip(PAIRS, values, strict=True):
            p = literal(causal, tokenizer, judge, pair, ScoreStates(aggregation=aggregation), chosen)
            expected = {
                "expectation": sum(s * q for s, q in zip(SCORES, p, strict=True)),
                "argmax": SCORES[p.index(max(p))],
            }
            assert value == pytest.approx(expected[decision], abs=1e-4), name


def test_the_last_state_alone_is_what_the_model_says(build, causal, tokenizer):
    judge = load_judge(build(ScoreStates(layers="last")), device="cpu")
    ids = torch.tensor([judge.encode(PAIRS[0])["rubric:a"].input_ids])
    with torch.inference_mode():
        logits = causal(ids).logits[0, -1, list(judge.model.aspects[0].head.token_ids)]
    found = list(judge(PAIRS[0])["probabilities"]["a"].values())
    assert found == pytest.approx(logits.softmax(dim=0).tolist(), abs=1e-5)


@pytest.mark.parametrize("fused", [True, False])
def test_a_judge_is_saved_and_loaded_unchanged(build, tmp_path, fused):
    judge = load_judge(build(weights=some_weights(5)), device="cpu")
    judge.save_pretrained(tmp_path / "again", fused=fused)
    again = load_judge(tmp_path / "again", device="cpu")
    assert again(PAIRS) == judge(PAIRS)
    assert again.model.config.aspects == judge.model.config.aspects
    state = again.model.state_dict()
    assert state["probes.a_probe.weight"].shape == (5, 32)  # the score tokens' rows, and no others
    assert state["probes.a_probe.layer_weights"].sum() == pytest.approx(1, abs=1e-6)


def test_score_tokens_read_states_uncentred_beside_a_probe_that_centres_them(build, causal_dir, tokenizer, tmp_path):
    alone = load_judge(build(), device="cpu")
    described = alone.model.config.aspects[0]
    shared = [feature(2, "last", reading="rubric:a"), feature(1, "mean")]
    readings = {**alone.model.config.readings, "chat": chat_reading(tokenizer)}
    config = config_of(causal_dir, [described, aspect("probe", shared)], readings)
    model = random_probes(InspectorModel(config))
    for name, parameter in alone.model.probes["a_probe"].named_parameters():
        model.probes["a_probe"].get_parameter(name).data = parameter.data
    model.save_pretrained(tmp_path / "both", fused=False)
    both = load_judge(tmp_path / "both", device="cpu")
    assert both.model.centers.shape == (2, 32) and both.model.centers.any()
    for mine, theirs in zip(both(PAIRS), alone(PAIRS), strict=True):
        assert mine["probabilities"]["a"] == pytest.approx(theirs["probabilities"]["a"], abs=1e-6)
        assert set(mine["scores"]) == {"a", "probe"}


def test_scores_do_not_depend_on_the_batch(build):
    judge = load_judge(build(), device="cpu")
    together = [result["expected"]["a"] for result in judge(PAIRS)]
    assert [judge(pair)["expected"]["a"] for pair in PAIRS] == pytest.approx(together, abs=1e-4)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rule": "logistic"}, r"head.rule expects one of expectation, argmax, but got 'logistic'"),
        ({"aggregation": "none"}, r"head.aggregation expects one of logits, probabilities"),
        ({"token_ids": [1, 2, 3]}, r"head.token_ids expects 5 distinct token ids, one a class"),
        ({"token_ids": [1, 2, 3, 4, 4]}, r"head.token_ids expects 5 distinct token ids"),
        ({"token_ids": [1, 2, 3, 4, -5]}, r"head.token_ids expects 5 distinct token ids"),
        ({"members": 1}, r"head has no field named 'members'"),
    ],
)
def test_wrong_heads_are_named(build, changes, message):
    data = InspectorConfig.from_pretrained(build()).to_dict()
    data["aspects"][0]["head"] |= changes
    with pytest.raises(JudgeConfigError, match=message):
        InspectorConfig.from_dict(data)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"pooling": "mean"}, r"features\[1\].pooling expects one of last"),
        ({"state": "rms_normed"}, r"features\[1\].state expects one of raw, final_norm"),
        ({"layer": 2}, r"features expects states of one reading, each of another layer"),
    ],
)
def test_score_tokens_are_read_at_the_last_token_of_each_layer(build, changes, message):
    data = InspectorConfig.from_pretrained(build()).to_dict()
    data["aspects"][0]["features"][1] |= changes
    with pytest.raises(JudgeConfigError, match=message):
        InspectorConfig.from_dict(data)


def test_weights_that_do_not_sum_to_one_are_refused(build):
    with pytest.raises(JudgeConfigError, match=r"layer_weights of 0 or more with the sum 1"):
        load_judge(build(weights=uniform_weights(5) * 1.1))


def test_a_backbone_without_its_head_is_refused(backbone_dir):
    with pytest.raises(BackboneError, match="expect a backbone with an LM head"):
        load_unembedding(str(backbone_dir))  # saved without its head, and not tied


def test_a_gguf_file_with_a_head_of_its_own_gives_it(tmp_path, monkeypatch):
    """Such a file is not tied, and its converted copy keeps no head."""
    path, config = tmp_path / "untied.gguf", LlamaConfig(tie_word_embeddings=False)
    weight = np.random.default_rng(0).normal(size=(7, 32)).astype(np.float32)
    writer = GGUFWriter(path, "llama")
    quantised = quantize(weight, GGMLQuantizationType.Q8_0)
    writer.add_tensor("token_embd.weight", np.zeros((7, 32), np.float32))
    writer.add_tensor("output.weight", quantised, raw_dtype=GGMLQuantizationType.Q8_0)
    for write in (writer.write_header_to_file, writer.write_kv_data_to_file, writer.write_tensors_to_file):
        write()
    writer.close()
    config.save_pretrained(tmp_path / "converted")
    monkeypatch.setattr(
        "inspector_training.score_tokens.logits.backbone_location", lambda *_: (str(tmp_path / "converted"), {})
    )
    found = load_unembedding(f"gguf:{path}")
    assert found.weight.shape == (7, 32) and not found.bias.any()
    step = np.abs(weight).max(axis=1, keepdims=True) / 127  # of the quantisation
    assert (np.abs(found.weight.float().numpy() - weight) <= step / 2 + np.abs(weight) / 200).all()


def test_a_head_that_is_more_than_a_matrix_is_refused(causal, tmp_path):
    causal.config.final_logit_softcapping = 30.0
    causal.save_pretrained(tmp_path / "capped")
    with pytest.raises(BackboneError, match=r"has final_logit_softcapping = 30.0"):
        load_unembedding(str(tmp_path / "capped"))
