import copy
import itertools

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from support.models import aspect, chat_reading, config_of, feature, random_probes
from transformers import AutoModel

from inspector_pipeline import BackboneError, InspectorModel, JudgeConfigError
from inspector_pipeline.features import POOLINGS, STATE_KINDS

LITERAL = {"prefix": "Q: ", "middle": " A: ", "suffix": "", "add_special_tokens": True}


def literal_decision_values(full, judge, ids, span):
    """Do a judge's steps one by one on the whole model, one pair at a time, in float64 after the model."""
    raw = []
    handle = full.norm.register_forward_pre_hook(lambda module, args: raw.append(args[0]))
    with torch.no_grad():
        states = [*full(ids[None], output_hidden_states=True).hidden_states[:-1], raw[0]]
    handle.remove()
    out = []
    for item in judge.aspects:
        probe = judge.probes[f"{item.name}_probe"]
        value = probe.bias.double().clone()
        for i, f in enumerate(item.features):
            h = states[f.layer][0]
            if f.state == "final_norm":
                h = full.norm(h)
            h = h.double()
            if f.state == "rms_normed":
                h = h / (h.square().mean(-1, keepdim=True) + full.config.rms_norm_eps).sqrt()
            pooled = {
                "mean": lambda h=h: h.mean(0),
                "last": lambda h=h: h[-1],
                "response_mean": lambda h=h: h[span[0] : span[1]].mean(0),
                "min": lambda h=h: h.amin(0),
                "max": lambda h=h: h.amax(0),
            }[f.pooling]()
            center = judge.centers[judge.features.index(f)].double()
            value += probe.weight[:, i].double() @ (pooled - center)
        out.append(value)
    return out


def padded(rows, spans, side):
    width = max(map(len, rows)) + 2
    batch = {
        name: torch.zeros(len(rows), width, dtype=torch.long)
        for name in ("input_ids", "attention_mask", "response_mask")
    }
    for i, (row, (a, b)) in enumerate(zip(rows, spans, strict=True)):
        start = width - len(row) if side == "left" else 0
        batch["input_ids"][i, start : start + len(row)] = row
        batch["attention_mask"][i, start : start + len(row)] = 1
        batch["response_mask"][i, start + a : start + b] = 1
    return batch


