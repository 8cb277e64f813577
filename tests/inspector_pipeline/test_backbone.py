import pytest
import torch
from support.models import N_LAYERS, tiny_config
from transformers import (
    AutoModel,
    GemmaConfig,
    GPT2Config,
    GPTNeoXConfig,
    MistralConfig,
    OPTConfig,
    PhiConfig,
    Qwen2Config,
    Qwen3MoeConfig,
)
from transformers.models.bert import BertConfig

from inspector_pipeline import BackboneError, Feature, InspectorModel, load_judge
from inspector_pipeline.backbone import load_backbone
from inspector_pipeline.devices import preferred_dtype
from inspector_pipeline.features import read_features
from inspector_pipeline.truncation import find_decoder_parts, shallow_view, take_final_norm, truncated_config

SIZES = {"vocab_size": 64, "hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 48}
OTHERS = {
    "gpt2": GPT2Config(vocab_size=64, n_embd=32, n_layer=3, n_head=4, n_positions=64),
    "gpt_neox": GPTNeoXConfig(**SIZES),
    "opt": OPTConfig(
        vocab_size=64, hidden_size=32, num_hidden_layers=3, num_attention_heads=4, ffn_dim=48, word_embed_proj_dim=32
    ),
    "mistral": MistralConfig(**SIZES, num_key_value_heads=2, head_dim=8),
    "gemma": GemmaConfig(**SIZES, num_key_value_heads=2, head_dim=8),
    "phi": PhiConfig(**SIZES),
    "qwen2": Qwen2Config(**SIZES, num_key_value_heads=2),
    "qwen3_moe": Qwen3MoeConfig(
        **SIZES, num_key_value_heads=2, head_dim=8, num_experts=4, num_experts_per_tok=2, moe_intermediate_size=16
    ),
}


def reference_states(model, ids):
    """All states as transformers returns them; the last one raw, by a hook before the final norm."""
    raw = []
    parts = find_decoder_parts(model, model.config.num_hidden_layers)
    norm = getattr(model.get_submodule(parts.path), parts.norm_name)
    handle = norm.register_forward_pre_hook(lambda module, args: raw.append(args[0]))
    with torch.no_grad():
        states = list(model(ids, output_hidden_states=True).hidden_states)
    handle.remove()
    return [*states[:-1], raw[0]], states[-1]


@pytest.mark.parametrize("name", OTHERS)
def test_any_decoder_is_cut_and_read_without_being_named(name, tmp_path):
    torch.manual_seed(0)
    full = AutoModel.from_config(OTHERS[name]).eval()
    full.save_pretrained(tmp_path)
    ids = torch.randint(1, 64, (2, 9))
    states, post_norm = reference_states(full, ids)
    for depth in (1, 3):
        backbone = load_backbone(str(tmp_path), depth=depth)
        norm = take_final_norm(backbone)
        wanted = [
            Feature("r", depth, "last"),
            Feature("r", depth - 1, "mean"),
            Feature("r", depth, "mean", "final_norm"),
        ]
        with torch.no_grad():
            got = read_features(
                backbone,
                norm,
                wanted,
                input_ids=ids,
                attention_mask=torch.ones_like(ids),
                response_mask=None,
                rms_norm_eps=0,
            )
        torch.testing.assert_close(got[wanted[0]], states[depth][:, -1], atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(got[wanted[1]], states[depth - 1].mean(1), atol=1e-5, rtol=1e-5)
        if depth == 3:
            torch.testing.assert_close(got[wanted[2]], post_norm.mean(1), atol=1e-5, rtol=1e-5)


def test_dropped_layers_and_the_head_are_neither_built_nor_read(backbone_dir, monkeypatch):
    backbone = load_backbone(str(backbone_dir), depth=2)
    names = list(backbone.state_dict())
    assert any("layers.1." in name for name in names)
    assert not any("layers.2." in name or "lm_head" in name for name in names)
    assert not any(parameter.requires_grad for parameter in backbone.parameters())
    assert not backbone.training


def test_only_the_layers_that_are_read_are_kept(full_model, monkeypatch):
    kept = []
    forward = type(full_model).forward

    def spy(self, *args, **kwargs):
        output = forward(self, *args, **kwargs)
        kept.append([state is not None for state in output.hidden_states])
        return output

    monkeypatch.setattr(type(full_model), "forward", spy)
    take_final_norm(full_model)
    ids = torch.ones(1, 3, dtype=torch.long)
    wanted = [Feature("r", 1, "last"), Feature("r", 3, "mean")]
    read_features(full_model, None, wanted, input_ids=ids, attention_mask=ids, response_mask=None, rms_norm_eps=1e-6)
    assert kept == [[False, True, False, True, False]]


def test_truncated_config_cuts_every_per_layer_list_and_leaves_the_original(family):
    config = tiny_config(family)
    config._name_or_path = "/somewhere/private"
    cut = truncated_config(config, 2)
    assert cut.num_hidden_layers == 2 and config.num_hidden_layers == N_LAYERS
    assert len(getattr(cut, "layer_types", None) or [1, 1]) == 2
    assert cut._name_or_path == ""


@pytest.mark.parametrize("depth", [0, N_LAYERS + 1])
def test_a_depth_that_is_not_there_is_refused(family, depth):
    with pytest.raises(BackboneError, match=f"depth expects 1 to {N_LAYERS}.*got {depth}"):
        truncated_config(tiny_config(family), depth)


def test_a_shallow_view_shares_weights_and_gives_the_same_states(full_model):
    take_final_norm(full_model)
    view = shallow_view(full_model, 2)
    assert view.config.num_hidden_layers == 2 and full_model.config.num_hidden_layers == N_LAYERS
    own, shared = dict(full_model.named_parameters()), dict(view.named_parameters())
    assert shared and all(parameter is own[name] for name, parameter in shared.items())
    ids = torch.randint(1, 500, (1, 5))
    with torch.no_grad():
        states = full_model(ids, output_hidden_states=True).hidden_states
        assert torch.equal(view(ids).last_hidden_state, states[2])
        assert len(full_model(ids, output_hidden_states=True).hidden_states) == N_LAYERS + 1


def test_a_model_without_a_decoders_structure_is_refused():
    model = AutoModel.from_config(BertConfig(**SIZES))
    with pytest.raises(BackboneError, match="a final norm named one of norm"):
        take_final_norm(model)


def test_weights_that_are_missing_are_refused(full_model, tmp_path):
    state = {name: tensor for name, tensor in full_model.state_dict().items() if "layers.0.mlp" not in name}
    full_model.save_pretrained(tmp_path, state_dict=state)
    with pytest.raises(BackboneError, match=r"layers\.0\.mlp"):
        load_backbone(str(tmp_path), depth=2)


@pytest.mark.parametrize(
    ("able", "expected"),
    [
        ({}, torch.float32),
        ({"amx_bf16": True, "avx512_bf16": True, "cpu_name": "Intel Xeon"}, torch.bfloat16),
        ({"amx_bf16": False, "avx512_bf16": True, "cpu_name": "Intel Xeon"}, torch.float32),
        ({"avx512_bf16": True, "cpu_name": "AMD EPYC"}, torch.bfloat16),
    ],
)
def test_a_cpu_computes_in_what_it_is_fastest_in(able, expected, monkeypatch):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: able)
    assert preferred_dtype("cpu") == expected


def test_the_hardware_decides_where_no_dtype_is_given(judge, tmp_path, monkeypatch):
    judge.model.to(torch.float32)
    judge.save_pretrained(tmp_path / "judge")
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"amx_bf16": True})
    assert load_judge(tmp_path / "judge", device="cpu").model.dtype == torch.bfloat16
    assert load_judge(tmp_path / "judge", device="cpu", dtype="stored").model.dtype == torch.float32
    assert load_judge(tmp_path / "judge", device="cpu", dtype=torch.float16).model.dtype == torch.float16
    assert InspectorModel.from_pretrained(tmp_path / "judge", dtype="auto").dtype == torch.bfloat16
    monkeypatch.setattr(torch.cpu, "get_capabilities", dict)
    assert InspectorModel.from_pretrained(tmp_path / "judge").dtype == torch.float32
