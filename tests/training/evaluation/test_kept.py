"""What a cross-validation and curves keep and take again, by a method that predicts what it was fitted on."""

import json
from dataclasses import asdict, replace
from types import SimpleNamespace

import numpy as np
import pytest
from inspector_training.evaluation import crossval, curves, kept_classifier
from inspector_training.evaluation.adapters import AdapterConfig
from inspector_training.evaluation.cost import Cost
from inspector_training.evaluation.crossval import Candidate, CrossValidation, KeptResults, read_predictions
from inspector_training.evaluation.curves import Drawn, Task, methods_of
from inspector_training.evaluation.methods.base import calibrated, nearest
from inspector_training.evaluation.metrics import UNSET, Predictions
from inspector_training.evaluation.procedure import Procedure
from inspector_training.probing.calibration import Calibration, Rounding
from inspector_training.probing.settings import SearchConfig
from inspector_training.probing.table import Labels, TooFewLabelsError
from inspector_training.rows.records import LabelledPair
from inspector_training.runs.manifest import Manifest
from inspector_training.score_tokens.weights import TuningConfig
from support.made_up import make_features, make_pairs

from inspector_pipeline.errors import DataFileError


class Echo:
    """Predicts the number of training rows, and of the aspects' rows all but those of the last one."""

    name, description, budget = "echo", "an echo", "nothing"

    def __init__(self, n_folds=None, least=0):
        self.n_folds, self.least, self.fitted = n_folds, least, []

    def fit(self, fold):
        self.fitted.append(fold)
        if len(fold.train.score) < self.least:
            raise TooFewLabelsError("few")
        n = float(len(fold.train.score))

        def predict(asked):
            rows = asked.row[asked.aspect < 2]
            yield (
                rows,
                Predictions(np.full(len(rows), n), rows * 1.0, np.full(len(rows), np.nan), np.full(len(rows), 3)),
            )

        return predict

    def cost(self, notes):
        return Cost(0.5, notes["flops"])

    def notes(self):
        return {"flops": 7.0}


@pytest.fixture(scope="module")
def labels():
    return Labels.of(make_pairs(30, auxiliary=4))


def test_folds_predict_what_they_hold_out_and_are_kept(labels, tmp_path, caplog):
    validation = CrossValidation(labels, 3, 1)
    rows = tmp_path / "rows.jsonl"
    rows.write_text("{}\n")
    built = []

    def build():
        built.append(Echo(n_folds=2))
        return built[-1]

    kept = KeptResults(tmp_path / "methods", validation, str(rows), ("correctness",))
    candidate = Candidate("echo", {"a": 1}, (), build)
    (outcome,) = kept.outcomes([candidate], 3).values()
    found = outcome.predictions
    for fold in validation.divided:
        own = fold.test.row[fold.test.aspect < 2]
        expected = len(fold.train.score) if fold.number < 2 else np.nan
        np.testing.assert_array_equal(found.expected[0, own], expected)
        assert (found.score[0, fold.test.row[fold.test.aspect == 2]] == UNSET).all()
        assert (found.score[0, own] == (3 if fold.number < 2 else UNSET)).all()
    assert np.isnan(found.good_probability).all() and outcome.cost == Cost(0.5, 7.0)
    told = dict(outcome.told)
    assert told.pop("seconds_of_all_folds") >= 0
    assert told == {"description": "an echo", "budget": "nothing", "notes": {"flops": 7.0}, "folds": 2}
    assert len(built) == 2 and len(built[0].fitted) == 2, "one predicts, another is timed"
    again = kept.outcomes([candidate], 3)["echo"]
    assert len(built) == 2 and again.told == outcome.told and again.cost == outcome.cost
    np.testing.assert_array_equal(again.predictions.expected, found.expected)
    kept.outcomes([candidate], 4)
    assert len(built) == 3, "only timed"
    kept.outcomes([candidate._replace(settings={"a": 2})], 4)
    assert len(built[3].fitted) == 2, "predicted again"
    points = kept.curve(candidate, outcome, (0.0, 0.5), 20)
    assert [point["share"] for point in points] == [0.0, 0.5, 1.0]
    sizes = [np.mean([(~fold.train.auxiliary).sum() for fold in validation.divided[:2]])]
    assert points[-1]["n"] == round(sizes[0]) and points[0]["n"] == 0 and 0 < points[1]["n"] < points[2]["n"]
    n = len(built)
    assert kept.curve(candidate, outcome, (0.0, 0.5), 20) == points and len(built) == n
    kept.curve(candidate, outcome, (0.5,), 20)
    assert len(built) == n + 1
    caplog.set_level("INFO")
    some = list(validation.learning_curve(lambda: Echo(least=10), (0.01, 0.5), validation.resamples(5)))
    assert [point["share"] for point in some] == [0.5]
    assert "echo cannot be fitted on a share of 0.01: few" in caplog.text
    for more in ({"generators": np.full(len(labels.score), "a")}, {"left_out": [["a"]]}):
        plain = CrossValidation(labels, 3, 1, **more).divided
        assert [one.train.row.tolist() for one in plain] == [one.train.row.tolist() for one in validation.divided]
    with pytest.raises(KeyError):
        read_predictions({"rows": [0]}, labels)


