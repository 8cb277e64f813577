import copy
import json
import textwrap

import datasets
import pytest
import torch
from support.fresh import run_fresh
from support.models import PAIRS, aspect, feature
from support.results import alike
from torch.utils.data import Dataset, IterableDataset
from transformers import pipeline
from transformers.pipelines.pt_utils import KeyDataset

import inspector_pipeline
from inspector_pipeline import BackboneError, InspectorPipeline, PairError, load_judge, pair_encoder, pipeline_inspector
from inspector_pipeline.batches import WINDOW_ROWS


class Rows(Dataset):
    def __init__(self, rows):
        self.rows = rows

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, i):
        return self.rows[i]


class Stream(IterableDataset):
    def __iter__(self):
        return iter(copy.deepcopy(PAIRS))


def close(a, b):
    return a["scores"] == b["scores"] and a["expected"] == pytest.approx(b["expected"], abs=1e-4)


def test_one_pair_gives_one_result_of_the_documented_shape(judge, pairs):
    result = judge(pairs[0])
    flags = ["truncated", "unfamiliar", "unfamiliar_reason", "seen"]
    assert list(result) == ["scores", "total_score", "expected", "expected_total", "probabilities", *flags]
    assert list(result["scores"]) == list(result["expected"]) == ["correctness", "fluency", "extra"]
    for name, classes in (("correctness", [1, 2, 3, 4, 5]), ("fluency", [3, 4, 5]), ("extra", [0, 1])):
        assert type(result["scores"][name]) is int and result["scores"][name] in classes
        assert list(result["probabilities"][name]) == classes
        assert sum(result["probabilities"][name].values()) == pytest.approx(1, abs=1e-5)
        mean = sum(score * p for score, p in result["probabilities"][name].items())
        assert result["expected"][name] == pytest.approx(mean, abs=1e-5)
    assert result["total_score"] == result["scores"]["correctness"] + result["scores"]["fluency"]
    assert result["expected_total"] == result["expected"]["correctness"] + result["expected"]["fluency"]
    assert result["truncated"] is False
    assert json.loads(json.dumps(result))["scores"] == result["scores"]


INPUTS = {
    "list": lambda pairs: pairs,
    "generator": lambda pairs: (pair for pair in pairs),
    "iterator": iter,
    "torch dataset": Rows,
    "key dataset": lambda pairs: KeyDataset(Rows([{"pair": pair} for pair in pairs]), "pair"),
    "iterable dataset": lambda pairs: Stream(),
    "datasets": datasets.Dataset.from_list,
    "streaming datasets": lambda pairs: datasets.Dataset.from_list(pairs).to_iterable_dataset(),
    "extra keys": lambda pairs: [{**pair, "role": "user", "content": "x", "id": 3} for pair in pairs],
}


@pytest.mark.parametrize("kind", INPUTS)
@pytest.mark.parametrize("batch_size", [None, 1, 2])
def test_every_kind_of_input_gives_the_same_results_in_order(judge, pairs, kind, batch_size):
    expected = [judge(pair) for pair in pairs]
    results = judge(INPUTS[kind](pairs), batch_size=batch_size)
    assert isinstance(results, list) == (kind in ("list", "extra keys"))
    if kind in ("torch dataset", "key dataset", "datasets"):
        assert len(results) == len(pairs)
    results = list(results)
    assert len(results) == len(expected) and all(map(close, results, expected))


def test_an_empty_list_gives_an_empty_list(judge):
    assert judge([]) == [] and list(judge(iter([]))) == []


def test_a_stream_is_not_read_further_than_a_batch(judge, pairs):
    read = []

    def stream():
        for i in range(10):
            read.append(i)
            yield pairs[i % 3]

    results = judge(stream(), batch_size=2)
    next(results)
    assert read == [0, 1]


def test_more_rows_than_a_window_keep_their_order(judge):
    many = [{"question": "What?", "prediction": "x" * (1 + i % 7)} for i in range(WINDOW_ROWS + 5)]
    expected = {n: judge(many[n - 1]) for n in range(1, 8)}
    assert all(close(result, expected[1 + i % 7]) for i, result in enumerate(judge(many)))


def test_worker_processes_give_the_same(judge, pairs):
    expected = judge(pairs)
    assert judge(pairs, num_workers=1) == expected
    assert list(judge(Rows(pairs), num_workers=2)) == expected
    assert list(judge((pair for pair in pairs), num_workers=2)) == expected


