import pytest
import torch
from safetensors.torch import load_file, save_file
from support.models import N_LAYERS, aspect, chat_reading, config_of, feature, random_probes, tiny_config
from transformers import (
    AutoModel,
    FalconH1Config,
    Gemma3nTextConfig,
    Gemma4TextConfig,
    GemmaConfig,
    GPT2Config,
    GPTJConfig,
    GPTNeoXConfig,
    MistralConfig,
    NanoChatConfig,
    OPTConfig,
    PhiConfig,
    PreTrainedModel,
    Qwen2Config,
    Qwen3Config,
    Qwen3MoeConfig,
)
from transformers.models.bert import BertConfig
from transformers.models.falcon_h1.modeling_falcon_h1 import FalconH1PreTrainedModel

from inspector_pipeline import BackboneError, Feature, InspectorModel, load_judge, modeling_inspector
from inspector_pipeline.api import load as load_module
from inspector_pipeline.backbone import load_backbone
from inspector_pipeline.devices import preferred_dtype
from inspector_pipeline.features import read_features
from inspector_pipeline.truncation import (
    find_decoder_parts,
    position_limit,
    shallow_view,
    take_final_norm,
    truncated_config,
)

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


@pytest.mark.parametrize("has_bfloat16", [True, False])
def test_a_cpu_computes_in_float32_and_a_gpu_in_bfloat16_where_it_has_it(has_bfloat16, monkeypatch):
    able = {"amx_bf16": True, "avx512_bf16": True, "cpu_name": "Intel Xeon"}  # faster, but scores would be others
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: able)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **_: has_bfloat16)
    assert preferred_dtype("cpu") == preferred_dtype("mps") == torch.float32
    assert preferred_dtype("cuda") == (torch.bfloat16 if has_bfloat16 else torch.float32)


def test_the_hardware_decides_where_no_dtype_is_given(judge, tmp_path, monkeypatch):
    judge.model.to(torch.float32)
    judge.save_pretrained(tmp_path / "judge")
    for module in (load_module, modeling_inspector):
        monkeypatch.setattr(module, "preferred_dtype", lambda *_: torch.bfloat16)
    assert load_judge(tmp_path / "judge", device="cpu").model.dtype == torch.bfloat16
    assert load_judge(tmp_path / "judge", device="cpu", dtype="stored").model.dtype == torch.float32
    assert load_judge(tmp_path / "judge", device="cpu", dtype=torch.float16).model.dtype == torch.float16
    assert InspectorModel.from_pretrained(tmp_path / "judge", dtype="auto").dtype == torch.bfloat16
    monkeypatch.undo()
    assert load_judge(tmp_path / "judge", device="cpu").model.dtype == torch.float32


def test_a_fused_judge_has_what_its_backbone_computes(tokenizer, tmp_path, monkeypatch):
    sizes = {**SIZES, "vocab_size": 512, "num_key_value_heads": 2, "mamba_chunk_size": 8, "mamba_d_ssm": 64}
    mamba = {"mamba_n_heads": 8, "mamba_d_head": 8, "mamba_d_state": 8, "mamba_n_groups": 1}
    torch.manual_seed(0)
    AutoModel.from_config(FalconH1Config(**sizes, **mamba, ssm_multipliers=[0.5, 0.7, 0.9, 1.3, 1.7])).save_pretrained(
        tmp_path / "backbone"
    )
    tokenizer.save_pretrained(tmp_path / "backbone")
    config = config_of(tmp_path / "backbone", [aspect("a", [feature(2)])], {"chat": chat_reading(tokenizer)})
    random_probes(InspectorModel(config)).save_pretrained(tmp_path / "judge", fused=False)
    judge = InspectorModel.from_pretrained(tmp_path / "judge")
    judge.save_pretrained(tmp_path / "fused")
    fused = InspectorModel.from_pretrained(tmp_path / "fused")
    own, theirs = (dict(model.backbone.named_buffers()) for model in (judge, fused))
    assert "layers.0.mamba.mup_vector" in own
    for name, buffer in own.items():
        torch.testing.assert_close(theirs[name], buffer)
    # A backbone that leaves one as the memory was is refused, not run.
    monkeypatch.setattr(FalconH1PreTrainedModel, "_init_weights", PreTrainedModel._init_weights)
    with pytest.raises(BackboneError, match=r"mup_vector and 1 more of FalconH1Model stay unset. Save .* fused=False"):
        InspectorModel.from_pretrained(tmp_path / "fused")


