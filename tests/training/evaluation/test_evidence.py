"""Evidence put together from predictions whose figures are known: aspects, means, gains, sets and generators."""

import inspect
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from inspector_training.evaluation import cost
from inspector_training.evaluation.cost import Cost, LayerShape, head_size, mean_tokens, operations, seconds_each
from inspector_training.evaluation.crossval import CrossValidation
from inspector_training.evaluation.evidence import (
    Outcome,
    by_generator,
    comparison_evidence,
    judge_evidence,
    mean_auroc,
    one_repeat,
    protocol,
    reliability,
    set_evidence,
)
from inspector_training.evaluation.fitted_on import fitted_on
from inspector_training.evaluation.left_out import folds_of_rival, left_out_slots
from inspector_training.evaluation.metrics import UNSET, Predictions, resamples, shown
from inspector_training.evaluation.out_of_fold import out_of_fold_rows
from inspector_training.evaluation.unseen import unseen_evidence, unseen_lines
from inspector_training.evaluation.verdict import verdict
from inspector_training.probing.table import Labels
from inspector_training.rows.records import LabelledPair
from sklearn.metrics import roc_auc_score
from support.models import tiny_config

from inspector_pipeline.features import Feature

N = 24


def pairs_of(auxiliary=1):
    """Two aspects that count and one that does not, of as many questions; the last rows are auxiliary."""
    found = []
    for i in range(N):
        scores = {"logic": 5 if i % 2 else 2, "correctness": i % 2}
        scores |= {"style": 4 if i % 4 == 1 else 3} if i < 12 else {}
        found.append(LabelledPair(f"q{i}", f"Question {i}?", f"x{i}" * (i + 1), scores, generator="ab"[i // 12]))
    return [*found, *(LabelledPair(f"x{i}", "?", "bad", {"logic": 1}, auxiliary=True) for i in range(auxiliary))]


@pytest.fixture(scope="module")
def labels():
    return Labels.of(pairs_of())


def predicted(labels, right, repeats=1, probability=True):
    """Predictions that rank the rows where `right` says so as they should be, and the others the other way round."""
    n = len(labels.score)
    sign = np.where(right, 1.0, -1.0) * np.where(labels.positive, 1, -1)
    found = Predictions.blank(repeats, n, labels.score)
    for repeat in range(repeats):
        p = 0.5 + 0.4 * sign if probability else np.full(n, np.nan)
        found.put(repeat, np.arange(n), Predictions(3 + sign, sign, p, labels.score))
    return found


def samples_of(labels):
    return resamples(labels.question[~labels.auxiliary], 40, 0)


def test_a_judges_evidence_is_by_aspect_and_its_mean_of_those_that_count(labels):
    right = labels.aspect != labels.names.index("style")
    ours, surface = predicted(labels, right), predicted(labels, np.zeros(len(right), bool))
    elsewhere = Predictions.blank(1, len(right), labels.score)  # predicts rows of logic alone
    own = np.flatnonzero(labels.aspect == labels.names.index("logic"))
    elsewhere.put(0, own, Predictions(*(column[0, own] for column in ours)))
    found = judge_evidence({"judge": ours, "surface": surface, "some": elsewhere}, labels, samples_of(labels))
    aspects = found["aspects"]
    assert list(aspects) == ["logic", "correctness", "style"]
    assert {name: (one["n"], one["counts_in_total"], one["auroc"]["value"]) for name, one in aspects.items()} == {
        "logic": (N, True, 1.0),
        "correctness": (N, False, 1.0),
        "style": (12, True, 0.0),
    }
    assert aspects["logic"]["class_counts"] == {"2": 12, "5": 12} and aspects["style"]["label_prior"] == 0.25
    assert (
        aspects["logic"]["surface"]["auroc"]["value"] == 0
        and aspects["logic"]["gain_over_surface"]["auroc"]["value"] == 1
    )
    assert "some" in aspects["logic"] and "some" not in aspects["style"]
    assert found["mean"]["auroc"]["value"] == 0.5 and found["mean"]["gain_over_surface"]["auroc"]["value"] == 0.5
    assert aspects["logic"]["confusion"] == {"classes": [2, 5], "matrix": [[12, 0], [0, 12]]}
    assert aspects["logic"]["brier"]["value"] == round(0.1**2, 4) and "ece" not in aspects["logic"]
    bins = aspects["logic"]["reliability"]
    assert [(b["predicted"], b["observed"], b["n"]) for b in bins] == [(0.5, 0.5, 24)]
    without = judge_evidence({"judge": predicted(labels, right, probability=False)}, labels, samples_of(labels))
    assert not {"reliability", "brier", "ece"} & set(without["aspects"]["logic"]) and "brier" not in without["mean"]
    alone = labels.take(np.flatnonzero(labels.aspect == labels.names.index("correctness")))
    alone_found = judge_evidence({"judge": predicted(alone, np.ones(N, bool))}, alone, samples_of(alone))
    assert list(alone_found["aspects"]) == ["correctness"] and alone_found["mean"] == {}


def test_a_generators_figure_is_of_its_own_rows_with_both_kinds(labels):
    generators = np.array([pairs_of()[i].generator or "" for i in labels.pair])
    right = generators == "a"
    found = by_generator(predicted(labels, right), labels, generators, samples_of(labels))
    assert {
        aspect: {name: (one["n"], one["auroc"]["value"]) for name, one in own.items()} for aspect, own in found.items()
    } == {
        "logic": {"a": (12, 1.0), "b": (12, 0.0)},
        "correctness": {"a": (12, 1.0), "b": (12, 0.0)},
    }, "style has rows of one generator alone"
    assert by_generator(predicted(labels, right), labels, np.full(len(right), ""), samples_of(labels)) == {}


def test_a_set_is_measured_by_the_first_repeat_on_what_is_predicted(labels):
    right = np.ones(len(labels.score), bool)
    ours = predicted(labels, right, repeats=2)
    ours.good[1] *= -1
    ours.score[0, (labels.aspect == 0) & (np.arange(len(right)) % 3 == 0)] = UNSET
    rows = np.isin(labels.question, [f"q{i}" for i in range(8)])
    found = set_evidence({"judge": ours, "other": predicted(labels, ~right)}, labels, rows, 30, 0)
    own = np.flatnonzero(rows & (labels.aspect == 0))
    assert found["logic"]["n"] == (own % 3 != 0).sum() and found["logic"]["auroc"]["value"] == 1
    assert found["logic"]["gain_over_other"]["auroc"]["value"] == 1 and list(found) == ["logic", "correctness", "style"]
    seen = replace(labels, score=np.where((labels.aspect == 0) & (labels.score == 2), 3, labels.score))
    classes = set_evidence({"judge": predicted(labels, right)}, seen, rows, 30, 0)["logic"]["classes"]
    assert classes == [2, 3, 5] and {type(one) for one in classes} == {int}, "a level that no fit has seen"
    one_kind = np.isin(labels.question, ["q0", "q2"])
    assert set_evidence({"judge": ours}, labels, one_kind, 30, 0) == {}


def test_a_comparison_is_of_the_rows_that_both_predict(labels):
    right = np.ones(len(labels.score), bool)
    half = predicted(labels, right)
    half.score[0, labels.aspect == labels.names.index("style")] = UNSET
    told = {"description": "it"}
    outcomes = {
        "judge": Outcome(predicted(labels, right), told, Cost(0.5, 2.0)),
        "half": Outcome(half, told, Cost(None, 0.0)),
        "worse": Outcome(predicted(labels, ~right), told, Cost()),
    }
    found = comparison_evidence(outcomes, labels, "judge", samples_of(labels))
    assert found["judge"] == "judge" and list(found["methods"]) == ["judge", "half", "worse"]
    judge, fewer, worse = found["methods"].values()
    total = 2 * N + 12
    assert (judge["rows"], judge["rows_of"], fewer["rows"]) == (total, total, total - 12)
    assert (judge["seconds_per_pair"], judge["flops_per_pair"], judge["description"]) == (0.5, 2.0, "it")
    assert judge["gain_of_judge"] == judge["gain_by_aspect"] == {}
    assert set(judge["aspects"]) == {"logic", "correctness", "style"} and "style" not in fewer["aspects"]
    assert set(judge["aspects"]["logic"]) == {"auroc", "spearman", "macro_f1", "qwk", "mae"}
    by_aspect = worse["gain_by_aspect"]
    assert by_aspect["logic"]["auroc"] == {"value": 1.0, "low": 1.0, "high": 1.0, "p": round(2 / 41, 4)}
    assert by_aspect["style"]["auroc"]["value"] == 1 and worse["gain_of_judge"]["mae"]["value"] > 0
    nobody = Outcome(Predictions.blank(1, len(right), labels.score), told, Cost())
    empty = comparison_evidence({"judge": outcomes["judge"], "nobody": nobody}, labels, "judge", samples_of(labels))
    assert empty["methods"]["nobody"]["rows"] == 0 and empty["methods"]["nobody"]["mean"] == {}


def test_a_mean_auroc_is_of_aspects_that_count_and_are_predicted(labels):
    right = labels.aspect != labels.names.index("style")
    found = mean_auroc(predicted(labels, right), labels, samples_of(labels))
    assert found["value"] == 0.5
    some = predicted(labels, right)
    some.score[0, ~right] = UNSET
    assert mean_auroc(some, labels, samples_of(labels))["value"] == 1.0
    uncounted = replace(labels, counted=(False, False, False))
    assert mean_auroc(some, uncounted, samples_of(labels)) is None


def test_the_protocol_is_told_in_words():
    assert one_repeat(5, 3) == "5 folds by question id over all aspects, stratified by label, seed 3; 1 repeat"
    found = protocol("so", ["depth"], ["mae"], 100)
    assert found["metrics"] == {"mae": "mean distance of the expected score from the label"}
    assert found["intervals"] == "95 %, percentile, 100 resamples of questions"
    assert shown({"value": 0.12345, "low": -1, "high": 2}) == "0.123 (-1.000 to 2.000)"
    for name in ("value", "low", "high"):
        assert shown({"value": 1.0, "low": 0.0, "high": 0.0, name: None}) == "not defined"


@pytest.mark.parametrize(("n", "bins"), [(1, 1), (39, 1), (40, 2), (199, 9), (200, 10), (400, 10)])
def test_bins_hold_twenty_rows_or_more(n, bins):
    rng = np.random.default_rng(0)
    assert len(reliability(rng.random(n) < 0.5, rng.random((1, n)))) == bins


def test_what_each_fold_said_is_told_pair_by_pair():
    pairs = pairs_of()
    labels = Labels.of(pairs)
    ours, unseen = predicted(labels, np.ones(len(labels.score), bool)), Predictions.blank(1, len(labels.score))
    place = {(labels.names[a], int(p)): i for i, (a, p) in enumerate(zip(labels.aspect, labels.pair, strict=True))}
    for key in (("logic", 3), ("correctness", 3), ("logic", 4), ("style", 4)):
        at = place[key]
        unseen.put(0, np.array([at]), Predictions(np.array([1.23456789]), np.array([np.nan]), np.array([0.5]), 2))
    ours.score[0, place["logic", 0]] = UNSET
    source = np.where(labels.pair == N, 1, 0)
    for own, n in ((source, N + 1), (np.zeros_like(source), N)):
        rows = out_of_fold_rows(pairs, labels, own, ["others"], ours, unseen)
        assert len(rows) == n
    rows = out_of_fold_rows(pairs, labels, source, ["others"], ours, unseen)
    assert rows[0] == {
        "id": "q0",
        "question": "Question 0?",
        "prediction": "x0",
        "generator": "a",
        "set": "fitted",
        "generator_unseen": False,
        "correctness": 0,
        "expected_correctness": 2.0,
        "good_correctness": -1.0,
        "style": 3,
        "expected_style": 2.0,
        "good_style": -1.0,
    }
    assert [type(rows[0][name]) for name in ("correctness", "expected_style")] == [int, float], "as JSON has them"
    assert (rows[3]["expected_logic"], rows[3]["good_logic"], rows[3]["generator_unseen"]) == (1.234568, None, True)
    assert [row["id"] for row in rows] == [pair.id for pair in pairs] and rows[N]["set"] == "others"
    assert rows[1]["expected_logic"] == 4.0 and rows[1]["good_logic"] == 1.0
    plain = out_of_fold_rows(pairs, labels, source, ["others"], ours, None)
    assert plain[3]["expected_logic"] == 4.0 and plain[3]["generator_unseen"] is False


def test_what_a_fit_was_like_is_told_in_percentiles_and_shares(labels):
    pairs = pairs_of()
    ours = predicted(labels, np.ones(len(labels.score), bool), repeats=2)
    ours.score[0, (labels.aspect == 0) & (labels.pair >= 4)] = UNSET
    found = fitted_on([replace(pair, prediction=f"  {pair.prediction}\n") for pair in pairs], labels, ours)
    lengths = [len(pair.prediction) for pair in pairs[:N]]
    assert found["rows"] == N
    assert found["characters"]["prediction"] == [round(np.percentile(lengths, p)) for p in (5, 25, 50, 75, 95)]
    assert found["levels"]["logic"] == {"2": 0.5, "5": 0.5} and found["levels"]["style"] == {"3": 0.75, "4": 0.25}
    nothing = fitted_on([replace(pair, question="") for pair in pairs], labels, ours)
    assert list(nothing["characters"]) == ["prediction"]


def test_operations_are_counted_by_the_formula():
    assert operations(10, 3, [2.0, 4.0], causal=True) == 2 * 10 * 6 + 2 * 3 * (4 + 16)
    assert operations(10, 3, [2.0], causal=False) == 40 + 4 * 3 * 4

    class Sizes:
        hidden_size, num_attention_heads, num_key_value_heads, intermediate_size = 8, 4, 2, 16

    shape = LayerShape.of(Sizes)
    assert head_size(Sizes) == 2 and shape == LayerShape(8, 4, 2, 2, 16)
    maps = {"q": (8, 8), "k": (8, 4), "v": (8, 4), "o": (8, 8), "gate": (8, 16), "up": (8, 16), "down": (16, 8)}
    assert shape.linears == maps
    weights = sum(a * b for a, b in maps.values())
    assert shape.flops([3], 2) == 2 * 2 * weights * 3 + 2 * 9 * 2 * 8
    plain = LayerShape.of(Sizes, gated=False, causal=False)
    assert "gate" not in plain.linears and plain.flops([3], 1) == 2 * (weights - 128) * 3 + 4 * 9 * 8
    Sizes.head_dim, Sizes.num_key_value_heads = 5, None
    assert head_size(Sizes) == 5 and LayerShape.of(Sizes).kv_heads == 4
    assert Cost() == Cost(None, 0.0, 0) and LayerShape(8, 4, 2, 2, 16) == LayerShape(8, 4, 2, 2, 16, True, True)


def test_a_call_is_timed_once_it_is_warm(monkeypatch):
    class Encoded:
        def __init__(self, n):
            self.input_ids = [0] * n

    assert mean_tokens([Encoded(3), Encoded(6)]) == 4.5
    clock, calls = iter([10.0, 13.0]), []
    monkeypatch.setattr("inspector_training.evaluation.cost.time.perf_counter", lambda: next(clock))
    assert seconds_each(lambda: calls.append(1), 6) == 0.5 and len(calls) == 2


def test_a_pass_is_timed_to_the_deepest_layer_and_each_readings_operations_to_its_own(monkeypatch):
    told = {"passes": 0}

    sizes = [SimpleNamespace(numel=lambda: 3), SimpleNamespace(numel=lambda: 4)]
    model = SimpleNamespace(config=SimpleNamespace(rms_norm_eps=1e-6), parameters=lambda: sizes)
    tokenizer = SimpleNamespace(pad_token_id=None)

    class Encoder:
        def __init__(self, reading, tokenizer, most):
            self.reading, self.most = reading, most

        def __call__(self, question, prediction, turns):
            return SimpleNamespace(input_ids=[0] * (self.most + len(prediction) + self.reading))

    class Reader:
        def __init__(self, *asked, rms_norm_eps, pad_id):
            told["asked"] = (asked[2], rms_norm_eps, pad_id)

        def __call__(self, encoded):
            told["passes"] += len(encoded)
            return {"x": SimpleNamespace(cpu=lambda: told.update(waited=told.get("waited", 0) + 1))}

    monkeypatch.setattr(cost, "backbone_location", lambda *asked: (told.setdefault("place", asked), {}))
    monkeypatch.setattr(cost, "AutoTokenizer", SimpleNamespace(from_pretrained=lambda *_, **__: tokenizer))
    monkeypatch.setattr(cost, "load_backbone", lambda *asked, dtype: told.update(loaded=(*asked, dtype)) or model)
    monkeypatch.setattr(cost, "take_final_norm", lambda model: None)
    monkeypatch.setattr(cost, "norm_eps", lambda config: config.rms_norm_eps)
    monkeypatch.setattr(cost, "PairTokenizer", Encoder)
    monkeypatch.setattr(cost, "FeatureReader", Reader)
    monkeypatch.setattr(cost, "pass_flops", lambda config, tokens, depth: 100 * tokens + depth)
    monkeypatch.setattr(cost.torch.cuda, "is_available", lambda: False)
    features = [Feature("a", 3, "last"), Feature("a", 5, "last"), Feature("b", 2, "last")]
    pairs = [LabelledPair(i, "Q", "x" * i) for i in range(3)]
    backbone = {"id": "tiny", "revision": "r", "dtype": "bfloat16", "max_length": 10}
    check = Feature("a", 0, "wrong_sums")  # for which no pass is run
    found = cost.passes_cost(backbone, {"a": 0, "b": 20}, [*features, check], pairs)
    assert told["waited"] == 2, "until the accelerator is done"
    assert told["passes"] == 6 and told["asked"] == (features, 1e-6, 0), "one to warm up, and one that is timed"
    assert told["place"] == ("tiny", "r", 5) and told["loaded"] == ("tiny", "r", 5, cost.torch.bfloat16)
    assert found.flops_per_pair == (1100 + 5) + (3100 + 2) and found.parameters == 7
    assert 0 <= found.seconds_per_pair < 1


def test_operations_of_a_whole_pass_are_those_of_all_weights_but_the_embeddings():
    config = tiny_config("llama")
    hidden, mlp, heads, layers = (
        config.hidden_size, config.intermediate_size, config.num_attention_heads, config.num_hidden_layers
    )  # fmt: skip
    width = heads * head_size(config)
    keys = config.num_key_value_heads * head_size(config)
    layer = 2 * hidden * width + 2 * hidden * keys + 3 * hidden * mlp + 2 * hidden  # with two norms
    for depth in (None, 1):
        n = depth or layers
        weights = n * layer + hidden  # and the last norm
        for causal, factor in ((True, 2), (False, 4)):
            expected = 2 * weights * 7 + factor * 49 * n * width
            found = cost.pass_flops(config, 7, depth, causal=causal)
            assert found == expected and isinstance(found, float)


def test_a_judges_cost_is_that_of_what_its_config_names(monkeypatch):
    aspects = [SimpleNamespace(features=["f", "g"]), SimpleNamespace(features=["h"])]
    config = SimpleNamespace(backbone_id="b", backbone_revision="r", max_length=9, parsed_aspects=aspects)
    config.dtype, config.parsed_readings = cost.torch.bfloat16, {"chat": 1}
    monkeypatch.setattr(cost.InspectorConfig, "from_pretrained", lambda folder: folder == "x" and config)
    monkeypatch.setattr(cost, "passes_cost", lambda *given: given)
    backbone = {"id": "b", "revision": "r", "max_length": 9, "dtype": "bfloat16"}
    assert cost.judge_cost("x", ["p"]) == (backbone, {"chat": 1}, ["f", "g", "h"], ["p"])


def test_a_pass_is_made_on_an_accelerator_where_there_is_one(monkeypatch):
    moved = []

    class Model:
        config = SimpleNamespace(rms_norm_eps=1e-6)

        def to(self, device):
            moved.append(device)
            raise InterruptedError

    monkeypatch.setattr(cost, "backbone_location", lambda *_: ("x", {}))
    monkeypatch.setattr(cost, "AutoTokenizer", SimpleNamespace(from_pretrained=lambda *_, **__: None))
    monkeypatch.setattr(cost, "load_backbone", lambda *_, dtype: Model())
    monkeypatch.setattr(cost.torch.cuda, "is_available", lambda: True)
    backbone = {"id": "tiny", "revision": "r", "dtype": "float32", "max_length": 10}
    with pytest.raises(InterruptedError):
        cost.passes_cost(backbone, {"a": 0}, [Feature("a", 3, "last")], [])
    assert moved == ["cuda"]
    usual = {name: one.default for name, one in inspect.signature(cost.pass_flops).parameters.items()}
    assert usual["depth"] is None and usual["causal"] is True


def figure(value, low=None, high=None):
    return {"value": value, "low": low, "high": high}


def test_a_verdict_says_what_is_better_what_would_do_and_where_it_fails():
    entry = {
        "auroc": figure(0.7, 0.55, 0.8),
        "gain_over_length": {"auroc": figure(0.1, 0.01, 0.2)},
        "gain_over_surface": {"auroc": figure(0.05, -0.05, 0.1)},
        "gain_over_tfidf": {"auroc": figure(-0.1, -0.2, -0.01)},
        "by_generator": {"a": {"auroc": figure(0.9)}, "b": {"auroc": 0.25}, "c": {"auroc": None}},
    }
    unused = {"labels": {"aspects": {"logic": {"unused": {"blank": 2, "split": 3}}}}}
    assert verdict({"aspects": {"logic": entry}, **unused}) == [
        "logic: it ranks a good response above another in 70.0 % (55.0 to 80.0) of such pairs.",
        "logic: it is better than length alone.",
        "logic: surface features (lengths, counts, word overlap) would cost less and cannot be told apart from it on "
        "so few rows: the judge's gain is +0.050 (-0.050 to +0.100).",
        "logic: TF-IDF with logistic regression would do better and cost less: the judge's gain is -0.100 (-0.200 to "
        "-0.010).",
        "logic: by generator it reaches 0.250 (b, the worst of 2) to 0.900 (a).",
        "logic: 5 labels were left out (blank, split), and these figures know nothing of them.",
    ]
    weak = {"preference": {"agreement": figure(0.5, 0.5, 0.6), "by_generator": {"a": {"agreement": 0.5}}}}
    silent = {"auroc": figure(None)}
    nought = {"auroc": figure(0.6, 0.51, 0.7), "gain_over_length": {"auroc": figure(0.0, 0.0, 0.0)}}
    undefined = {"auroc": figure(0.6, 0.51, 0.7), "gain_over_length": {"auroc": figure(None)}}
    assert verdict({"aspects": {"a": weak, "b": silent, "c": nought, "d": undefined}}) == [
        "a: it agrees with the majority of raters in 50.0 % (50.0 to 60.0) of such pairs, which is not shown to beat "
        "chance (50 %).",
        "b: it was not evaluated, since its labels are all good or all not.",
        "c: it ranks a good response above another in 60.0 % (51.0 to 70.0) of such pairs.",
        "c: length alone would do as well and cost less: the judge's gain is +0.000 (+0.000 to +0.000).",
        "d: it ranks a good response above another in 60.0 % (51.0 to 70.0) of such pairs.",
        "d: it could not be compared with length alone, since it has too few labels of one kind.",
    ]


def test_unseen_generators_by_hand():
    """Of 6 questions each is answered by a and b (right and wrong), c (all right) and one of no name."""
    pairs = [
        LabelledPair(f"q{i}", f"Q{i}?", name, {"a": label}, generator=name or None, form=form, auxiliary=name == "d")
        for i in range(6)
        for name, label, form in (
            ("a", i % 2, "long"), ("b", 1 - i % 2, "short"), ("c", 1, None), ("", i % 2, "short"), ("d", 0, "long")
        )
    ]  # fmt: skip
    labels = Labels.of(pairs, ())
    generators = np.array([pair.generator or "" for pair in pairs])
    named = np.isin(generators, ["a", "b", "c"])

    def said(value, kept=named):
        found = Predictions.blank(2, len(pairs), labels.score)
        for repeat, sign in enumerate((1, -1)):
            rows = np.flatnonzero(kept)
            own = sign * value[rows]
            found.put(repeat, rows, Predictions(own, own, own, labels.score[rows]))
        return found

    right, turned = labels.score * 1.0, np.where(generators == "b", -1, 1) * labels.score
    some = said(right, named & (labels.question != "q0"))
    nobody = Predictions.blank(2, len(pairs), labels.score)
    predictions = {"judge": said(right), "words": said(turned), "some": some, "nobody": nobody}
    found = unseen_evidence(predictions, labels, generators, pairs, 30, 0)["a"]
    assert (found["n_rows"], found["n_questions"]) == (15, 5), "rows that one leaves out are left out"
    assert set(found["by_generator"]) == {"a", "b"} and set(found["by_form"]) == {"long", "short"}
    assert found["pooled"]["auroc"]["value"] == found["mean"]["auroc"]["value"] == 1.0
    own = found["by_generator"]["b"]
    assert (own["words"]["auroc"]["value"], own["gain_over_words"]["auroc"]["value"]) == (0.0, 1.0)
    assert found["mean"]["words"]["auroc"]["value"] == 0.5 and found["by_form"]["short"]["words"]["auroc"]["value"] == 0
    assert found["pooled"]["some"]["auroc"]["value"] == 1.0 and "nobody" not in found["pooled"]
    kept = labels.question != "q0"
    truth, value = labels.score[kept & named], turned[kept & named]
    assert found["pooled"]["words"]["auroc"]["value"] == round(roc_auc_score(truth, value), 4)
    lines = list(unseen_lines(found))
    assert lines[0] == (
        "mean of generators AUROC 1.000 (1.000 to 1.000); words 0.500, gain 0.500 (0.500 to 0.500); some 1.000, gain "
        "0.000 (0.000 to 0.000)"
    )
    assert [line.partition(" AUROC")[0] for line in lines] == ["mean of generators", "all rows", "long", "short"]
    alone = np.where(generators == "c", "c", "")
    assert unseen_evidence({"judge": said(right)}, labels, alone, pairs, 9, 0) == {}, "all of its answers are good"
    mixed = np.where(named, generators + labels.score.astype(str), "")  # each name has one kind
    found = unseen_evidence({"judge": said(right)}, labels, mixed, pairs, 9, 0)["a"]
    assert found["mean"] == {} and found["by_generator"] == {} and found["pooled"]["auroc"]["value"] == 1.0
    assert len(list(unseen_lines(found))) == 3
    assert unseen_evidence({"judge": nobody}, labels, generators, pairs, 9, 0) == {}


def test_a_rival_leaves_out_the_slots_that_it_reads_nothing_of():
    readings = {
        name: SimpleNamespace(slots=slots)
        for name, slots in (("all", ["context", "reference"]), ("some", ["context"]), ("none", []))
    }
    assert left_out_slots(readings, ["all", "some", "gone"], ["none"]) == ["context", "reference"]
    assert left_out_slots(readings, ["all"], ["none", "some"]) == ["reference"]
    assert left_out_slots(readings, ["all"], []) == [] and left_out_slots(readings, ["none"], ["all"]) == []
    labels = Labels.of(pairs_of())
    folds = CrossValidation(labels, 3, 0).divided
    folds[0] = replace(folds[0], others=labels)
    whole, counting = folds_of_rival(folds, ["context"]), folds_of_rival(folds, [])
    assert all(fold.others is None for fold in [*whole, *counting])
    assert [len(fold.train.score) for fold in whole] == [len(fold.train.score) for fold in folds]
    assert labels.names.index("correctness") not in {
        a for fold in counting for a in [*fold.train.aspect, *fold.test.aspect]
    }