BAD = {
    "missing": ({"question": "q"}, "'prediction' is missing; got \\['question'\\]"),
    "number": ({"question": "q", "prediction": 3}, "a string for 'prediction', but got int: 3"),
    "none": ({"question": None, "prediction": "p"}, "a string for 'question', but got NoneType"),
    "empty": ({"question": "q", "prediction": ""}, "text for 'prediction', but got a blank string"),
    "blank": ({"question": " \n", "prediction": "p"}, "text for 'question', but got a blank string"),
    "surrogate": ({"question": "q", "prediction": "a\ud800"}, "lone surrogate at 1"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_pair_is_refused_with_its_position(judge, pairs, case):
    bad, message = BAD[case]
    with pytest.raises(PairError, match=f"A pair|Pair 0.*{message}"):
        judge(bad)
    with pytest.raises(PairError, match=f"Pair 2 expects.*{message}"):
        judge([*pairs[:2], bad])
    with pytest.raises(PairError, match=f"Pair 1 expects.*{message}"):
        list(judge(row for row in [pairs[0], bad]))


def test_a_list_is_checked_before_anything_is_scored(judge, pairs, monkeypatch):
    monkeypatch.setattr(judge, "forward", lambda *a: pytest.fail("scored"))
    with pytest.raises(PairError, match="Pair 3"):
        judge([*pairs, {"question": "q"}])


@pytest.mark.parametrize("kind", ["list", "generator", "datasets"])
def test_a_pair_is_checked_once(judge, pairs, kind, monkeypatch):
    checked = []
    for module in (pipeline_inspector, pair_encoder):
        check = module.check_pair
        monkeypatch.setattr(
            module, "check_pair", lambda pair, *rest, check=check: (checked.append(pair), check(pair, *rest))
        )
    assert len(list(judge(INPUTS[kind](pairs)))) == len(checked) == len(pairs)


@pytest.mark.parametrize("bad", [("q", "p"), "text", b"bytes", 3, None, {"q", "p"}])
def test_other_kinds_of_input_are_refused(judge, bad):
    with pytest.raises(PairError, match="A judge expects .*question.* but got"):
        judge(bad)


@pytest.mark.parametrize("bad", [("q", "p"), "text", ["q", "p"], None])
def test_items_that_are_no_pairs_are_refused(judge, bad):
    with pytest.raises(PairError, match='Pair 0 expects {"question": str, "prediction": str}, but got'):
        judge([bad])


def test_unknown_arguments_are_refused(judge, pairs):
    with pytest.raises(TypeError, match="num_workers, share_prefixes and explain, but got temperature"):
        judge(pairs, temperature=1)
    with pytest.raises(TypeError, match="one positional argument, but got 1 more"):
        judge(pairs, "extra")
    with pytest.raises(TypeError, match="got top_k"):
        pipeline("inspector-judge", model=judge.model, tokenizer=judge.tokenizer, top_k=1)


@pytest.mark.parametrize("size", [0, -1, 1.5])
def test_a_bad_batch_size_is_refused(judge, pairs, size):
    with pytest.raises(ValueError, match="batch_size expects a positive whole number"):
        judge(pairs, batch_size=size)


def test_long_pairs_are_cut_and_flagged(make_judge):
    judge = load_judge(make_judge([aspect("a", [feature(1)])], max_length=64), device="cpu")
    long, short = judge([{"question": "word " * 200, "prediction": "yes"}, {"question": "q", "prediction": "p"}])
    assert long["truncated"] is True and short["truncated"] is False


def test_states_that_overflow_are_an_error_and_no_score(judge, pairs):
    with torch.no_grad():
        judge.model.probes["correctness_probe"].bias.fill_(float("nan"))
    with pytest.raises(BackboneError, match="expects finite states.*dtype=torch.float32"):
        judge(pairs)


@pytest.mark.parametrize("rule", ["votes", "hard_votes", "margin", "one_vs_rest", "logistic", "ordinal"])
def test_infinite_states_are_an_error_for_every_rule(make_judge, pairs, rule):
    judge = load_judge(make_judge([aspect("a", [feature(1)], rule, classes=(1, 2, 3))]), device="cpu")
    judge.model.backbone.get_input_embeddings().weight.data.fill_(float("inf"))
    with pytest.raises(BackboneError, match="expects finite states"):
        judge(pairs)


def test_threads_may_share_a_judge(judge):
    from concurrent.futures import ThreadPoolExecutor

    texts = [{"question": "q <|im_end|>" if i % 2 else "plain", "prediction": f"answer {i % 3}"} for i in range(200)]
    alone = [judge.preprocess(pair) for pair in texts]
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(judge.preprocess, texts)) == alone


def test_threads_that_call_a_new_judge_at_once_get_what_one_gets(make_judge, pairs):
    import threading
    from concurrent.futures import ThreadPoolExecutor

    judge, all_there = load_judge(make_judge([aspect("a", [feature(1)])]), device="cpu"), threading.Barrier(len(pairs))

    def score(pair):
        all_there.wait()
        return judge(pair)

    with ThreadPoolExecutor(len(pairs)) as pool:
        found = list(pool.map(score, pairs))
    assert alike(found, judge(pairs))


def test_pandas_and_sized_streams(judge, pairs):
    import pandas

    with pytest.raises(PairError, match="to_dict"):
        judge(pandas.DataFrame(pairs))

    class Sized(Stream):
        def __len__(self):
            return len(PAIRS)

    assert list(judge(Sized())) == judge(pairs)


def test_a_broken_tokenizer_is_not_replaced_silently(judge, tmp_path):
    judge.save_pretrained(tmp_path / "j")
    (tmp_path / "j" / "tokenizer.json").write_text("{")
    with pytest.raises(Exception, match="Expecting property name"):  # the library says where
        load_judge(tmp_path / "j", device="cpu")


def test_a_judge_of_several_readings(make_judge, pairs):
    literal = {"prefix": "Rate: ", "middle": "\n", "suffix": "\nScore:", "add_special_tokens": True}
    readings = {"one": literal, "two": {**literal, "prefix": "Check the whole of this: "}}
    aspects = [
        aspect("a", [feature(2, "response_mean", reading="one")]),
        aspect("b", [feature(1, "last", reading="two")]),
    ]
    judge = load_judge(make_judge(aspects, readings), device="cpu")
    alone = [judge(pair) for pair in pairs]
    assert all(map(close, judge(pairs), alone))


def test_loads_by_task_after_import(make_judge):
    folder = make_judge([aspect("a", [feature(1)])])
    judge = pipeline("inspector-judge", model=str(folder), device="cpu", dtype=torch.bfloat16)
    assert type(judge) is InspectorPipeline and judge.model.dtype == torch.bfloat16
    mapped = pipeline("inspector-judge", model=str(folder), device_map="auto", batch_size=2)
    assert mapped(PAIRS)[0]["scores"]


def test_save_and_load_in_both_forms(judge, pairs, tmp_path):
    expected = judge(pairs)
    for fused in (True, False):
        folder = tmp_path / str(fused)
        judge.save_pretrained(folder, fused=fused)
        assert (folder / "tokenizer.json").is_file() == fused
        assert alike(load_judge(folder, device="cpu")(pairs), expected)
        assert str(inspector_pipeline.EXAMPLES.parent) not in (folder / "config.json").read_text()


REMOTE = """
    import json, sys
    sys.modules["inspector_pipeline"] = None  # as where the package is not installed
    import warnings; warnings.simplefilter("error")
    from transformers import pipeline
    folder, pairs = sys.argv[1], json.loads(sys.argv[2])
    by_task = pipeline("inspector-judge", model=folder, trust_remote_code=True, device="cpu")
    assert type(by_task).__module__.startswith("transformers_modules"), type(by_task)
    again = pipeline(model=folder, trust_remote_code=True, device="cpu")(pairs)
    assert [one["scores"] for one in again] == [one["scores"] for one in by_task(pairs)]
    by_task.save_pretrained(sys.argv[3])
    resaved = pipeline("inspector-judge", model=sys.argv[3], trust_remote_code=True, device="cpu")
    assert all(".resaved." in type(one).__module__ for one in (resaved, resaved.model)), type(resaved.model)
    print(json.dumps([by_task(pairs), resaved(pairs)]))
"""


def run_remote(*args, home):
    import os

    env = {**os.environ, "HF_MODULES_CACHE": str(home), "TOKENIZERS_PARALLELISM": "false"}
    done = run_fresh(textwrap.dedent(REMOTE), *args, env=env, cwd=home)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize(("saver", "family"), [("pipeline", "qwen3"), ("model", "llama")], indirect=["family"])
def test_a_saved_folder_runs_by_remote_code_without_the_package(judge, pairs, tmp_path, saver):
    expected = json.loads(json.dumps(judge(pairs)))
    if saver == "pipeline":
        judge.save_pretrained(tmp_path / "saved")
    else:
        judge.model.save_pretrained(tmp_path / "saved")
    found, resaved = run_remote(tmp_path / "saved", json.dumps(pairs), tmp_path / "resaved", home=tmp_path)
    # What remote code saves again is as complete as what it was loaded from.
    assert alike(found, expected) and alike(resaved, expected)
    assert alike(load_judge(tmp_path / "resaved", device="cpu")(pairs), judge(pairs))


def test_the_task_is_registered_with_the_embedded_judge_as_default():
    from transformers.pipelines import PIPELINE_REGISTRY

    _, task, _ = PIPELINE_REGISTRY.check_task("inspector-judge")
    assert task["impl"] is InspectorPipeline
    assert task["default"]["model"] == (str(inspector_pipeline.api.load.EMBEDDED_JUDGE), None)