def test_settings_of_single_layers_are_cut_alike():
    config = Qwen3Config(**{**SIZES, "num_hidden_layers": 4}, activation_sparsity_pattern=[0.9, 0.9, 0, 0])
    config.num_kv_shared_layers, config.odd_list = 2, [1, 2, 3, 4]
    config.layer_sizes = [8, 16, 32, 64]
    cut = truncated_config(config, 3)
    assert (cut.activation_sparsity_pattern, cut.layer_sizes) == ([0.9, 0.9, 0], [8, 16, 32])
    assert (cut.num_kv_shared_layers, cut.odd_list) == (1, [1, 2, 3, 4])


@pytest.mark.parametrize("kind", [Gemma3nTextConfig, Gemma4TextConfig])
def test_a_family_that_cannot_be_cut_says_so_and_is_read_whole(kind):
    sizes = {**SIZES, "num_hidden_layers": 4, "num_key_value_heads": 2, "head_dim": 8, "num_kv_shared_layers": 0}
    layers = {"layer_types": ["sliding_attention", "full_attention"] * 2, "hidden_size_per_layer_input": 8}
    config = kind(**sizes, **layers, vocab_size_per_layer_input=64)
    with pytest.raises(BackboneError, match=r"family gemma\w+ cannot be cut from 4 to 3 layers.* Read its last layer"):
        truncated_config(config, 3)
    assert truncated_config(config, 4).num_hidden_layers == 4


def test_a_config_that_does_not_stay_as_it_was_cut_is_refused():
    class LastIsWhole(Qwen3Config):
        def __post_init__(self, **kwargs):
            super().__post_init__(**kwargs)
            self.layer_types[-1] = "sliding_attention"

    with pytest.raises(BackboneError, match="its config changes layer_types"):
        truncated_config(LastIsWhole(**SIZES, num_key_value_heads=2), 2)


def test_a_final_norm_that_is_applied_elsewhere_too_is_refused(tokenizer, tmp_path):
    config = NanoChatConfig(**{**SIZES, "vocab_size": 512})
    AutoModel.from_config(config).save_pretrained(tmp_path / "backbone")
    tokenizer.save_pretrained(tmp_path / "backbone")
    config = config_of(tmp_path / "backbone", [aspect("a", [feature(2)])], {"chat": chat_reading(tokenizer)})
    random_probes(InspectorModel(config)).save_pretrained(tmp_path / "judge", fused=False)
    judge = load_judge(tmp_path / "judge", device="cpu")
    with pytest.raises(BackboneError, match="once, after its layers, but NanoChatModel applies it 2 times"):
        judge({"question": "q", "prediction": "p"})


def test_weights_whose_shapes_depend_on_the_depth_are_refused(tmp_path):
    model = AutoModel.from_config(Qwen2Config(**SIZES, num_key_value_heads=2))
    model.save_pretrained(tmp_path)
    state = load_file(tmp_path / "model.safetensors")
    state["embed_tokens.weight"] = state["embed_tokens.weight"].repeat(1, 2)
    save_file(state, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(BackboneError, match=r"shapes that its config says for 2 layers, but embed_tokens.weight"):
        load_backbone(str(tmp_path), depth=2)


@pytest.mark.parametrize(("name", "limit"), [("gpt2", 64), ("opt", 2048), ("gptj", 48), ("mistral", None)])
def test_only_a_table_of_positions_is_a_limit(name, limit):
    config = {**OTHERS, "gptj": GPTJConfig(vocab_size=64, n_positions=48, n_embd=32, n_layer=2, n_head=4, rotary_dim=4)}
    assert position_limit(AutoModel.from_config(config[name])) == limit


def test_pairs_are_cut_to_the_positions_that_a_backbone_has(tokenizer, tmp_path, caplog):
    torch.manual_seed(0)
    gpt2 = GPT2Config(vocab_size=512, n_embd=32, n_layer=3, n_head=4, n_positions=80)
    AutoModel.from_config(gpt2).save_pretrained(tmp_path / "gpt2")
    tokenizer.save_pretrained(tmp_path / "gpt2")
    config = config_of(tmp_path / "gpt2", [aspect("a", [feature(2)])], {"chat": chat_reading(tokenizer)}, 512)
    random_probes(InspectorModel(config)).save_pretrained(tmp_path / "judge", fused=False)
    judge = load_judge(tmp_path / "judge", device="cpu")
    assert "Pairs are cut to 80 tokens" in caplog.text
    results = judge([{"question": "Why?", "prediction": text} for text in ("Because.", "Because of it. " * 50)])
    assert [result["truncated"] for result in results] == [False, True]
