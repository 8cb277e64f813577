"""Estimate what scoring many pairs costs, from one measured speed.

    python -m training job_cost --seconds-per-pair 0.37 --tokens 365 --output cost.md

Three estimates: on the cores that the speed was measured on (a product); on a machine of more such cores, at a stated
efficiency; and on an accelerator, from the operations of its layers (training/evaluation/cost.py) at a stated share of
a stated peak. Only the first rests on a measurement. Written is a Markdown table with the arithmetic.
"""

import logging
from dataclasses import dataclass
from pathlib import Path

from inspector_pipeline.api.load import judge_name
from inspector_pipeline.configuration_inspector import InspectorConfig
from inspector_pipeline.errors import SettingsError
from inspector_pipeline.files.disk import write_atomically

from ..evaluation.cost import LayerShape

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Config:
    """What is known of a job and of the machines.

    Attributes:
        seconds_per_pair: Measured on `cores` cores.
        tokens: Of a pair, on average, in that measurement and in the job.
        judge: Folder or Hub id of the judge; the embedded one where not given.
        cores: That were measured.
        pairs: Of the job.
        many_cores: Of the larger machine.
        efficiency: Share of a core's speed that is left where all of that machine's cores work: one process for every
            few cores shares memory and clock with the others.
        peak_tflops: The accelerator's peak, in 1e12 operations a second.
        utilisation: Share of it that the judge reaches.
        output: Markdown file to write; None logs it only.
    """

    seconds_per_pair: float
    tokens: int
    judge: str | None = None
    cores: int = 2
    pairs: int = 1_000_000
    many_cores: int = 64
    efficiency: float = 0.8
    peak_tflops: float = 312.0
    utilisation: float = 0.2
    output: str | None = None

    def __post_init__(self) -> None:
        """Refuse what no machine is.

        Raises:
            SettingsError: A number is out of range.
        """
        positive = (self.seconds_per_pair, self.tokens, self.cores, self.pairs, self.many_cores, self.peak_tflops)
        if min(positive) <= 0 or not 0 < self.efficiency <= 1 or not 0 < self.utilisation <= 1:
            raise SettingsError(f"A cost expects positive numbers and shares of 0 to 1, but got {self}.")


@dataclass(frozen=True)
class JobCost:
    """Seconds of a job.

    Attributes:
        pair_flops: Operations of a pair.
        measured: On the measured cores.
        many_cores: On the larger machine.
        accelerator: On the accelerator.
    """

    pair_flops: int
    measured: float
    many_cores: float
    accelerator: float


def run(config: Config) -> None:
    """Run the stage: write the estimates, where the settings name a file, and log them."""
    text = markdown(config, job_cost(config))
    if config.output:
        write_atomically(Path(config.output), text)
    logger.info("%s", text)


def job_cost(config: Config) -> JobCost:
    """Estimate a job; the pairs' passes alone, without loading, tokenising and writing."""
    judge: InspectorConfig = InspectorConfig.from_pretrained(judge_name(config.judge))
    passes = len({(r.prefix, r.middle, r.add_special_tokens) for r in judge.parsed_readings.values()})
    flops = passes * LayerShape.of(judge.backbone_config).flops([config.tokens], judge.depth)
    measured = config.pairs * config.seconds_per_pair
    return JobCost(
        flops,
        measured,
        measured * config.cores / (config.many_cores * config.efficiency),
        config.pairs * flops / (config.peak_tflops * 1e12 * config.utilisation),
    )


def markdown(config: Config, cost: JobCost) -> str:
    """Write the estimates with their arithmetic."""
    gflop, seconds = cost.pair_flops / 1e9, config.seconds_per_pair
    peak = f"{config.peak_tflops:g} TFLOP/s"
    rows = [
        (f"{config.cores} cores, as measured", f"{config.pairs:,} x {seconds:g} s", cost.measured),
        (
            f"{config.many_cores} such cores at {config.efficiency:.0%} efficiency",
            f"{cost.measured:,.0f} s x {config.cores} / ({config.many_cores} x {config.efficiency:g})",
            cost.many_cores,
        ),
        (
            f"one accelerator of {peak} at {config.utilisation:.0%} of its peak",
            f"{config.pairs:,} x {gflop:.1f} GFLOP / ({peak} x {config.utilisation:g})",
            cost.accelerator,
        ),
    ]
    lines = [
        f"Estimates for {config.pairs:,} pairs of {config.tokens} tokens. A pair takes {gflop:.1f} GFLOP; measured are "
        f"{seconds:g} s a pair on {config.cores} cores ({config.tokens} / {seconds:g} = {config.tokens / seconds:,.0f} "
        f"tokens/s, {gflop / seconds:,.0f} GFLOP/s).",
        "",
        "| on | arithmetic | estimate |",
        "|---|---|---|",
        *(f"| {name} | {how} | {took:,.0f} s = {_duration(took)} |" for name, how, took in rows),
    ]
    return "\n".join(lines) + "\n"


def _duration(seconds: float) -> str:
    for unit, size in (("days", 86400), ("h", 3600), ("min", 60)):
        if seconds >= size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.1f} s"
