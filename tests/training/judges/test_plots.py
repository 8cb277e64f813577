"""Plots of a judge's evidence: which files are drawn, of what size, from what, and always the same."""

import copy
import json

import numpy as np
import pytest
from inspector_training.judges.plots import PLOTS, draw, layer_curve, learning_curve
from inspector_training.runs.command import main
from inspector_training.stages.plots import Config as PlotsConfig
from inspector_training.stages.plots import run as plots
from matplotlib import rc_context
from PIL import Image

from inspector_pipeline import DataFileError


def made_up_interval(value):
    return {"value": value, "low": value - 0.05, "high": value + 0.05}


def made_up_aspect(seed, classes):
    rng = np.random.default_rng(seed)
    bins = [{"predicted": i / 5, "observed": float(rng.random()), "n": 20 + i} for i in range(5)]
    matrix = rng.integers(0, 20, (len(classes), len(classes))).tolist()
    return {"reliability": bins, "confusion": {"classes": classes, "matrix": matrix}}


RESULTS = {
    "judge": {"depth": 6, "curve": {"10": 0.71, "2": 0.6, "6": 0.7}, "curve_band": {"2": [0.5, 0.7], "6": [0.6, 0.8]}},
    "learning_curve": [
        {"n": 400, "auroc": made_up_interval(0.7), "surface": made_up_interval(0.6)},
        {"n": 100, "auroc": made_up_interval(0.6), "surface": made_up_interval(0.55)},
    ],
    "aspects": {
        name: made_up_aspect(i, [1, 2, 3, 4, 5] if i else [3, 4, 5])
        for i, name in enumerate(("fluency", "factuality", "logicality", "informativeness", "semantic_consistency"))
    },
}


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    folder = tmp_path_factory.mktemp("drawn") / "plots"
    return draw(RESULTS, folder)


def test_every_plot_is_a_small_png_as_wide_as_a_card(drawn):
    assert [path.stem for path in drawn] == list(PLOTS)
    assert sorted(drawn) == sorted(drawn[0].parent.iterdir())  # nothing else is left behind
    for path in drawn:
        with Image.open(path) as image:
            assert image.format == "PNG" and image.width == 900 and 400 <= image.height <= 800
            assert len(image.convert("RGB").getcolors(10_000)) > 20  # not blank
        assert path.stat().st_size < 60_000


def test_the_same_results_give_the_same_bytes_whatever_the_users_style(drawn, tmp_path):
    with rc_context({"font.size": 20, "lines.linewidth": 9, "axes.facecolor": "red"}):
        again = draw(json.loads(json.dumps(RESULTS)), tmp_path)
    assert [path.read_bytes() for path in again] == [path.read_bytes() for path in drawn]


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("layer_curve", lambda r: r["judge"]["curve"].update({"6": 0.65})),
        ("layer_curve", lambda r: r["judge"].update(depth=2)),
        ("layer_curve", lambda r: r["judge"].pop("curve_band")),
        ("learning_curve", lambda r: r["learning_curve"][0].pop("surface")),
        ("learning_curve", lambda r: r["learning_curve"][1]["auroc"].update(low=0.2)),
        ("reliability", lambda r: r["aspects"]["fluency"]["reliability"][2].update(observed=0.9)),
        ("confusion", lambda r: r["aspects"]["fluency"]["confusion"]["matrix"][0].__setitem__(1, 40)),
    ],
)
def test_a_plot_shows_its_part_of_the_results_and_no_other(drawn, tmp_path, name, change):
    results = copy.deepcopy(RESULTS)
    change(results)
    changed = {part: results[part] for part in RESULTS if results[part] != RESULTS[part]}
    before = {path.stem: path.read_bytes() for path in drawn}
    after = {path.stem: path.read_bytes() for path in draw(changed, tmp_path)}
    assert {stem for stem in after if before[stem] != after[stem]} == {name}


def test_curves_run_by_depth_and_by_number_of_labels():
    axes = layer_curve(RESULTS).axes[0]
    line = axes.get_lines()[0]
    assert line.get_xdata().tolist() == [2, 6, 10] and line.get_ydata().tolist() == [0.6, 0.7, 0.71]
    assert "chosen depth, 6" in [text.get_text() for text in axes.get_legend().get_texts()]
    line = learning_curve(RESULTS).axes[0].get_lines()[0]
    assert line.get_xdata().tolist() == [100, 400] and line.get_ydata().tolist() == [0.6, 0.7]


def test_axes_are_labelled():
    for name, plot in PLOTS.items():
        figure = plot(RESULTS)
        labels = [figure.get_supxlabel(), figure.get_supylabel()]
        if name.endswith("curve"):
            labels = [figure.axes[0].get_xlabel(), figure.axes[0].get_ylabel()]
        assert all(labels), name
        assert all(axes.get_title() for axes in figure.axes if axes.get_visible() and axes.get_label() != "<colorbar>")


def test_undefined_values_are_not_drawn(tmp_path):
    results = copy.deepcopy(RESULTS)
    results["learning_curve"][0]["surface"] = {"value": None, "low": None, "high": None, "left_out": 9}
    assert len(draw({"learning_curve": results["learning_curve"]}, tmp_path)) == 1
    surface = learning_curve(results).axes[0].get_lines()[1]
    assert np.isnan(surface.get_ydata()).tolist() == [False, True]


@pytest.mark.parametrize(
    ("results", "left"),
    [
        ({}, []),
        ({"judge": {"depth": 4}, "learning_curve": [], "aspects": {"fluency": {"reliability": []}}}, []),
        ({"aspects": {**RESULTS["aspects"], "other": {"n": 3}}}, ["reliability", "confusion"]),
        ({"judge": {"curve": {"2": 0.5}}}, ["layer_curve"]),
    ],
)
def test_plots_without_data_are_left_out_with_a_line_in_the_log(tmp_path, caplog, results, left):
    caplog.set_level("INFO")
    assert [path.stem for path in draw(results, tmp_path)] == left
    for name in PLOTS:
        assert (f"{name}.png is left out" in caplog.text) is (name not in left)


def test_the_command_draws_what_a_results_file_holds(tmp_path, caplog):
    caplog.set_level("INFO")
    (tmp_path / "results.json").write_text(json.dumps({"learning_curve": RESULTS["learning_curve"]}))
    main(["plots", "--results", str(tmp_path / "results.json"), "--output", str(tmp_path / "out" / "plots")])
    assert [path.name for path in (tmp_path / "out" / "plots").iterdir()] == ["learning_curve.png"]
    assert "Drew " in caplog.text


@pytest.mark.parametrize("content", ["[1]", '{"learning_curve": [{"n": 3, "auroc": 0.5}]}', "not json"])
def test_other_files_are_refused(tmp_path, content):
    (tmp_path / "results.json").write_text(content)
    with pytest.raises(DataFileError, match=r"results\.json"):
        plots(PlotsConfig(str(tmp_path / "results.json"), str(tmp_path / "plots")))
