"""The cases that a judge itself runs, through the public pipeline; each function is named as its group.

- judge, rubric: the same pairs as every other procedure gets, in one pass a pair or in one a rubric;
- best_of_8: eight responses to each of a few long questions;
- ceiling, profile: pairs of 256 tokens or more, against the matrix-product ceiling and by PyTorch's own profiler;
- growth: more pairs, and longer ones;
- drift: how far bfloat16 and shared prefixes move scores;
- start: the first score of a fresh process.
"""

import gc
import json
import subprocess
import sys
from collections import defaultdict
from collections.abc import Callable
from functools import partial
from itertools import cycle, islice
from statistics import median
from typing import Any

import numpy as np
import torch
from torch.profiler import ProfilerActivity
from torch.profiler import profile as torch_profile
from transformers import AutoModel, Qwen3Config

from inspector_pipeline.configuration_inspector import InspectorConfig
from inspector_pipeline.errors import BackboneError, DataFileError
from inspector_pipeline.modeling_inspector import InspectorModel
from inspector_pipeline.pipeline_inspector import TASK, InspectorPipeline
from inspector_pipeline.prefixes import prefix_tree

from .config import QUESTION_TOKENS, RESPONSES
from .inputs import Inputs, Pair, make_rubric_judge, work_of
from .measure import Measurement, Scores, Work, difference, measure, scores_of

Result = dict[str, Any]

MIN_TOKENS = 256  # of a long pair
QWEN3_LAYERS = 4
PAIRS_PER_LENGTH = 16
KINDS = {  # of work -> parts of an operator's name; attention's own products count as attention
    "attention": ("attention", "softmax"),
    "matrix products": ("mm", "addmm", "linear", "mkldnn", "bmm"),
    "copies": ("copy_", "cat", "clone", "contiguous", "index", "gather", "to_copy"),
}
TOP_OPERATORS = 12
START_STEPS = (
    "import torch, transformers",
    "the parts of transformers that any pipeline imports",
    "import inspector_pipeline",
    "load the judge",
    "first score",
)
START_IMPORTS = 2  # how many of these are torch's and transformers' own; `import transformers` alone imports nothing
START_SCRIPT = """
import json, sys, time
times = [time.perf_counter()]
import torch, transformers
times.append(time.perf_counter())
from transformers import AutoModel, pipeline
times.append(time.perf_counter())
import inspector_pipeline
times.append(time.perf_counter())
judge = inspector_pipeline.load_judge(sys.argv[1])
times.append(time.perf_counter())
judge(json.loads(sys.argv[2]))
times.append(time.perf_counter())
print(json.dumps(times))
"""


def judge(inputs: Inputs, dtype: str, name: str | None = None, engine: str | None = None) -> Measurement:
    """Score the run's pairs with the judge, or with another one, or in another engine."""
    loaded = inputs.load_judge(dtype, name, engine=engine)
    return _throughput(inputs, dtype, loaded, inputs.pairs, loaded, scores_of)


def rubric(inputs: Inputs, dtype: str) -> Measurement:
    """Score the run's pairs with the rubric judge."""
    loaded = inputs.load_judge(dtype, make_rubric_judge(inputs))
    return _throughput(inputs, dtype, loaded, inputs.pairs, loaded, scores_of)


def _throughput(
    inputs: Inputs,
    dtype: str,
    loaded: InspectorPipeline,
    pairs: list[Pair],
    score: Callable[[list[Pair]], list[Result]],
    details: Callable[[list[Result]], dict[str, Any]] = lambda _: {},
) -> Measurement:
    return measure(
        lambda: score(pairs),
        work_of(inputs, loaded, pairs, dtype),
        repetitions=inputs.config.repetitions,
        warm_up=lambda: score(pairs[:2]),
        details=details,
    )


def best_of_8(inputs: Inputs, dtype: str, mode: str) -> Measurement:
    """Score eight responses a question.

    Args:
        inputs: The run's.
        dtype: Of the judge.
        mode: `together`, in one call, where what pairs have in common at their beginning, the question foremost, is
            read once; `unrelated`, in one call, but every pair is read whole, in the same batches as pairs of different
            questions; `alone`, a call for each pair.
    """
    pairs, loaded = best_of_pairs(inputs), inputs.load_judge(dtype)
    modes: dict[str, Callable[[list[Pair]], list[Result]]] = {
        "together": loaded,
        "unrelated": partial(loaded, share_prefixes=False),
        "alone": lambda pairs: [loaded(pair) for pair in pairs],
    }

    def details(results: list[Result]) -> dict[str, Any]:
        what = {"questions": inputs.config.best_of_questions, "responses": RESPONSES}
        return {**scores_of(results), **what, "times_fewer_tokens": times_fewer_tokens(loaded, pairs)}

    return _throughput(inputs, dtype, loaded, pairs, modes[mode], details)


