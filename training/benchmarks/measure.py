"""Timing, memory and the matrix-product ceiling of one case, and the JSON that is kept of it."""

import resource
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional
from torch.utils.benchmark import Timer

from ..evaluation.cost import LayerShape

T = TypeVar("T")
Scores = tuple[NDArray[np.int64], NDArray[np.float64]]

CEILING_SECONDS = 0.3  # how long each shape is timed
GIGA = 1e9


@dataclass(frozen=True)
class Work:
    """What one repetition of a case does.

    Attributes:
        dtype: float32 or bfloat16.
        pairs: Pairs that get a score.
        tokens: Tokens of these pairs as the case reads them, all its passes together, without padding.
        chat_tokens: Tokens of the same pairs in the chat reading: what makes cases on different pairs comparable.
        flops: Operations, with the padding that is computed; every token of every pair counts, also where
            the case reuses what it has computed.
        shape: Of the layers; None where a case is not compared with the ceiling.
        batch_tokens: Tokens of one of its batches, for the ceiling.
    """

    dtype: str
    pairs: int
    tokens: int
    chat_tokens: int
    flops: int
    shape: LayerShape | None = None
    batch_tokens: int = 0


@dataclass(frozen=True)
class Measurement:
    """What is kept of a case.

    Attributes:
        work: What one repetition does.
        seconds: Of each repetition.
        peak_memory_bytes: Largest resident memory of the case's process, from its start to the last repetition.
        loaded_memory_bytes: The same up to the first repetition: libraries and weights.
        ceiling_gflops: What the layer's matrix products alone reach in the same process, on as many tokens as a batch.
        details: What only this case has.
    """

    work: Work
    seconds: list[float]
    peak_memory_bytes: int
    loaded_memory_bytes: int
    ceiling_gflops: float | None = None
    details: dict[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Return what a case's JSON holds: all of it, and what follows from it."""
        seconds = median(self.seconds)
        gflops = self.work.flops / seconds / GIGA
        derived = {
            "median_seconds": seconds,
            "pairs_per_second": self.work.pairs / seconds,
            "tokens_per_second": self.work.tokens / seconds,
            "chat_tokens_per_second": self.work.chat_tokens / seconds,
            "gflops": gflops,
            "share_of_ceiling": gflops / self.ceiling_gflops if self.ceiling_gflops else None,
        }
        data = asdict(self)
        return {**data.pop("work"), **data, **derived}


def measure(
    run: Callable[[], T],
    work: Work,
    *,
    repetitions: int,
    warm_up: Callable[[], Any] | None,
    details: Callable[[T], dict[str, Any]] = lambda _: {},
    device: str = "cpu",
) -> Measurement:
    """Time a case, then its ceiling, which must not count as the case's memory.

    Args:
        run: One repetition.
        work: What it does.
        repetitions: How many are timed.
        warm_up: Run once before, not timed.
        details: Makes the details of what the last repetition returned.
        device: Where it runs; its memory counts, and it runs the ceiling.
    """
    loaded = peak_memory(device)
    if warm_up is not None:
        warm_up()
    seconds: list[float] = []
    for _ in range(repetitions):
        start = time.perf_counter()
        result = run()
        seconds.append(time.perf_counter() - start)
    peak = peak_memory(device)
    ceiling = None
    if work.shape is not None:
        ceiling = matrix_ceiling(work.shape, work.batch_tokens, getattr(torch, work.dtype), device=device)
    return Measurement(work, seconds, peak, loaded, ceiling, details(result))


def peak_memory(device: str = "cpu") -> int:
    """Return the largest resident memory that this process has had, or has allocated on a GPU, in bytes.

    On Linux it is the high-water mark of the process's own memory: ru_maxrss would also know the parent's, from which
    it was forked.
    """
    if torch.device(device).type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    status = Path("/proc/self/status")
    if status.is_file():
        for line in status.read_text(encoding="ascii").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def matrix_ceiling(
    shape: LayerShape,
    tokens: int,
    dtype: torch.dtype,
    seconds: float | None = None,
    seed: int = 0,
    device: str = "cpu",
) -> float:
    """Time the matrix products of a layer's linear maps, one by one, and nothing else.

    Args:
        shape: The layer.
        tokens: Rows of the input.
        dtype: Of input and weights.
        seconds: How long each is repeated; None for `CEILING_SECONDS`.
        seed: Of the numbers.
        device: Where they run.

    Returns:
        GFLOP/s over all of them, from the median time of each.
    """
    generator = torch.Generator().manual_seed(seed)
    flops, total = 0, 0.0
    with torch.inference_mode():
        for inputs, outputs in shape.linears.values():
            sizes = {"states": (tokens, inputs), "weight": (outputs, inputs)}
            numbers = {name: torch.randn(size, generator=generator).to(device, dtype) for name, size in sizes.items()}
            given = {"linear": functional.linear, **numbers}
            timer = Timer("linear(states, weight)", globals=given, num_threads=torch.get_num_threads())
            total += timer.blocked_autorange(min_run_time=CEILING_SECONDS if seconds is None else seconds).median
            flops += 2 * tokens * inputs * outputs
    return flops / total / GIGA


def padded(lengths: list[int], batch_size: int) -> list[int]:
    """Return the lengths that are computed where batches in input order are padded to their longest row."""
    batches = [lengths[i : i + batch_size] for i in range(0, len(lengths), batch_size)]
    return [max(batch) for batch in batches for _ in batch]


def scores_of(results: list[dict[str, Any]]) -> dict[str, Any]:
    """Keep what cases are compared by: scores and expected scores, in the order of the pairs."""
    return {
        "scores": [list(result["scores"].values()) for result in results],
        "expected": [list(result["expected"].values()) for result in results],
        "aspects": list(results[0]["scores"]),
    }


def difference(one: Scores, other: Scores) -> dict[str, float]:
    """Compare two runs over the same pairs.

    Returns:
        The largest and the mean difference of expected scores, their standard deviation over pairs (mean over aspects)
        to judge these by, and the share of whole-number scores that differ.
    """
    apart = np.abs(one[1] - other[1])
    return {
        "max": float(apart.max()),
        "mean": float(apart.mean()),
        "spread": float(one[1].std(axis=0).mean()),
        "flips": float((one[0] != other[0]).mean()),
    }
