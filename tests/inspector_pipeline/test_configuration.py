import copy
import json
import math

import pytest
from support.models import aspect, familiar, feature
from transformers import AutoConfig, PreTrainedConfig

from inspector_pipeline import Feature, InspectorConfig, JudgeConfigError
from inspector_pipeline.configuration_inspector import norm_eps
from inspector_pipeline.errors import SettingsError
from inspector_pipeline.results import own_rank_field, rank_field

TWO = [aspect("a", [feature(2, "last"), feature(1)]), aspect("b", [feature(2)], "ordinal", (3, 4, 5), counts=False)]


@pytest.fixture
def saved(make_judge):
    folder = make_judge(TWO)
    return folder, json.loads((folder / "config.json").read_text())


def test_a_saved_config_loads_by_auto_config(saved, family):
    config = AutoConfig.from_pretrained(saved[0])
    assert type(config) is InspectorConfig
    assert config.backbone_config.model_type == family
    assert config.backbone_config.num_hidden_layers == config.depth == 2
    assert config.parsed_aspects[0].features == (Feature("chat", 2, "last"), Feature("chat", 1, "mean"))
    assert not config.parsed_aspects[1].counts_in_total
    assert InspectorConfig.from_dict(config.to_dict()).to_dict() == config.to_dict()


def test_the_field_to_rank_by_is_saved_where_it_is_named(saved, tmp_path):
    assert "rank_by" not in saved[1]  # as judges of before were saved
    config = InspectorConfig.from_dict({**saved[1], "rank_by": "expected_b"})
    config.save_pretrained(tmp_path)
    again = InspectorConfig.from_pretrained(tmp_path)
    assert again.rank_by == "expected_b" == own_rank_field(again) and rank_field(again, "a") == "a"
    assert rank_field(InspectorConfig.from_dict(saved[1])) == "expected_total"
    with pytest.raises(SettingsError, match="expects one of expected_total, expected_a, .*total_score, a, b, but got"):
        rank_field(again, "wit")


def test_no_local_path_is_saved_but_the_backbones_id(saved):
    text = json.dumps({**saved[1], "backbone_id": ""})
    assert "/tmp" not in text and str(saved[0].parent) not in text


def test_a_bare_config_can_be_built():
    assert InspectorConfig().model_type == "inspector"


@pytest.mark.parametrize(
    "name", ["depth", "readings", "aspects", "max_length", "format_version", "backbone_config", "fused"]
)
def test_a_missing_field_is_named(saved, name):
    del saved[1][name]
    with pytest.raises(JudgeConfigError, match=f"needs the field.*{name}"):
        InspectorConfig.from_dict(saved[1])


