"""Packs against plain passes of the whole backbone, one pair at a time."""

import copy

import pytest
import torch
from support.models import PAIRS, tiny_config
from transformers import (
    AutoModel,
    BertConfig,
    BloomConfig,
    GemmaConfig,
    GPT2Config,
    GPTNeoXConfig,
    MambaConfig,
    MistralConfig,
    Qwen2Config,
)

from inspector_pipeline import PairTemplate
from inspector_pipeline import packing as packing_module
from inspector_pipeline.engine import FeatureReader
from inspector_pipeline.errors import BackboneError
from inspector_pipeline.features import POOLINGS, Feature, pool, rms_normalize
from inspector_pipeline.pair_tokenizer import PairTokenizer
from inspector_pipeline.truncation import take_final_norm

EPS = 0.5  # large enough to be seen where it is left out
QUESTION = "A farmer has 12 cows, buys 5 more cows, and sells 3 of them to his neighbour. How many cows has he now? "
GROUP = [{"question": QUESTION, "prediction": text} for text in ("14", "He has 14.", "12 + 5 - 3 = 14, so 14.", "14")]
OPENING = "You judge answers. Read the question, and then read what somebody answered to it.\n"
READINGS = {
    "plain": PairTemplate("", "\n", ""),
    "opened": PairTemplate(f"{OPENING}Question: ", "\nAnswer: ", "\nIs it right?"),
    "suffixed": PairTemplate(f"{OPENING}Question: ", "\nAnswer: ", "\nIs it fluent, and is it easy to follow?"),
}


def features_of(readings, n_layers):
    deep = {"plain": n_layers, "opened": 2, "suffixed": n_layers - 1}
    kinds = ("raw", "rms_normed", "final_norm")
    return [
        Feature(name, layer, pooling, state)
        for name in readings
        for layer in (0, 1, deep[name])
        for pooling in POOLINGS
        for state in kinds
    ]


def plain_features(model, norm, encoders, pair, features):
    """What one unpadded pass of plain transformers gives."""
    states = {}
    for name, encoder in encoders.items():
        encoded = encoder(pair["question"], pair["prediction"])
        ids = torch.tensor([encoded.input_ids])
        with torch.no_grad():
            states[name] = model(ids, output_hidden_states=True, use_cache=False).hidden_states, encoded
    found = {}
    for feature in features:
        hidden, encoded = states[feature.reading]
        state = hidden[feature.layer]
        if feature.state == "rms_normed":
            state = rms_normalize(state, EPS)
        if feature.state == "final_norm":
            state = norm(state)
        mask = torch.ones(1, len(encoded.input_ids))
        found[feature] = pool(state, mask, feature.pooling, torch.tensor([encoded.response_mask]))[0]
    return found


def make_reader(backbone, tokenizer, names, features=None):
    norm = take_final_norm(backbone)
    encoders = {name: PairTokenizer(READINGS[name], tokenizer, 512) for name in names}
    features = features or features_of(names, backbone.config.num_hidden_layers)
    return FeatureReader(backbone, norm, features, encoders, rms_norm_eps=EPS), norm, encoders, features


def encoded_window(encoders, pairs):
    return [{n: encoder(p["question"], p["prediction"]) for n, encoder in encoders.items()} for p in pairs]


@pytest.mark.parametrize("form", ["_attend_in_turn", "_attend_at_once"])
@pytest.mark.parametrize("share", [True, False])
def test_packs_give_what_plain_passes_give(full_model, tokenizer, share, form, monkeypatch):
    monkeypatch.setattr(packing_module, "_attend_in_turn", getattr(packing_module, form))
    reader, norm, encoders, features = make_reader(full_model, tokenizer, list(READINGS))
    assert reader.is_packed and len(reader.families) == 2
    pairs = [*PAIRS, *GROUP, GROUP[0]]
    with torch.inference_mode():
        got = reader(encoded_window(encoders, pairs), share_prefixes=share)
    for number, pair in enumerate(pairs):
        for feature, expected in plain_features(full_model, norm, encoders, pair, features).items():
            torch.testing.assert_close(got[feature][number], expected, atol=2e-5, rtol=1e-4, msg=str(feature))


def test_what_is_shared_is_read_once(full_model, tokenizer, monkeypatch):
    reader, _, encoders, _ = make_reader(full_model, tokenizer, list(READINGS))
    window = encoded_window(encoders, GROUP * 4)
    counted = []
    for family in reader.families:
        states = family.states
        monkeypatch.setattr(
            family, "states", lambda ids, *rest, states=states: (counted.append(len(ids)), states(ids, *rest))[1]
        )

    def count(**kwargs):
        counted.clear()
        reader(window, **kwargs)
        return sum(counted)

    with torch.inference_mode():
        alone, first, again = count(share_prefixes=False), count(), count()
    assert alone == sum(len(pair.input_ids) for row in window for pair in row.values())
    assert first < alone / 8
    assert first - again == len(encoders["opened"].opening_ids)  # the opening stays for the next window