def test_what_is_kept_says_what_it_depends_on_and_how_long_it_took(labels, tmp_path, monkeypatch, caplog):
    rows = tmp_path / "rows.jsonl"
    rows.write_text("{}\n")
    clock, bars = iter([10.0, 13.456]), []
    monkeypatch.setattr(crossval.time, "perf_counter", lambda: next(clock))
    bar = SimpleNamespace(tqdm=lambda folds, **options: bars.append((len(folds), options)) or folds)
    monkeypatch.setattr(crossval, "hf_logging", bar)
    monkeypatch.setattr(crossval.torch, "get_num_threads", lambda: 7)
    monkeypatch.setattr(crossval.torch.cuda, "is_available", lambda: False)
    caplog.set_level("INFO")
    kept = KeptResults(tmp_path / "methods", CrossValidation(labels, 3, 1), str(rows), ("correctness",))
    candidate = Candidate("echo", {"a": 1}, (), Echo)
    outcome = kept.outcomes([candidate], 3)["echo"]
    assert outcome.told["seconds_of_all_folds"] == 3.46 and "echo: 3 folds in 3 s." in caplog.text
    assert bars == [(3, {"desc": "echo", "unit": "fold"})]
    folds = {"folds": 3, "seed": 1, "uncounted": ["correctness"]}
    settings = {"method": {"a": 1}, "name": "echo", **folds}
    predicted, timed = (
        Manifest.read(kept.folder / f"echo{end}.json", kind) for end, kind in (("", "compare"), (".cost", "cost"))
    )
    assert predicted.settings == settings and timed.settings == {"timed_pairs": 3, "device": "cpu", "threads": 7}
    assert set(timed.inputs) == {"rows.jsonl", "echo.json"} and set(predicted.inputs) == {"rows.jsonl"}
    kept.curve(candidate, outcome, (0.5,), 20)
    drawn = Manifest.read(kept.folder / "echo.curve.json", "learning_curve")
    assert drawn.settings == {"fold": settings, "shares": [0.5], "bootstraps": 20}
    without = replace(kept, validation=replace(kept.validation, left_out=(("a",),)))
    assert without._settings(candidate) == {**settings, "left_out": (("a",),), "uncounted": ("correctness",)}
    assert all(fold.others is None for fold in kept.validation.divided)


def test_a_procedure_says_which_setting_of_a_comparison_is_another(tmp_path):
    search = SearchConfig(seed=3, uncounted=("a",))
    own = Procedure.combined(search)
    assert (own.method, own.uncounted) == ("combined", ("a",))
    theirs = {"uncounted": ["a"], "method": {"search": json.loads(json.dumps(asdict(search)))}}
    assert own.differs(theirs) is None
    assert own.differs({**theirs, "uncounted": []}) == "the setting uncounted"
    older = {key: value for key, value in theirs["method"]["search"].items() if key != "prior_judge"}
    assert own.differs({**theirs, "method": {"search": older}}) is None
    assert own.differs({**theirs, "method": {"search": {**older, "seed": 4}}}) == "the search setting seed"
    del older["seed"]
    assert own.differs({**theirs, "method": {"search": older}}) == "the search setting seed"
    tuned = Procedure("lager", {"adam": "T(1)"}, (), ())
    assert tuned.differs({"uncounted": [], "method": {"tuning": "{'adam': T(1), 'b': 2}"}}) is None
    assert tuned.differs({"uncounted": [], "method": {"tuning": "{'adam': T(2)}"}}) == "the tuning"
    assert Procedure("lager", {}, (), ()).differs({"uncounted": [], "method": {}}) is None
    folder = tmp_path / "methods"
    folder.mkdir()
    assert own.files(tmp_path) == [folder / "combined.json", folder / "surface.json"]
    (folder / "combined.curve.json").write_text("[]")
    assert own.files(tmp_path)[2:] == [folder / "combined.curve.json"]