FAMILIAR = familiar([feature(2, "last")], text={"digits": [0, 1]})
CASES = {
    "unknown top": (lambda c: c.update(max_lenght=3), "max_lenght"),
    "unknown nested": (
        lambda c: c["aspects"][0]["features"][0].update(poling=1),
        r"aspects\[0\].features\[0\].*poling",
    ),
    "missing nested": (lambda c: c["aspects"][1].pop("classes"), r"aspects\[1\] needs the field.*classes"),
    "missing counts": (lambda c: c["aspects"][1].pop("counts_in_total"), "counts_in_total"),
    "pooling": (
        lambda c: c["aspects"][0]["features"][0].update(pooling="median"),
        "pooling expects one of mean.*'median'",
    ),
    "state": (lambda c: c["aspects"][0]["features"][0].update(state="cooked"), "state expects one of raw.*'cooked'"),
    "reading": (lambda c: c["aspects"][0]["features"][0].update(reading="x"), "reading expects one of chat.*'x'"),
    "layer type": (lambda c: c["aspects"][0]["features"][0].update(layer="2"), "layer expects int, but got '2'"),
    "layer bool": (lambda c: c["aspects"][0]["features"][0].update(layer=True), "layer expects int, but got True"),
    "layer sign": (lambda c: c["aspects"][0]["features"][1].update(layer=-1), "layer expects 0 or more"),
    "head": (lambda c: c["aspects"][0]["head"].update(type="forest"), "head.type expects one of linear"),
    "rule": (
        lambda c: c["aspects"][0]["head"].update(rule="vote"),
        "head.rule expects one of logistic, one_vs_rest",
    ),
    "classes order": (lambda c: c["aspects"][0].update(classes=[2, 1]), "classes expects two or more ascending"),
    "classes one": (lambda c: c["aspects"][0].update(classes=[1]), "classes expects two or more"),
    "classes kind": (lambda c: c["aspects"][0].update(classes=["a", "b"]), "classes expects two or more"),
    "name taken": (lambda c: c["aspects"][0].update(name="total_score"), "name expects a name.*total_score"),
    "name dot": (lambda c: c["aspects"][0].update(name="a.b"), "without dots"),
    "name twice": (lambda c: c["aspects"][0].update(name="b"), "distinct names"),
    "rank_by": (
        lambda c: c.update(rank_by="expected_c"),
        "rank_by expects one of expected_total, expected_a, expected_b, but got 'expected_c'",
    ),
    "rank_by kind": (lambda c: c.update(rank_by=3), "field of the wrong kind.*rank_by"),
    "rank_by total": (
        lambda c: [*(one.update(counts_in_total=False) for one in c["aspects"]), c.update(rank_by="expected_total")],
        "rank_by expects one of expected_a, expected_b, but got 'expected_total'",
    ),
    "no aspects": (lambda c: c.update(aspects=[]), "at least one aspect"),
    "no features": (lambda c: c["aspects"][0].update(features=[]), "at least one feature"),
    "aspect kind": (lambda c: c["aspects"].append("x"), r"aspects\[2\] expects a JSON object"),
    "depth": (lambda c: c.update(depth=3), "depth expects 2"),
    "backbone depth": (
        lambda c: c["backbone_config"].update(num_hidden_layers=3, layer_types=None),
        "num_hidden_layers",
    ),
    "max_length": (lambda c: c.update(max_length=0), "max_length expects a positive"),
    "reading field": (lambda c: c["readings"]["chat"].pop("middle"), "readings.*middle"),
    "unread reading": (lambda c: c["readings"].update(more=dict(c["readings"]["chat"])), "more"),
    "newer format": (lambda c: c.update(format_version=8), "up to format_version 7.*Upgrade"),
    "format of other heads": (lambda c: c.update(format_version=2), "format_version expects 1, but got 2"),
    "familiar format": (lambda c: c.update(format_version=1), "format_version expects 3, but got 1"),
    "familiar field": (lambda c: c["familiar"].pop("threshold"), "familiar needs the field.*threshold"),
    "familiar kind": (lambda c: c.update(familiar=[1]), "familiar"),
    "familiar feature": (lambda c: c["familiar"]["features"][0].update(layer=1), "familiar.features.*an aspect reads"),
    "familiar nothing": (lambda c: c["familiar"].update(features=[]), "familiar.features expects one or more"),
    "familiar threshold": (lambda c: c["familiar"].update(threshold=math.nan), "threshold expects 0 or more.*nan"),
    "familiar size": (lambda c: c["familiar"].update(n_components=0), "n_components expects 1 or more, but got 0"),
    "familiar statistic": (lambda c: c["familiar"]["text"].update(lenght=[0, 1]), "familiar.text expects.*'lenght'"),
    "familiar bounds": (lambda c: c["familiar"]["text"].update(digits=[1, 0]), r"text.digits expects.*\[1, 0\]"),
    "familiar bound": (lambda c: c["familiar"]["text"].update(digits=["a", 0]), "text.digits expects"),
    "seen": (lambda c: c.update(n_seen_questions=-1), "n_seen_questions expects 0 or more, but got -1"),
    "older format": (lambda c: c.update(format_version=0), "format_version expects 1"),
}


@pytest.mark.parametrize("case", CASES)
def test_a_wrong_field_is_named(saved, case):
    change, message = CASES[case]
    saved[1].update(copy.deepcopy(FAMILIAR) if case.startswith("familiar ") else {})
    change(saved[1])
    with pytest.raises(JudgeConfigError, match=message):
        InspectorConfig.from_dict(saved[1])


def test_a_plain_model_is_no_judge(saved, backbone_dir):
    with pytest.raises(JudgeConfigError, match="model_type expects 'inspector'"):
        InspectorConfig.from_pretrained(backbone_dir)
    for broken in ("x", {}, {"model_type": "zzz"}):
        with pytest.raises(JudgeConfigError, match="wrong kind|num_hidden_layers"):
            InspectorConfig.from_dict({**saved[1], "backbone_config": broken})


@pytest.mark.parametrize(
    ("field", "value"), [("max_length", "512"), ("depth", 2.5), ("readings", []), ("fused", "yes")]
)
def test_a_field_of_the_wrong_type_is_named(saved, field, value):
    with pytest.raises(JudgeConfigError, match=field):
        InspectorConfig.from_dict({**saved[1], field: value})


@pytest.mark.parametrize("name", ["rms_norm_eps", "layer_norm_epsilon", "layer_norm_eps", "norm_epsilon", None])
def test_the_epsilon_is_that_of_the_backbone_s_norms(name):
    config = PreTrainedConfig(**({name: 0.25} if name else {}))
    assert norm_eps(config) == (0.25 if name else 1e-6)