def times_fewer_tokens(loaded: InspectorPipeline, pairs: list[Pair]) -> float:
    """Return how many times fewer tokens are read together than one by one: about what there is to gain."""
    alone = together = 0
    for encoder in loaded.encode.encoders.values():
        sequences, opening = (
            [encoder(pair["question"], pair["prediction"]).input_ids for pair in pairs],
            len(encoder.opening_ids),
        )
        alone += sum(len(ids) - opening for ids in sequences)
        together += sum(len(node.ids) for node in prefix_tree(sequences, opening).nodes)
    return alone / together


def best_of_pairs(inputs: Inputs) -> list[Pair]:
    """Join the set's questions until they are long enough, and give each eight of the set's responses."""
    stream = cycle(inputs.all_pairs)
    pairs = []
    for _ in range(inputs.config.best_of_questions):
        question = ""
        while len(inputs.tokenizer(question)["input_ids"]) < QUESTION_TOKENS:
            question = f"{question}\n\n{next(stream)['question']}".strip()
        pairs += [{"question": question, "prediction": pair["prediction"]} for pair in islice(stream, RESPONSES)]
    return pairs


def ceiling(inputs: Inputs, dtype: str, layers: str) -> Measurement:
    """Score long pairs, with no prefix shared, so that every operation that is counted is one that is done.

    Args:
        inputs: The run's.
        dtype: Of the judge.
        layers: The `judge`'s, or those of `qwen3`: of Qwen3-1.7B's shape, with random weights.
    """
    loaded = inputs.load_judge(dtype) if layers == "judge" else qwen3_judge(inputs, dtype)
    return _throughput(inputs, dtype, loaded, long_pairs(inputs), partial(loaded, share_prefixes=False))


def long_pairs(inputs: Inputs) -> list[Pair]:
    """Take the set's first pairs of 256 tokens or more in the chat reading.

    Raises:
        DataFileError: The set has none.
    """
    long = (pair for pair in inputs.all_pairs if inputs.chat_lengths([pair])[0] >= MIN_TOKENS)
    found = list(islice(long, inputs.config.long_pairs))
    if not found:
        raise DataFileError(f"{inputs.config.probing_set} expects pairs of {MIN_TOKENS} tokens, but holds none.")
    return found


def qwen3_config(vocab_size: int) -> Qwen3Config:
    """Describe the layers: Qwen3-1.7B's, a few of them, with the vocabulary of the run's tokenizer."""
    return Qwen3Config(
        vocab_size=vocab_size,
        hidden_size=2048,
        intermediate_size=6144,
        num_hidden_layers=QWEN3_LAYERS,
        num_attention_heads=16,
        num_key_value_heads=8,
        head_dim=128,
        max_position_embeddings=40960,
    )


def qwen3_judge(inputs: Inputs, dtype: str) -> InspectorPipeline:
    """Make a judge of one aspect, the mean over the response at the last layer; weights are random, by the seed."""
    torch.manual_seed(inputs.config.seed)
    config = qwen3_config(inputs.backbone_config.vocab_size)
    backbone = AutoModel.from_config(config, dtype=getattr(torch, dtype)).eval().requires_grad_(False)
    feature = {"reading": "chat", "layer": QWEN3_LAYERS, "pooling": "response_mean", "state": "rms_normed"}
    head = {"type": "linear", "rule": "logistic", "members": 1}
    aspect = {"name": "speed", "features": [feature], "head": head, "classes": [0, 1], "counts_in_total": True}
    model = InspectorModel(
        InspectorConfig(
            backbone_config=config,
            backbone_id="",
            depth=QWEN3_LAYERS,
            readings={"chat": inputs.chat.template.to_dict()},
            aspects=[aspect],
            max_length=2048,
        )
    )
    model.set_backbone(backbone)
    return InspectorPipeline(model=model.eval(), tokenizer=inputs.tokenizer, task=TASK)


def profile(inputs: Inputs, dtype: str) -> Measurement:
    """Score long pairs once under the profiler; its own cost is in the times, so only the shares count."""
    pairs, loaded = long_pairs(inputs), inputs.load_judge(dtype)

    def run() -> dict[str, Any]:
        with torch_profile(activities=[ProfilerActivity.CPU]) as profiler:
            loaded(pairs, share_prefixes=False)
        return shares({event.key: event.self_cpu_time_total for event in profiler.key_averages()})

    work = work_of(inputs, loaded, pairs, dtype)
    return measure(run, work, repetitions=1, warm_up=lambda: loaded(pairs[:2]), details=lambda found: found)