@pytest.mark.parametrize("form", ["fused", "probes"])
@pytest.mark.parametrize("side", ["left", "right"])
def test_equals_the_full_model_for_every_pooling_state_and_storage_form(deep, form, side, tmp_path):
    full, folder = deep
    kinds = list(itertools.product(POOLINGS, STATE_KINDS))
    aspects = [aspect(f"{p} {s}", [feature(28, p, s), feature(17, p, "raw")], classes=(0, 1)) for p, s in kinds]
    config = config_of(folder, aspects, {"chat": LITERAL})
    judge = random_probes(InspectorModel(config))
    for probe in judge.probes.values():
        probe.weight.data /= 5
    judge.save_pretrained(tmp_path / "probes", fused=False)
    judge = InspectorModel.from_pretrained(tmp_path / "probes")
    if form == "fused":
        judge.save_pretrained(tmp_path / "fused")
        judge = InspectorModel.from_pretrained(tmp_path / "fused")
    generator = torch.Generator().manual_seed(0)
    rows = [torch.randint(1, 500, (n,), generator=generator) for n in (5, 11, 8)]
    spans = [(1, 4), (6, 11), (0, 8)]
    with torch.no_grad():
        got = judge(**padded(rows, spans, side)).decision_values
    for i, (row, span) in enumerate(zip(rows, spans, strict=True)):
        expected = literal_decision_values(full, judge, row, span)
        for (pooling, state), a, b in zip(kinds, got, expected, strict=True):
            torch.testing.assert_close(
                a[i].double(), b, atol=1e-4, rtol=0, msg=lambda m, k=(pooling, state): f"{k}: {m}"
            )


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=25)
@given(data=st.data())
def test_a_pair_gets_the_same_scores_alone_and_in_any_batch_and_order(judge, data):
    model = judge.model
    lengths = data.draw(st.lists(st.integers(2, 30), min_size=1, max_size=6))
    generator = torch.Generator().manual_seed(data.draw(st.integers(0, 99)))
    rows = [torch.randint(1, 500, (n,), generator=generator) for n in lengths]
    spans = [(n // 2, n) for n in lengths]
    side = data.draw(st.sampled_from(["left", "right"]))
    with torch.no_grad():
        together = model(**padded(rows, spans, side)).expected
        alone = torch.cat([model(**padded([r], [s], "right")).expected for r, s in zip(rows, spans, strict=True)])
        order = data.draw(st.permutations(range(len(rows))))
        shuffled = model(**padded([rows[i] for i in order], [spans[i] for i in order], side)).expected
    torch.testing.assert_close(together, alone, atol=1e-4, rtol=0)
    torch.testing.assert_close(shuffled, together[list(order)], atol=1e-4, rtol=0)


def two_aspects():
    return [
        aspect("a", [feature(2, "last"), feature(1, "mean")]),
        aspect("b", [feature(2, "mean", "final_norm")], classes=(0, 1)),
    ]


IDS = torch.arange(1, 9)[None]


def expected_of(model):
    with torch.no_grad():
        return model(IDS, response_mask=torch.ones_like(IDS)).expected


def test_both_forms_load_by_auto_model_and_round_trip(make_judge, tmp_path):
    probes = AutoModel.from_pretrained(make_judge(two_aspects()))
    probes.save_pretrained(tmp_path / "fused")
    fused = AutoModel.from_pretrained(tmp_path / "fused")
    assert type(fused) is InspectorModel and fused.config.fused and not probes.config.fused
    fused.save_pretrained(tmp_path / "again", fused=False)
    again = AutoModel.from_pretrained(tmp_path / "again")
    assert torch.equal(expected_of(probes), expected_of(fused))
    assert torch.equal(expected_of(probes), expected_of(again))
    names = load_file(tmp_path / "again" / "model.safetensors").keys()
    assert "centers" in names and all(name == "centers" or name.startswith("probes.") for name in names)


def test_the_final_norm_is_kept_only_where_a_feature_asks(make_judge, tmp_path):
    with_norm = InspectorModel.from_pretrained(make_judge(two_aspects()))
    with_norm.save_pretrained(tmp_path / "with")
    without = InspectorModel.from_pretrained(make_judge([aspect("a", [feature(2)])], name="other"))
    without.save_pretrained(tmp_path / "without")
    names = {form: set(load_file(tmp_path / form / "model.safetensors")) for form in ("with", "without")}
    assert "final_norm.weight" in names["with"] and "final_norm.weight" not in names["without"]
    assert not any(name.startswith("backbone.norm") for form in names.values() for name in form)
    assert without.final_norm is None


@pytest.mark.parametrize("fused", [True, False])
def test_probes_stay_float32_in_any_dtype(make_judge, tmp_path, fused):
    InspectorModel.from_pretrained(make_judge(two_aspects())).save_pretrained(tmp_path / "j", fused=fused)
    model = InspectorModel.from_pretrained(tmp_path / "j", dtype=torch.bfloat16)
    assert model.dtype == torch.bfloat16
    assert {parameter.dtype for parameter in model.probes.parameters()} == {model.centers.dtype} == {torch.float32}
    assert {parameter.dtype for parameter in model.backbone.parameters()} == {torch.bfloat16}
    assert expected_of(model).dtype == torch.float32
    model.save_pretrained(tmp_path / "half")
    again = InspectorModel.from_pretrained(tmp_path / "half", dtype="stored")
    assert again.dtype == torch.bfloat16
    assert torch.equal(expected_of(again), expected_of(model))
    full = InspectorModel.from_pretrained(make_judge(two_aspects(), name="again"))
    torch.testing.assert_close(expected_of(model), expected_of(full), atol=0.5, rtol=0)


def test_many_probe_sets_share_one_backbone(make_judge):
    first = InspectorModel.from_pretrained(make_judge(two_aspects()))
    folder = make_judge([aspect("c", [feature(1, "max")])], seed=5, name="second")
    shared = InspectorModel.from_pretrained(folder, share_backbone_with=first)
    own = InspectorModel.from_pretrained(folder)
    assert torch.equal(expected_of(shared), expected_of(own))
    mine = {id(parameter) for parameter in first.backbone.parameters()}
    assert {id(parameter) for parameter in shared.backbone.parameters()} < mine
    before = expected_of(first)
    expected_of(shared)
    assert torch.equal(expected_of(first), before)
    assert shared.config.depth == 1 and first.backbone.config.num_hidden_layers == 2


@pytest.mark.parametrize("ran_before", [True, False])
def test_judges_that_share_a_backbone_score_as_if_alone_in_any_order(make_judge, ran_before):
    first_dir = make_judge(two_aspects())
    second_dir = make_judge([aspect("c", [feature(2, "max"), feature(1)])], seed=5, name="second")
    alone = [expected_of(InspectorModel.from_pretrained(folder)) for folder in (first_dir, second_dir)]
    first = InspectorModel.from_pretrained(first_dir)
    if ran_before:
        expected_of(first)
    second = InspectorModel.from_pretrained(second_dir, share_backbone_with=first)
    third = InspectorModel.from_pretrained(second_dir, share_backbone_with=second)
    for model, expected in [(first, 0), (second, 1), (third, 1), (first, 0), (second, 1)]:
        assert torch.equal(expected_of(model), alone[expected])


def test_sharing_takes_no_options_of_its_own(make_judge):
    folder = make_judge(two_aspects())
    judge = InspectorModel.from_pretrained(folder)
    with pytest.raises(ValueError, match="brings its own backbone, so dtype cannot be given"):
        InspectorModel.from_pretrained(folder, share_backbone_with=judge, dtype=torch.bfloat16)
    for config in (judge.config,):
        other = copy.copy(judge)
        other.config = copy.deepcopy(config)
        other.config.backbone_config.rms_norm_eps = 0.5
    with pytest.raises(BackboneError, match="same backbone_config"):
        InspectorModel.from_pretrained(folder, share_backbone_with=other)
    unnamed = copy.deepcopy(judge.config)
    unnamed.backbone_id = ""
    with pytest.raises(BackboneError, match="expects judges with a backbone_id"):
        InspectorModel.from_pretrained(folder, config=unnamed, share_backbone_with=judge)


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("centers", lambda t: t * float("nan")),
        ("probes.o_probe.weight", lambda t: t + float("inf")),
        ("probes.o_probe.thresholds", lambda t: t * float("nan")),
        ("probes.o_probe.cuts", lambda t: -t.sort().values),
        ("probes.r_probe.levels", lambda t: t[[0, 1, 1, 3, 4]]),  # 0 / 0 between two of them
        ("probes.r_probe.levels", lambda t: t.flip(0)),
    ],
)
def test_weights_that_give_no_honest_score_are_refused(make_judge, name, change):
    folder = make_judge([aspect("o", [feature(1)], "ordinal"), aspect("r", [feature(1)], "regression")])
    state = load_file(folder / "model.safetensors")
    state[name] = change(state[name]).contiguous()
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(JudgeConfigError, match="expects (finite|ascending)"):
        InspectorModel.from_pretrained(folder)