class Right(Echo):
    """Ranks every row as its label says, or by the number of its pair."""

    def __init__(self, is_right=True):
        super().__init__()
        self.is_right = is_right

    def fit(self, fold):
        def predict(asked):
            value = (asked.score if self.is_right else asked.pair) * 1.0
            yield asked.row, Predictions(value, value, np.full(len(value), np.nan), asked.score)

        return predict


def test_a_procedures_evidence_is_that_of_a_comparison_of_the_same_inputs(labels, tmp_path):
    rows, other = tmp_path / "rows.jsonl", tmp_path / "other.jsonl"
    rows.write_text("{}\n")
    other.write_text("[]\n")
    labels = labels.that_count()
    labels = replace(labels, row=np.arange(len(labels.score)))
    validation = CrossValidation(labels, 3, 1)
    kept = KeptResults(tmp_path / "methods", validation, str(rows), ("correctness",))
    ours, surface = Candidate("right", {"a": 1}, (), Right), Candidate("surface", {}, (), lambda: Right(False))
    outcome = kept.outcomes([ours, surface], 2)["right"]
    procedure = Procedure("right", {}, ("cuts",), ("correctness",))
    assert procedure.evidence(tmp_path, labels, [rows])["learning_curve"] == []
    kept.curve(ours, outcome, (0.5,), 20)
    found = procedure.evidence(tmp_path, labels, [rows])
    logic, mean = found["aspects"]["logic"], found["mean"]
    assert logic["auroc"]["value"] == 1 == mean["auroc"]["value"] and 0 < logic["surface"]["auroc"]["value"] < 1
    half, whole = found["learning_curve"]
    n = int((~labels.auxiliary).sum())
    assert half["share"] == 0.5 and whole == {"share": 1.0, "n": round(n * 2 / 3), "auroc": mean["auroc"]}
    told = found["protocol"]
    assert told["chosen_inside_each_fold"] == ["cuts"] and told["settings"]["folds"] == 3
    assert told["cross_validation"].startswith("3 folds by question id") and "1000 resamples" in told["intervals"]
    assert set(told["metrics"]) == {name for name in mean if "value" in mean[name]}
    for one, inputs, what in (
        (procedure, [other], "rows, features, score tokens or folds differs"),
        (replace(procedure, uncounted=()), [rows], "the setting uncounted differs"),
    ):
        with pytest.raises(DataFileError, match=f"beside the surface baseline, but {what}"):
            one.evidence(tmp_path, labels, inputs)
    again = replace(kept, validation=CrossValidation(labels, 3, 2))
    again.outcomes([surface], 2)
    with pytest.raises(DataFileError, match="score tokens or folds differs"):
        procedure.evidence(tmp_path, labels, [rows])


def test_a_judge_of_score_tokens_is_named_by_how_it_was_made(tmp_path):
    rows = tmp_path / "rows.jsonl"
    rows.write_text("{}\n")

    def made(layers="all", method="convex", labels=None, validation=None, inputs=()):
        states = {"layers": layers, "decision": "max", "aggregation": "logits"}
        tuning = {**asdict(TuningConfig()), "method": method}
        settings = {"states": states, "tuning": tuning, "labels": labels, "validation": validation}
        Manifest.of("lager", settings, inputs).write(tmp_path)
        return Procedure.lager(tmp_path, rows, ("a",))

    assert made() == Procedure("lager_logits_uniform_max", {}, (), ("a",))
    assert made("last") == Procedure("lager_last_max", {}, (), ("a",))
    assert made(labels="rows.jsonl", inputs=[rows]) == Procedure(
        "lager_logits_convex_max", {}, ("layer weights",), ("a",)
    )
    adam = made(method="adam", labels="rows.jsonl", inputs=[rows])
    assert adam.method == "lager_logits_adam_max" and adam.settings == {"adam": repr(TuningConfig())}
    for wrong in ({"labels": "rows.jsonl"}, {"validation": "x"}, {"validation": "x", "labels": "r", "inputs": [rows]}):
        with pytest.raises(DataFileError, match="but they were tuned on other rows"):
            made(**wrong)


