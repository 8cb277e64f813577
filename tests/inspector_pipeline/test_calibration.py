"""Levels and probabilities of a domain: the map in a judge's config, at every door."""

import copy
import json

import numpy as np
import pytest
import torch
from support.models import PAIRS, aspect, feature
from support.results import alike

from inspector_pipeline import InspectorConfig, JudgeConfigError, load_judge
from inspector_pipeline.calibration import LevelMap
from inspector_pipeline.jobs.window import arrow_schema
from inspector_pipeline.results import FlatColumns, expected_error

MAP = {
    "method": "beta",
    "knots": [1.0, 2.0, 5.0],
    "exceed": [[0.1, 0.0], [0.6, 0.2], [0.9, 0.5]],
    "cuts": [1.5, 4.0],
    "coverage": 0.8,
    "least": [0.35, 0.35, 0.45],
}


def test_a_map_by_hand():
    level_map = LevelMap.from_dict(MAP, "map", 3)
    assert level_map.to_dict() == MAP
    decision = level_map.tensors(torch.device("cpu"))(torch.tensor([0.0, 1.5, 3.5, 9.0]))
    expected = [[0.9, 0.1, 0.0], [0.65, 0.25, 0.1], [0.25, 0.4, 0.35], [0.1, 0.4, 0.5]]
    assert np.allclose(decision.probabilities, expected, atol=1e-6)
    assert decision.class_index.tolist() == [0, 0, 1, 2]
    sets = [level_map.score_set(dict(zip((1, 2, 3), row, strict=True))) for row in expected]
    assert sets == [[1], [1], [2], [2, 3]]
    assert level_map.score_set({1: 0.34, 2: 0.33, 3: 0.33}) == [1], "the likeliest one is always in it"


def test_the_expected_error_is_the_standard_deviation():
    shares, scales = (
        {"a": {1: 0.5, 3: 0.5}, "b": {"no": 0.5, "yes": 0.5}},
        {"a": {"1": 1, "3": 3}, "b": {"no": 0, "yes": 1}},
    )
    assert expected_error(shares, {"a": scales["a"]}) == 1.0
    assert expected_error(shares, scales) == pytest.approx(1.25**0.5)


@pytest.fixture
def plain(make_judge):
    own = [aspect("a", [feature(2)], "ordinal", classes=(1, 2, 3)), aspect("b", [feature(1, "last")], classes=(0, 1))]
    return make_judge(own)


def calibrated(folder, **maps):
    path = folder / "config.json"
    data = json.loads(path.read_text()) | {"calibration": maps, "format_version": 5}
    path.write_text(json.dumps(data))
    return folder


OWN = {**MAP, "knots": [1.0, 2.0, 3.0], "cuts": [1.9, 2.1]}


def test_the_map_is_used_at_every_door_and_survives_a_save(plain, tmp_path):
    before = load_judge(plain, device="cpu")(PAIRS)
    assert not any("score_sets" in result for result in before)
    judge = load_judge(calibrated(plain, a=OWN), device="cpu")
    after, level_map = judge(PAIRS), LevelMap.from_dict(OWN, "a", 3)
    for old, new in zip(before, after, strict=True):
        assert alike(new["probabilities"]["b"], old["probabilities"]["b"]), "b was not calibrated"
        found = level_map.tensors(torch.device("cpu"))(torch.tensor([old["expected"]["a"]]))
        assert alike(list(new["probabilities"]["a"].values()), found.probabilities[0].tolist(), 1e-5)
        assert new["scores"]["a"] == 1 + found.class_index.item()
        assert new["expected"]["a"] == pytest.approx(sum(k * v for k, v in new["probabilities"]["a"].items()), abs=1e-5)
        assert new["score_sets"] == {"a": level_map.score_set(new["probabilities"]["a"])}
    columns = FlatColumns(judge.model.config)
    assert list(columns.values(after[0]))[-2:] == ["rank_by", "score_sets"]
    assert str(arrow_schema(columns).field("score_sets").type) == "struct<a: list<item: int64>>"
    judge.save_pretrained(tmp_path / "again", fused=False)
    assert alike(load_judge(tmp_path / "again", device="cpu")(PAIRS), after)


FAULTS = {
    "another aspect": (lambda c: c.update(z=c["a"]), "calibration expects one of a, b, but got 'z'"),
    "a method": (lambda c: c["a"].update(method="magic"), "calibration.a.method expects one of none, .*'magic'"),
    "no knots": (lambda c: c["a"].pop("knots"), "calibration.a expects knots, exceed, cuts"),
    "a map for none": (lambda c: c["a"].update(method="none"), "calibration.a expects knots, exceed, cuts"),
    "equal knots": (lambda c: c["a"].update(knots=[1.0, 2.0, 2.00000001]), "knots expects two or more, ascending"),
    "a falling one": (lambda c: c["a"]["exceed"][2].__setitem__(0, 0.2), "exceed expects probabilities of 0 to 1 that"),
    "above 1": (lambda c: c["a"]["exceed"][2].__setitem__(0, 1.2), "exceed expects probabilities of 0 to 1 that"),
    "crossing": (lambda c: c["a"]["exceed"][0].__setitem__(1, 0.15), "exceed expects probabilities of 0 to 1 that"),
    "too few": (lambda c: c["a"]["exceed"][0].pop(), "exceed expects 2 probabilities"),
    "cuts": (lambda c: c["a"].update(cuts=[2.0, 1.0]), "cuts expects 2 ascending numbers"),
    "NaN": (lambda c: c["a"].update(cuts=[2.0, float("nan")]), "finite numbers"),
    "coverage": (lambda c: c["a"].update(coverage=1.5), "a coverage between 0 and 1"),
    "no least": (lambda c: c["a"].pop("least"), "calibration.a expects coverage, least"),
    "unknown": (lambda c: c["a"].update(knot=1), "no field named 'knot'"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_wrong_map_is_named(plain, fault):
    maps = {"a": copy.deepcopy(OWN)}
    change, message = FAULTS[fault]
    change(maps)
    with pytest.raises(JudgeConfigError, match=message):
        InspectorConfig.from_pretrained(calibrated(plain, **maps))


def test_a_calibrated_judge_says_its_format(plain):
    path = calibrated(plain, a=OWN) / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"format_version": 1}))
    with pytest.raises(JudgeConfigError, match="format_version expects 5, but got 1"):
        InspectorConfig.from_pretrained(plain)