def test_any_non_zero_mask_counts_as_one(make_judge):
    model = InspectorModel.from_pretrained(make_judge(two_aspects()))
    with torch.no_grad():
        plain, doubled = (model(IDS, torch.full_like(IDS, n), torch.full_like(IDS, n)).expected for n in (1, 2))
    assert torch.equal(plain, doubled)


def test_a_backbone_that_does_not_fit_is_not_shared(make_judge):
    shallow = InspectorModel.from_pretrained(make_judge([aspect("c", [feature(1)])], name="shallow"))
    deep_folder = make_judge([aspect("c", [feature(2)])], name="deep")
    with pytest.raises(BackboneError, match="at least 2 layers, but got one of 1"):
        InspectorModel.from_pretrained(deep_folder, share_backbone_with=shallow)
    with pytest.raises(BackboneError, match="kept the backbone's final norm"):
        InspectorModel.from_pretrained(
            make_judge([aspect("c", [feature(1, "mean", "final_norm")])], name="norm"), share_backbone_with=shallow
        )
    other = copy.copy(shallow)
    other.config = copy.deepcopy(shallow.config)
    other.config.backbone_revision = "v2"
    with pytest.raises(BackboneError, match="backbone_revision None, but got one with 'v2'"):
        InspectorModel.from_pretrained(make_judge([aspect("c", [feature(1)])], name="same"), share_backbone_with=other)