def test_a_curves_draws_are_kept_by_size_and_left_out_where_nothing_can_be_fitted(tmp_path):
    features = make_features(tmp_path / "features", make_pairs(60, aspects=("logic",)))
    task = Task.of("t", features, "logic", n_test=20, n_train=30, seed=1, good=None)
    assert len(task.test) >= 20 and not set(task.test) & set(task.pool)
    assert len(task.test) + len(task.pool) == len(task.labels.score) <= 20 + 2 * 30 + 1
    assert not set(task.labels.question[task.test]) & set(task.labels.question[task.pool])
    assert Task.of("t", features, "logic", n_test=20, n_train=30, seed=1, good=5).labels.positive.sum() < (
        task.labels.positive.sum()
    )
    source = tmp_path / "rows.jsonl"
    source.write_text("{}\n")
    drawn = Drawn(tmp_path / "kept", (5, 10, 30), 2, 3, {"t": [source]}, {"t": {"aspect": "logic"}})
    built = []

    def build():
        built.append(Echo(least=8))
        return built[-1]

    found = drawn.values(task, "echo", build, {"x": 1})
    assert list(found) == [10, 30] and len(built) == 1
    for size, values in found.items():
        assert values.shape == (2, len(task.test))
        np.testing.assert_array_equal(values, np.tile(task.labels.row[task.test] * 1.0, (2, 1)))
        folds = [fold for fold in built[0].fitted if len(fold.train.score) == size]
        assert [fold.repeat for fold in folds] == [0, 1]
    again = drawn.values(task, "echo", build, {"x": 1})
    assert len(built) == 1 and list(again) == [10, 30]
    drawn.values(task, "echo", build, {"x": 2})
    replace(drawn, seed=4).values(task, "echo", build, {"x": 2})
    assert len(built) == 3
    searches = {"judge": SearchConfig(), "other": SearchConfig(seed=1)}
    named = methods_of(task, searches, {"static": "a/b/static"}, 0, tmp_path)
    assert list(named) == ["judge", "other", "length", "surface", "tfidf", "static"]
    assert named["static"][1] == {"embeddings": "static"} and named["judge"][1] == SearchConfig()


def one_row_each(n, **changes):
    """Questions with one label each, half of them good."""
    return [LabelledPair(f"q{i:03}", f"Q{i}?", "x", {"a": 5 - 3 * (i % 2)}, **changes) for i in range(n)]


def test_a_draw_takes_questions_one_after_another_with_their_rows_in_order():
    pairs = [replace(pair, sample=sample) for pair in one_row_each(60) for sample in range(5)]
    labels = Labels.of(pairs, ())
    pool = np.arange(20, 300)
    task = Task("t", None, labels, np.arange(20), pool)
    for draw in (0, 1):
        fold = task.fold(33, draw, 7)
        names = np.random.default_rng([7, draw]).permutation(np.unique(labels.question[pool])).tolist()
        expected = sorted(pool.tolist(), key=lambda row: names.index(labels.question[row]))[:33]
        assert fold.train.row.tolist() == sorted(expected) and fold.test.row.tolist() == list(range(20))
        assert (fold.repeat, fold.number, fold.others) == (draw, 0, None)


def test_a_judge_that_is_worse_than_another_way_is_marked():
    figures = {"value": 0.5, "low": 0.4, "high": 0.6}
    point = {"n": 5, "auroc": {"judge": figures, "words": figures}}
    point["gain_over"] = {"words": {"value": -0.1, "low": -0.2, "high": -0.01}}
    assert curves._cell(point, "words") == "0.500 (0.400 to 0.600) >" and not curves._cell(point, "judge").endswith(">")


class Half(Echo):
    """Ranks no row."""

    def fit(self, fold):
        def predict(asked):
            nothing = np.full(len(asked.row), np.nan)
            yield asked.row, Predictions(nothing, nothing, nothing, asked.score)

        return predict


def test_curves_say_what_they_fit_and_what_they_could_not(tmp_path, caplog):
    caplog.set_level("INFO")
    labels = Labels.of(one_row_each(8), ())
    task = Task("t", None, labels, np.arange(4), np.arange(4, 8))
    source = tmp_path / "rows.jsonl"
    source.write_text("{}\n")
    drawn = Drawn(tmp_path, (1, 4), 1, 3, {"t": [source]}, {"t": {}})
    assert list(drawn.values(task, "echo", lambda: Echo(least=2), {})) == [4]
    half = drawn.values(task, "half", Half, {})
    assert half[4].dtype == np.float64 and np.isnan(half[4]).all()
    assert "t: echo on 1 labels." in caplog.text and "echo cannot be fitted on 1 labels of t: few" in caplog.text


