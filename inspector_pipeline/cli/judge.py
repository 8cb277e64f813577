"""Load the judge that the arguments name."""

import argparse
import os
import pickle
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

# What transformers and its like raise, beside what is said in one line anyway, of files that are no judge's.
DAMAGE = (
    *(ArithmeticError, AttributeError, LookupError, RecursionError, RuntimeError, TypeError),
    *(AssertionError, pickle.UnpicklingError),
)


def check_judge_options(args: argparse.Namespace) -> None:
    """Refuse a revision of what has none, and a device that this machine or this torch does not have.

    Raises:
        ValueError: The message names the option.
    """
    import torch

    from inspector_pipeline.api.load import judge_name

    if args.revision and os.path.isdir(judge_name(args.judge)):
        raise ValueError(
            f"--revision expects a judge on the Hub, but got {args.judge or 'the embedded one'}. Leave --revision out."
        )
    try:
        torch.empty(0, device=args.device)
    except (RuntimeError, AssertionError) as error:
        raise ValueError(
            f"--device expects a device of this machine, but got {args.device}: {str(error).splitlines()[0]}"
        ) from error


def load(args: argparse.Namespace) -> Any:
    """Load the judge, by `judge` and those of the options of `add_judge_options` that were given."""
    from inspector_pipeline.allocation import keep_freed_memory
    from inspector_pipeline.api.load import load_judge

    named = ("device", "dtype", "engine", "revision", "rubrics", "backbone")
    options = {name: getattr(args, name) for name in named if getattr(args, name)}
    with loading(args.judge):
        judge = load_judge(args.judge, **options)
    keep_freed_memory()
    return judge


@contextmanager
def loading(judge: str | None) -> Iterator[None]:
    """Load a judge: without bars for what takes a second, with messages that a terminal may be sent, and one error.

    Raises:
        JudgeConfigError: The judge's files are damaged, or are none of a judge's.
    """
    from safetensors import SafetensorError
    from transformers.utils import logging as hf_logging

    from inspector_pipeline.errors import InspectorError, JudgeConfigError

    hf_logging.disable_progress_bar()
    hf_logging.disable_default_handler()  # it writes names of tensors as they are; the root's writes them printable
    hf_logging.enable_propagation()
    try:
        yield
    except InspectorError:
        raise
    except (*DAMAGE, SafetensorError) as error:
        told = f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]:.300}"
        raise JudgeConfigError(
            f"{judge or 'The embedded judge'} expects the files of a judge, but they could not be loaded: {told}. "
            "Check where they come from, or save the judge again with save_pretrained."
        ) from error
    finally:
        hf_logging.disable_propagation()
        hf_logging.enable_default_handler()
        hf_logging.enable_progress_bar()


def needed_keys(judge: str | None, revision: str | None) -> tuple[str, ...]:
    """Return the texts that pairs need, before a judge is loaded; the embedded one needs both."""
    from inspector_pipeline.api.load import holds_classifiers, judge_name
    from inspector_pipeline.configuration_inspector import InspectorConfig
    from inspector_pipeline.pairs import PAIR_KEYS
    from inspector_pipeline.template import needed_keys as keys_of

    if judge is None or holds_classifiers(judge):
        return PAIR_KEYS
    return keys_of(InspectorConfig.from_pretrained(judge_name(judge), revision=revision).parsed_readings.values())