def test_each_reading_stops_at_its_own_deepest_layer(full_model, tokenizer):
    wanted = [Feature("plain", 1, "last"), Feature("opened", 3, "mean")]
    reader, *_ = make_reader(full_model, tokenizer, ["plain", "opened"], wanted)
    assert [family.plain.config.num_hidden_layers for family in reader.families] == [1, 3]
    assert [len(family.packed.layers) for family in reader.families] == [1, 3]


def test_the_backbone_is_left_as_it_was(full_model, tokenizer):
    config = full_model.config
    before = config._attn_implementation
    reader, *_ = make_reader(full_model, tokenizer, ["plain"])
    packed = reader.families[0].packed
    assert (
        full_model.config._attn_implementation == before == full_model.layers[0].self_attn.config._attn_implementation
    )
    assert packed.layers[0].self_attn.q_proj.weight is full_model.layers[0].self_attn.q_proj.weight


SMALL = {"vocab_size": 512, "hidden_size": 32, "num_attention_heads": 4, "num_hidden_layers": 2}
OTHERS = {
    "gpt2": (GPT2Config(vocab_size=512, n_embd=32, n_head=4, n_layer=2), True),
    "gpt_neox": (GPTNeoXConfig(**SMALL, intermediate_size=48), True),
    "gemma": (GemmaConfig(**SMALL, intermediate_size=48, num_key_value_heads=2, head_dim=8), True),
    "short window": (MistralConfig(**SMALL, intermediate_size=48, num_key_value_heads=2, sliding_window=40), True),
    "window that is off": (Qwen2Config(**SMALL, intermediate_size=48, num_key_value_heads=2, sliding_window=8), True),
    "positions by attention": (BloomConfig(vocab_size=512, hidden_size=32, n_head=4, n_layer=2), False),
    "recurrent": (MambaConfig(vocab_size=512, hidden_size=32, num_hidden_layers=2, state_size=4), False),
}


@pytest.mark.parametrize("name", OTHERS)
def test_any_decoder_gives_what_it_gives_alone(name, tokenizer):
    """In packs where it can run them, and in padded batches where not, and where its window is too short."""
    config, is_packed = OTHERS[name]
    torch.manual_seed(5)
    model = AutoModel.from_config(copy.deepcopy(config)).eval()
    for parameter in model.parameters():
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=0.2)
    wanted = [Feature(reading, layer, "mean") for reading in ("plain", "opened") for layer in (1, 2)]
    reader, norm, encoders, features = make_reader(model, tokenizer, ["plain", "opened"], wanted)
    assert reader.is_packed is is_packed
    pairs = [*PAIRS, *GROUP]
    with torch.inference_mode():
        got = reader(encoded_window(encoders, pairs))
    for number, pair in enumerate(pairs):
        for feature, expected in plain_features(model, norm, encoders, pair, features).items():
            torch.testing.assert_close(got[feature][number], expected, atol=1e-4, rtol=1e-3)


def test_a_backbone_that_looks_ahead_runs_no_packs(tokenizer):
    model = AutoModel.from_config(BertConfig(**SMALL, intermediate_size=48, is_decoder=False)).eval()
    model.norm = torch.nn.Identity()
    model.layers = model.encoder.layer
    wanted = [Feature("plain", 2, "mean")]
    reader, *_ = make_reader(model, tokenizer, ["plain"], wanted)
    assert not reader.is_packed


def test_qwen3_with_a_window_on_some_layers_is_read_right(tokenizer):
    config = tiny_config("qwen3", use_sliding_window=True, sliding_window=8, max_window_layers=2)
    torch.manual_seed(1)
    model = AutoModel.from_config(config).eval()
    wanted = [Feature("plain", 4, "last")]
    reader, norm, encoders, features = make_reader(model, tokenizer, ["plain"], wanted)
    with torch.inference_mode():
        got = reader(encoded_window(encoders, PAIRS))
    for number, pair in enumerate(PAIRS):
        expected = plain_features(model, norm, encoders, pair, features)[wanted[0]]
        torch.testing.assert_close(got[wanted[0]][number], expected, atol=1e-5, rtol=1e-4)


def test_ids_beyond_the_backbone_s_table_are_refused(judge):
    window = [judge.encode(pair) for pair in PAIRS]
    window[1]["chat"].input_ids[0] = 512
    with pytest.raises(BackboneError, match="expects token ids below 512, but its tokenizer gave 512"):
        judge.reader(window)