class Moved:
    """A tensor that notes how it was made ready to be written."""

    def __init__(self, *done):
        self.done = done

    def __getattr__(self, name):
        return lambda: Moved(*self.done, name)


def test_weights_are_written_from_the_cpu_whole_and_by_themselves(labels, tmp_path, monkeypatch):
    written, told = {}, []
    monkeypatch.setattr(
        kept_classifier, "save_file", lambda state, path: written.update({path.name: state}) or path.touch()
    )
    saved = SimpleNamespace(save_pretrained=lambda folder: told.append((folder.name, folder.is_dir())))
    body = SimpleNamespace(state_dict=lambda: {"w": Moved()}, config=saved)
    model = SimpleNamespace(body=body, heads=SimpleNamespace(state_dict=lambda: {"h": Moved()}), pooling="mean")
    encoded = [SimpleNamespace(input_ids=[int(i)]) for i in range(int(labels.pair.max()) + 1)]
    keep = kept_classifier.KeptClassifier(tmp_path / "a" / "b", AdapterConfig(), encoded, labels)
    encode = kept_classifier.PairEncoder(saved, 9)
    for _ in range(2):  # what a run that was killed left is written over
        keep.save(model, 4, encode)
    assert written["model.safetensors"]["w"].done == ("cpu", "contiguous", "clone")
    assert written["heads.safetensors"]["h"].done == ("cpu",) and told == [("body", True)] * 4
    described = json.loads((keep.folder / "classifier.json").read_text())
    assert described == {
        "pooling": "mean",
        "classes": dict(zip(labels.names, labels.classes, strict=True)),
        "fitted": sorted(labels.names),
        "reading": None,
        "max_length": 9,
        "steps": 4,
        "adapters": None,
    }
    assert set(Manifest.read(keep.folder, "pair_classifier").outputs) == {*written, "classifier.json"} and keep.is_there


def test_texts_are_embedded_once_and_stand_with_their_pairs(tmp_path, monkeypatch):
    pairs = make_pairs(6, aspects=("logic",))
    features = make_features(tmp_path / "features", pairs)
    asked = []

    def embed(folder, texts):
        asked.append((folder, len(texts)))
        return np.array([[len(text), len(asked)] for text in texts], dtype=np.float32)

    monkeypatch.setattr(curves, "embed", embed)
    labels = Labels.of(pairs[1:])  # the first pair and the last one have no label here
    task = Task("t", features, replace(labels, pair=labels.pair + 1), np.arange(2), np.arange(2, 4))
    (build, settings) = methods_of(task, {}, {"static": "a/static"}, 0, tmp_path / "cache")["static"]
    found, n = build().x, len(pairs)
    assert found.shape == (n, 4) and asked == [("a/static", 2 * (n - 2))]
    for at in range(1, n - 1):
        assert found[at].tolist() == [len(pairs[at].question), 1, len(pairs[at].prediction), 1]
    assert not found[[0, n - 1]].any() and settings == {"embeddings": "static"}
    np.testing.assert_array_equal(build().x, found)
    assert len(asked) == 1, "kept"
    np.save(tmp_path / "cache" / "t" / "static.npy", np.zeros((3, 2), np.float32))
    assert build().x[1, 1] == 2, "those were of other texts"


def test_values_become_predictions_by_calibration_or_by_the_nearest_score():
    calibration = Calibration(1.0, np.array([0.0, 1.0]), np.array([-1.0, 2.0]))
    found = calibrated(calibration, np.array([0.0, 3.0]), [1, 4, 5])
    p = calibration.probabilities(np.array([0.0, 3.0]))
    np.testing.assert_allclose(found.expected, p @ [1, 4, 5])
    np.testing.assert_array_equal(found.good, found.expected)
    np.testing.assert_allclose(found.good_probability, p[:, 1:].sum(axis=1))
    assert found.score.tolist() == [4, 5]
    assert calibrated(Rounding([0, 1]), np.array([0.25]), [0, 1]).good_probability.tolist() == [0.25]
    near = nearest(np.array([0.4, 2.6, 9.0]), np.array([1, 2, 3]))
    assert near.score.tolist() == [1, 3, 3] and near.good.tolist() == [0.4, 2.6, 9.0]
    assert np.isnan(near.good_probability).all()
