"""The cases of the group `device`: the judge alone on one device, and its scores beside those of float32 on the CPU.

Each function is named as its group. Pairs are made up, so that no file of labels is needed.
"""

import gc
from collections.abc import Iterator
from itertools import islice
from typing import Any

import numpy as np
import torch

from inspector_pipeline.errors import SettingsError
from inspector_pipeline.pipeline_inspector import InspectorPipeline

from .config import DTYPES, QUESTION_TOKENS
from .inputs import Inputs, Pair, work_of
from .measure import Measurement, Scores, difference, measure, scores_of

DIFFERENT_PAIRS = 64  # made up word by word; further ones are these under another number, which begin differently too
PARITY_PAIRS, PARITY_LENGTH = 20, 256  # beside the first of the set


def check_device(name: str) -> None:
    """Refuse a device that is not there, before anything is measured.

    Raises:
        SettingsError: It cannot be used.
    """
    try:
        torch.zeros(1, device=name).cpu()
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0]
        raise SettingsError(
            f"device expects one that torch can use here, but got {name!r}: {reason}. On a machine with such a device, "
            "install a build of torch that is made for it."
        ) from error


def device(inputs: Inputs, dtype: str, length: int, responses: int = 1) -> Measurement:
    """Score made-up pairs of one length from text to result.

    Args:
        inputs: The run's.
        dtype: Of the judge.
        length: Tokens of a pair in the chat reading.
        responses: How many pairs have one question, of `QUESTION_TOKENS` tokens where it is more than one.
    """
    name = str(inputs.config.device)
    loaded = inputs.load_judge(dtype, device=name)
    pairs = list(islice(_pairs(inputs, length, responses), max(responses, inputs.config.device_tokens // length)))
    work = work_of(inputs, loaded, pairs, dtype)
    return measure(
        lambda: loaded(pairs),
        work,
        repetitions=inputs.config.repetitions,
        warm_up=lambda: loaded(pairs[:256]),
        details=lambda found: {"length": length, "scored": len(found), "mean_tokens": work.chat_tokens / work.pairs},
        device=name,
    )


def _pairs(inputs: Inputs, length: int, responses: int) -> Iterator[Pair]:
    """Make up pairs without end: a number before a question makes it another one."""
    if responses == 1:
        made = list(inputs.pairs_of(length, DIFFERENT_PAIRS))
        questions = [pair["question"].partition(" ")[2] for pair in made]
    else:
        made = list(inputs.pairs_of(length - QUESTION_TOKENS, DIFFERENT_PAIRS))
        questions = [pair["prediction"] for pair in inputs.pairs_of(QUESTION_TOKENS, DIFFERENT_PAIRS // responses)]
    number = 0
    while True:
        for place, pair in enumerate(made):
            question = questions[place // responses % len(questions)]
            yield {"question": f"{number // responses}: {question}", "prediction": pair["prediction"]}
            number += 1


def device_parity(inputs: Inputs) -> Measurement:
    """Compare scores on the device, in either dtype, with those of float32 on the CPU; all three runs are timed."""
    made = inputs.pairs_of(PARITY_LENGTH, PARITY_PAIRS)
    pairs = [*inputs.all_pairs[:PARITY_PAIRS], *made]
    loaded = inputs.load_judge("float32")
    work = work_of(inputs, loaded, pairs, "float32")
    expected = _scores(loaded, pairs)
    del loaded

    def run() -> dict[str, Any]:
        found: dict[str, Any] = {"pairs": len(pairs)}
        for dtype in DTYPES:
            found[dtype] = difference(
                expected, _scores(inputs.load_judge(dtype, device=str(inputs.config.device)), pairs)
            )
            gc.collect()
        return found

    return measure(run, work, repetitions=1, warm_up=None, details=lambda found: found)


def _scores(loaded: InspectorPipeline, pairs: list[Pair]) -> Scores:
    found = scores_of(loaded(pairs))
    return np.array(found["scores"]), np.array(found["expected"], dtype=float)
