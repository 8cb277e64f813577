"""What the judge's time goes to, on pairs of 256 tokens or more, by PyTorch's own profiler."""

from collections import defaultdict
from typing import Any

from torch.profiler import ProfilerActivity
from torch.profiler import profile as torch_profile

from .inputs import Inputs
from .long_pairs import long_pairs
from .measure import Measurement, measure
from .ours import work_of

KINDS = {
    "matrix products": ("mm", "addmm", "linear", "mkldnn", "bmm"),
    "attention": ("attention", "softmax"),
    "copies": ("copy_", "cat", "clone", "contiguous", "index", "gather", "to_copy"),
}
OTHER = "element-wise and other"
TOP = 12


def profile(inputs: Inputs, dtype: str) -> Measurement:
    """Score the pairs once under the profiler; its own cost is in the times, so only the shares count."""
    pairs = long_pairs(inputs)
    loaded = inputs.load_judge(dtype)

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
    first = sorted(times.items(), key=lambda item: -item[1])[:TOP]
    return {"kinds": dict(kinds), "operators": {name: time / whole for name, time in first}}


def kind_of(operator: str) -> str:
    """Say what kind of work an operator does; attention's own products count as attention."""
    name = operator.removeprefix("aten::").strip("_")
    for kind in ("attention", "matrix products", "copies"):
        if any(part in name for part in KINDS[kind]):
            return kind
    return OTHER
