"""The engine of whole numbers: exact products, and scores that no company changes."""

import copy
import json
import pickle
import weakref

import pytest
import torch
from inspector_training.features.extract import extract
from inspector_training.features.plan import ExtractConfig
from inspector_training.features.store import load_features
from support.models import PAIRS, aspect, feature
from torch import nn

from inspector_pipeline import InspectorModel, load_judge
from inspector_pipeline import int8 as int8_module
from inspector_pipeline.api.export import exported_feature
from inspector_pipeline.errors import BackboneError, DataFileError, JudgeConfigError
from inspector_pipeline.features import Feature
from inspector_pipeline.int8 import (
    ENGINE_SETTINGS,
    STATE_LEVELS,
    WEIGHT_LEVELS,
    Int8Linear,
    Rounder,
    is_int8,
    round_linears,
)
from inspector_pipeline.prefixes import cut_tree

QUESTION = "A farmer has 12 cows, buys 5 more cows, and sells 3 of them to his neighbour. How many cows has he now? "
COMPANY = [*PAIRS, *({"question": QUESTION, "prediction": text} for text in ("14", "He has 14.", "12 + 5 - 3 = 14."))]


@pytest.fixture
def family():
    """One family is enough here: what differs between them is tested with the judges."""
    return "llama"


@pytest.fixture
def int8_judge(make_judge):
    aspects = [
        aspect("correctness", [feature(4, "response_mean", "rms_normed"), feature(2, "last")], "ordinal"),
        aspect("fluency", [feature(3, "mean")], classes=(3, 4, 5)),
    ]
    return make_judge(aspects, engine=ENGINE_SETTINGS, format_version=6)


@pytest.mark.parametrize("width", [48, 5000])  # the second sums beyond what float32 holds exactly
@pytest.mark.parametrize("has_kernel", [True, False])
def test_products_are_those_of_the_rounded_numbers_exactly_with_and_without_the_kernel(width, has_kernel, monkeypatch):
    if not has_kernel:
        monkeypatch.setattr(int8_module, "kernel_is_exact", lambda: False)
    torch.manual_seed(0)
    linear = nn.Linear(width, 16)
    states = torch.randn(2, 7, width) * torch.logspace(-3, 3, 7)[:, None]
    states[0, 0] = 0.0
    states[1, 1, 3] = 1e4  # one large number, as some dimensions of language models have

    found = Int8Linear(linear)(states)

    weight_scale = linear.weight.double().abs().amax(1) / WEIGHT_LEVELS
    weight = (linear.weight.double() / weight_scale[:, None]).round()
    scale = states.double().abs().amax(-1, keepdim=True).clamp_min(1e-30) / STATE_LEVELS
    levels = (states.double() / scale).round()
    exact = (levels @ weight.T) * weight_scale * scale + linear.bias.double()
    torch.testing.assert_close(found.double(), exact, rtol=1e-5, atol=1e-6 * exact.abs().max().item())
    assert found[0, 0].equal(linear.bias)
    error = (found - linear(states)).norm(dim=-1) / linear(states).norm(dim=-1)
    assert 1e-4 < error[0, 1:].max() < 0.05


def test_states_that_are_not_finite_stay_so():
    states = torch.randn(3, 8)
    states[0, 0], states[1, 2] = torch.nan, torch.inf
    found = Int8Linear(nn.Linear(8, 16))(states)
    assert not found[:2].isfinite().any()
    assert found[2].isfinite().all()


def test_states_are_rounded_once_for_maps_that_read_the_same_and_anew_for_others(monkeypatch):
    shared, states, others = Rounder(), torch.randn(5, 8), torch.randn(5, 8)
    one, other = (Int8Linear(nn.Linear(8, 16), shared) for _ in range(2))
    assert shared(states)[0] is shared(states)[0]
    assert shared(states)[0] is not shared(states.clone())[0]
    for map_, values in ((one, states), (other, states), (one, others), (other, others), (one, states)):
        assert map_(values).equal(copy.deepcopy(map_)(values.clone()))
    assert pickle.loads(pickle.dumps(shared))._last is copy.deepcopy(shared)._last is None
    layers = nn.ModuleList([nn.Linear(8, 8), nn.Linear(8, 8)])
    round_linears(layers)
    assert layers[0]._rounder is layers[1]._rounder
    freed = weakref.ref(states)
    shared(others)
    del states, values
    assert freed() is None  # no states are kept alive