def shares(times: dict[str, float]) -> dict[str, Any]:
    """Sort operators into kinds.

    Args:
        times: Operator -> its own time, without what it calls.

    Returns:
        `kinds`: kind -> share of the time; `operators`: the most expensive ones with theirs.
    """
    whole = sum(times.values())
    kinds: dict[str, float] = defaultdict(float)
    for name, time in times.items():
        kinds[kind_of(name)] += time / whole
    first = sorted(times.items(), key=lambda item: -item[1])[:TOP_OPERATORS]
    return {"kinds": dict(kinds), "operators": {name: time / whole for name, time in first}}


def kind_of(operator: str) -> str:
    """Say what kind of work an operator does."""
    name = operator.removeprefix("aten::").strip("_")
    kinds = (kind for kind, parts in KINDS.items() if any(part in name for part in parts))
    return next(kinds, "element-wise and other")


def growth(inputs: Inputs, pairs: int | None, length: int) -> Measurement:
    """Score made-up pairs of one length once, as a stream of which nothing is kept.

    Args:
        inputs: The run's.
        pairs: How many; None for as many as every length gets.
        length: Tokens of each in the chat reading.
    """
    dtype = inputs.config.growth_dtype
    loaded = inputs.load_judge(dtype)
    made = list(inputs.pairs_of(length, pairs or PAIRS_PER_LENGTH))
    work = work_of(inputs, loaded, made, dtype)
    return measure(
        lambda: sum(1 for _ in loaded(iter(made))),
        work,
        repetitions=1,
        warm_up=lambda: loaded(made[:2]),
        details=lambda n: {"length": length, "scored": n, "mean_tokens": work.chat_tokens / work.pairs},
    )


def drift(inputs: Inputs) -> Measurement:
    """Score the set's pairs in both dtypes, with prefixes shared and not; what is timed is all four together."""
    pairs = inputs.all_pairs[: inputs.config.drift_pairs or None]
    loaded = inputs.load_judge("float32")
    work = work_of(inputs, loaded, pairs, "float32")
    del loaded
    return measure(lambda: drifts(inputs, pairs), work, repetitions=1, warm_up=None, details=lambda found: found)


def drifts(inputs: Inputs, pairs: list[Pair]) -> dict[str, Any]:
    """Compare every way of scoring with float32 without sharing, and bfloat16 also with itself without sharing."""
    runs: dict[tuple[str, bool], Scores] = {}
    for dtype in ("float32", "bfloat16"):
        loaded = inputs.load_judge(dtype)
        for is_shared in (False, True):
            found = scores_of(loaded(pairs, share_prefixes=is_shared))
            runs[dtype, is_shared] = np.array(found["scores"]), np.array(found["expected"], dtype=float)
        del loaded
        gc.collect()
    plain = runs["float32", False]
    return {
        "bfloat16": difference(plain, runs["bfloat16", True]),
        "bfloat16_unshared": difference(plain, runs["bfloat16", False]),
        "sharing_float32": difference(plain, runs["float32", True]),
        "sharing_bfloat16": difference(runs["bfloat16", False], runs["bfloat16", True]),
        "pairs": len(pairs),
    }


def start(inputs: Inputs) -> Measurement:
    """Start a fresh Python with warm caches, time each step up to the first score, and do so several times.

    `seconds` are those beyond the import of torch and transformers.
    """
    pair = inputs.pairs[0]
    _, *runs = [_start_times(inputs.judge_id, pair) for _ in range(1 + inputs.config.repetitions)]  # one to warm up
    (n_tokens,) = inputs.chat_lengths([pair])
    work = Work("", pairs=1, tokens=n_tokens, chat_tokens=n_tokens, flops=0)
    steps = {step: median(run[i] for run in runs) for i, step in enumerate(START_STEPS)}
    return Measurement(work, [sum(run[START_IMPORTS:]) for run in runs], 0, 0, details={"steps": steps})


def _start_times(judge_id: str, pair: Pair) -> list[float]:
    command = [sys.executable, "-c", START_SCRIPT, judge_id, json.dumps(pair)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise BackboneError(f"A fresh Python expects to load {judge_id}, but it ended with:\n{done.stderr}")
    times = json.loads(done.stdout.splitlines()[-1])
    return [after - before for before, after in zip(times, times[1:], strict=False)]