@pytest.mark.parametrize("fused", [True, False])
def test_missing_probes_are_refused_and_never_made_up(make_judge, tmp_path, fused):
    InspectorModel.from_pretrained(make_judge(two_aspects())).save_pretrained(tmp_path / "j", fused=fused)
    path = tmp_path / "j" / "model.safetensors"
    state = {name: tensor for name, tensor in load_file(path).items() if "b_probe" not in name}
    save_file(state, path, metadata={"format": "pt"})
    with pytest.raises(JudgeConfigError, match="expects all weights.*b_probe"):
        InspectorModel.from_pretrained(tmp_path / "j")


def test_another_backbone_under_the_same_id_is_refused(make_judge, _saved_backbones, family):
    folder = make_judge([aspect("a", [feature(1)])])
    config = copy.deepcopy(InspectorModel.from_pretrained(folder).config)
    other = next(name for name in _saved_backbones if name != family)
    config.backbone_id = str(_saved_backbones[other])
    with pytest.raises(BackboneError, match=f"backbone_config.model_type expects {family}, but .* has {other}"):
        InspectorModel.from_pretrained(folder, config=config)


def test_a_judge_of_probes_alone_says_what_it_lacks(make_judge, backbone_dir, tokenizer):
    config = config_of(backbone_dir, two_aspects(), {"chat": chat_reading(tokenizer)}, backbone_id="")
    model = InspectorModel(config)
    with pytest.raises(BackboneError, match="holds probes only"):
        model(IDS)
    with pytest.raises(BackboneError, match="expects a judge with its backbone"):
        model.save_pretrained("unused")
    with pytest.raises(JudgeConfigError, match="expects a backbone_id"):
        model.save_pretrained("unused", fused=False)


def test_several_readings_take_a_mapping(make_judge):
    readings = {"first": LITERAL, "second": {**LITERAL, "prefix": "Other: "}}
    aspects = [aspect("a", [feature(2, reading="first")]), aspect("b", [feature(1, "last", reading="second")])]
    model = InspectorModel.from_pretrained(make_judge(aspects, readings))
    ids = {"first": IDS, "second": IDS[:, :4]}
    with torch.no_grad():
        output = model(ids)
    assert output.scores.shape == (1, 2) and output.scores.dtype == torch.int64
    with pytest.raises(ValueError, match=r"a tensor for each reading \(first, second\)"):
        model(IDS)
    with pytest.raises(ValueError, match="'second', but got first"):
        model({"first": IDS})


def test_a_device_map_places_backbone_and_probes(make_judge, tmp_path):
    folder = make_judge(two_aspects())
    plain = InspectorModel.from_pretrained(folder)
    plain.save_pretrained(tmp_path / "fused")
    for path in (folder, tmp_path / "fused"):
        mapped = InspectorModel.from_pretrained(path, device_map="auto")
        assert {parameter.device.type for parameter in mapped.parameters()} == {mapped.device.type}
        torch.testing.assert_close(expected_of(mapped).cpu(), expected_of(plain))


def test_equal_cuts_leave_out_a_score_and_invent_none(make_judge):
    folder = make_judge([aspect("o", [feature(1)], "ordinal", classes=(1, 2, 3))])
    state = load_file(folder / "model.safetensors")
    for name in ("thresholds", "cuts"):
        state[f"probes.o_probe.{name}"] = torch.zeros(2)
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    judge = InspectorModel.from_pretrained(folder)
    decision = judge.probes["o_probe"].decide(torch.tensor([[-1.0], [1.0]]))
    assert decision.class_index.tolist() == [0, 2]
    assert decision.probabilities[:, 1].tolist() == [0, 0]