def test_the_kernel_meets_few_numbers_of_tokens_since_it_keeps_memory_for_each(monkeypatch):
    met, multiply = set(), int8_module._multiply

    def count(shifted, packed, scale):
        met.add(len(shifted))
        return multiply(shifted, packed, scale)

    linear = Int8Linear(nn.Linear(8, 16))
    states = torch.randn(200, 8)
    whole = linear(states)
    monkeypatch.setattr(int8_module, "_multiply", count)
    for n in range(1, 201):
        assert linear(states[:n]).equal(whole[:n])
    assert met == {64, 128, 192, 256}


def test_a_kernel_that_overflows_or_is_not_there_is_found_out(monkeypatch):
    int8_module.kernel_is_exact.cache_clear()
    with monkeypatch.context() as patched:
        patched.setattr(int8_module, "_multiply", lambda shifted, packed, scale: torch.zeros(3, 16))
        assert not int8_module.kernel_is_exact()
    int8_module.kernel_is_exact.cache_clear()
    with monkeypatch.context() as patched:
        patched.setattr(int8_module, "_multiply", lambda *_: torch.ops.onednn.no_such_operator())
        assert not int8_module.kernel_is_exact()
    int8_module.kernel_is_exact.cache_clear()


def test_pieces_do_not_depend_on_other_sequences():
    one, other = [1, 2, 3, 4, 5], [1, 2, 3, 9]
    tree = cut_tree([one, other, one], [(3,), (3,), (3,)])
    assert [node.ids for node in tree.nodes] == [[1, 2, 3], [4, 5], [9]]
    assert [tree.path(i) for i in range(3)] == [[0, 1], [0, 2], [0, 1]]
    apart = cut_tree([one, other], [(3,), (3,)], is_shared=False)
    assert [[apart.nodes[n].ids for n in apart.path(i)] for i in range(2)] == [[[1, 2, 3], [4, 5]], [[1, 2, 3], [9]]]
    assert [node.start for node in cut_tree([one], [(0, 2, 5)], start=1).nodes] == [1, 2]


def test_scores_are_the_same_alone_and_in_any_company_and_order(int8_judge):
    judge = load_judge(int8_judge, device="cpu")
    assert judge.reader.is_int8
    values = lambda results: torch.tensor([list(result["expected"].values()) for result in results])  # noqa: E731
    together = values(judge(COMPANY))
    for others in (
        values([judge([pair])[0] for pair in COMPANY]),
        values(judge(COMPANY[::-1]))[torch.arange(len(COMPANY) - 1, -1, -1)],
        values(judge(COMPANY, share_prefixes=False)),
        values([*judge(COMPANY[:2]), *judge(COMPANY[2:])]),
    ):
        torch.testing.assert_close(together, others, rtol=0, atol=1e-5)
    plain = values(load_judge(int8_judge, device="cpu", engine="torch")(COMPANY))
    assert 1e-4 < (plain - together).abs().max() < 2  # another arithmetic, of the same network


def test_another_engine_is_told_and_an_unknown_one_refused(int8_judge, make_judge, caplog):
    load_judge(int8_judge, device="cpu")
    assert "fitted in the engine" not in caplog.text
    load_judge(int8_judge, device="cpu", engine="torch")
    assert "fitted in the engine torch-int8 and run in torch" in caplog.text
    assert "how far was not measured" in caplog.text
    judge = InspectorModel.from_pretrained(int8_judge)
    judge.config.engine = {**ENGINE_SETTINGS, "state_error": 0.061}
    judge.save_pretrained(int8_judge, fused=False)
    load_judge(int8_judge, device="cpu", engine="torch")
    assert "its features by 6.1%, when it was fitted" in caplog.text
    plain = make_judge([aspect("fluency", [feature(2)])], name="plain")
    judge = load_judge(plain, device="cpu", engine="torch-int8")
    assert "fitted in the engine torch and run in torch-int8" in caplog.text
    assert judge.model.config.engine == ENGINE_SETTINGS
    with pytest.raises(JudgeConfigError, match="engine expects one of torch, torch-int8, but got 'onnx'"):
        load_judge(plain, device="cpu", engine="onnx")


