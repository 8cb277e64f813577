"""Load the judge that the arguments name."""

import argparse
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


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
    """Load the judge, by `judge` and those of device, dtype and revision that were given."""
    from inspector_pipeline.api.load import load_judge

    options = {name: getattr(args, name) for name in ("device", "dtype", "revision") if getattr(args, name)}
    with without_loading_bars():
        return load_judge(args.judge, **options)


@contextmanager
def without_loading_bars() -> Iterator[None]:
    """Silence transformers' bars for what takes a second; pip shows its own for a download."""
    from transformers.utils import logging as hf_logging

    hf_logging.disable_progress_bar()
    try:
        yield
    finally:
        hf_logging.enable_progress_bar()