def test_other_levels_than_ours_are_refused(int8_judge):
    path = int8_judge / "config.json"
    config = json.loads(path.read_text())
    assert config["engine"] == ENGINE_SETTINGS
    path.write_text(json.dumps({**config, "engine": {**ENGINE_SETTINGS, "weight_levels": 127}}))
    with pytest.raises(JudgeConfigError, match="engine expects"):
        load_judge(int8_judge, device="cpu")


def test_a_fused_copy_holds_the_backbones_own_weights_and_gives_the_same_scores(int8_judge, tmp_path):
    judge = load_judge(int8_judge, device="cpu")
    judge.save_pretrained(tmp_path / "fused")
    again = load_judge(tmp_path / "fused", device="cpu")
    assert is_int8(again.model.loaded_backbone)
    assert again(PAIRS) == judge(PAIRS)
    plain = load_judge(tmp_path / "fused", device="cpu", engine="torch").model.loaded_backbone
    assert plain.layers[0].mlp.up_proj.weight.dtype == torch.float32
    judge.model.name_or_path = ""
    with pytest.raises(BackboneError, match="has rounded them"):
        judge.model.save_pretrained(tmp_path / "other")


def test_what_would_depend_on_padding_is_refused(int8_judge):
    judge = load_judge(int8_judge, device="cpu")
    with pytest.raises(BackboneError, match="Padded batches expect the engine torch"):
        judge.model(torch.ones(1, 5, dtype=torch.long))


def test_a_checkpoint_for_other_engines_is_refused(int8_judge):
    with pytest.raises(JudgeConfigError, match="a judge in floating point"):
        exported_feature(InspectorModel.from_pretrained(int8_judge))


def test_judges_of_two_engines_share_no_backbone(int8_judge):
    judge = load_judge(int8_judge, device="cpu")
    other = InspectorModel.from_pretrained(int8_judge, engine="torch", dtype=torch.float32)
    with pytest.raises(BackboneError, match="a judge of the same engine"):
        InspectorModel.from_pretrained(int8_judge, share_backbone_with=other)
    shared = InspectorModel.from_pretrained(int8_judge, share_backbone_with=judge.model)
    assert shared.loaded_backbone.layers[0].mlp.up_proj is judge.model.loaded_backbone.layers[0].mlp.up_proj


def test_layers_in_another_dtype_are_refused():
    with pytest.raises(BackboneError, match=r"linear maps in float32 .* but got torch.bfloat16"):
        round_linears(nn.Sequential(nn.Linear(2, 2, dtype=torch.bfloat16)))
    with pytest.raises(BackboneError, match="but got none of torch's own"):
        round_linears(nn.Sequential(nn.ReLU()))


def test_features_are_those_that_the_judge_reads(int8_judge, backbone_dir, tmp_path):
    rows = tmp_path / "rows.jsonl"
    rows.write_text(
        "".join(json.dumps({"id": i, **pair, "correctness": i % 2}) + "\n" for i, pair in enumerate(COMPANY))
    )
    config = {"pairs": str(rows), "backbone_id": str(backbone_dir), "backbone_revision": None, "max_length": 512}
    extract(ExtractConfig(output=str(tmp_path / "int8"), engine="torch-int8", layers=(4,), **config))
    extract(ExtractConfig(output=str(tmp_path / "plain"), layers=(4,), **config))
    with pytest.raises(DataFileError, match="backbone"):
        extract(ExtractConfig(output=str(tmp_path / "plain"), engine="torch-int8", layers=(4,), **config))
    with pytest.raises(DataFileError, match="dtype expects float32"):
        extract(ExtractConfig(output=str(tmp_path / "no"), engine="torch-int8", dtype="bfloat16", **config))
    wanted = Feature("chat", 4, "response_mean", "rms_normed")
    held, other = (torch.from_numpy(load_features(tmp_path / name).matrix(wanted)) for name in ("int8", "plain"))
    judge = load_judge(int8_judge, device="cpu")
    with torch.inference_mode():
        own = judge.reader([judge.encode(pair) for pair in COMPANY])[wanted]
    torch.testing.assert_close(held.float(), own, rtol=0, atol=1e-5)
    assert (held - other).abs().max() > 1e-3
    told = json.loads((tmp_path / "int8" / "manifest.json").read_text())["settings"]["state_error"]
    assert 1e-3 < told < 0.3
