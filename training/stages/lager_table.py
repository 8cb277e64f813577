"""Make LAGER's table of ten scores from its own files of logits.

    python -m training lager_table --logits flask_logits.json --validation valid_logits.json --output work/table

Such a file is a list of rows with `human_score` and, under `df`, the score tokens' `logits` of every layer. The scores
have their published names; those with tuned weights take a validation file of the same model. What differs from the
published code: summed probabilities are probabilities as they are, and not put through a softmax once more.
"""

import logging
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from inspector_pipeline.errors import DataFileError, SettingsError
from inspector_pipeline.files.disk import json_text, write_atomically
from inspector_pipeline.files.tables import read_json

from ..evaluation.correlations import correlations
from ..runs.manifest import Manifest
from ..score_tokens.weights import Array, TuningConfig, ten_scores, tune

logger = logging.getLogger(__name__)

STAGE = "lager_table"
BOOTSTRAPS = 1000
PUBLISHED_NAMES = {
    "direct_score": "last_argmax",
    "e_score": "last_expectation",
    "lager_wo": "logits_uniform_expectation",
    "lager_w": "logits_tuned_expectation",
    "logits_agg_max_score": "logits_uniform_argmax",
    "logits_agg_weighted_max_score": "logits_tuned_argmax",
    "prob_agg_e_score": "probabilities_uniform_expectation",
    "prob_agg_max_score": "probabilities_uniform_argmax",
    "prob_weighted_agg_e_score": "probabilities_tuned_expectation",
    "prob_weighted_agg_max_score": "probabilities_tuned_argmax",
}


@dataclass(frozen=True)
class Config:
    """Settings of the lager_table stage.

    Attributes:
        logits: JSON of a model's logits on scored prompts.
        output: Folder for results.json and table.md.
        validation: The same of the prompts to tune the layer weights on; without it there are no tuned scores.
        scores: The scale, ascending: what each logit stands for.
        layers: Which states are summed: all, or without_last as in the published code.
        tuning: How weights are tuned.
        seed: Of the intervals' resamples.
    """

    logits: str
    output: str
    validation: str | None = None
    scores: tuple[int, ...] = (1, 2, 3, 4, 5)
    layers: Literal["all", "without_last"] = "without_last"
    tuning: TuningConfig = field(default_factory=TuningConfig)
    seed: int = 731


def run(config: Config) -> None:
    """Run the stage.

    Raises:
        DataFileError: A file is no such list, or holds scores outside the scale.
        SettingsError: The two files are of models of different depth.
    """
    output = Path(config.output)
    manifest = Manifest.of(STAGE, config, (config.logits, config.validation))
    if manifest.is_done(output):
        return
    values, truth, n_null = read_logits(config.logits, len(config.scores))
    levels = np.array(config.scores, dtype=float)
    summed = values[:, :-1] if config.layers == "without_last" else values
    weights = _tuned(config, summed.shape[1], levels) if config.validation else None
    own = np.full(summed.shape[1], 1 / summed.shape[1]) if weights is None else weights
    found = ten_scores(summed, dict.fromkeys(("logits", "probabilities"), own), levels)
    alone = ten_scores(values[:, -1:], dict.fromkeys(("logits", "probabilities"), np.ones(1)), levels)
    found |= {name: score for name, score in alone.items() if name.startswith("last")}
    chosen = {name: ours for name, ours in PUBLISHED_NAMES.items() if weights is not None or "tuned" not in ours}
    told = {name: correlations(truth, found[ours], BOOTSTRAPS, config.seed) for name, ours in chosen.items()}
    results: dict[str, Any] = {"n": len(truth), "n_null": n_null, "scores": told}
    results |= {"layer_weights": None if weights is None else weights.round(6).tolist()}
    results |= {"intervals": f"95 %, percentile, {BOOTSTRAPS} resamples of rows"}
    output.mkdir(parents=True, exist_ok=True)
    files = [output / "results.json", output / "table.md"]
    write_atomically(files[0], json_text(results))
    write_atomically(files[1], _table(told))
    manifest.write(output, files)
    logger.info("%d rows, %d without a score:\n%s", len(truth), n_null, _table(told))


def read_logits(path: str, n_scores: int) -> tuple[Array, Array, int]:
    """Read a file of logits.

    Args:
        path: The file.
        n_scores: Scores of the scale.

    Returns:
        (rows, layers, scores) logits; (rows,) the scores that people gave; and how many rows are left out, since the
        model wrote no score.

    Raises:
        DataFileError: It is no such file.
    """
    data = read_json(path)
    if not isinstance(data, list) or not data:
        raise DataFileError(f"{path} expects a list of rows with human_score and df.logits, but got {data!r:.80}.")
    rows = [_row(entry, f"{path}: row {i}", n_scores) for i, entry in enumerate(data)]
    known = [row for row in rows if row is not None]
    if not known or len({logits.shape for logits, _ in known}) > 1:
        raise DataFileError(f"{path} expects rows with a score, of one number of layers, but has none or several.")
    values = np.stack([logits for logits, _ in known])
    return values, np.array([score for _, score in known], dtype=float), len(rows) - len(known)


def _row(entry: Any, where: str, n_scores: int) -> tuple[Array, float] | None:
    """Return a row's logits and score; None where the model wrote no score, which the file says by -1."""
    frame, score = (entry.get(key) if isinstance(entry, dict) else None for key in ("df", "human_score"))
    if not isinstance(frame, dict) or not isinstance(score, (int, float)):
        raise DataFileError(f"{where} expects human_score, a number, and df, an object, but got {entry!r:.80}.")
    if entry.get("weighted_socre") == -1 or "logits" not in frame:  # as the files spell it
        return None
    given = frame["logits"]
    layers = [given[key] for key in sorted(given, key=int)] if isinstance(given, dict) else given
    try:
        logits = np.array(layers, dtype=float)
    except (TypeError, ValueError) as error:
        raise DataFileError(f"{where} expects logits of numbers, a list a layer, but: {error}.") from error
    if logits.ndim != 2 or logits.shape[1] != n_scores or len(logits) < 2:
        raise DataFileError(
            f"{where} expects logits of {n_scores} scores in each of two layers or more, but got the shape "
            f"{logits.shape}. Name the scale as scores."
        )
    return logits, float(score)


def _tuned(config: Config, n_layers: int, levels: Array) -> Array:
    values, truth, _ = read_logits(str(config.validation), len(config.scores))
    summed = values[:, :-1] if config.layers == "without_last" else values
    if summed.shape[1] != n_layers:
        raise SettingsError(
            f"validation expects the same model as logits, of {n_layers} layers that are summed, but has "
            f"{summed.shape[1]}."
        )
    return tune(summed, truth, levels, "logits", config.tuning)


def _table(told: dict[str, Any]) -> str:
    metrics = ("spearman", "pearson", "kendall")
    lines = [f"| score | {' | '.join(metrics)} |", "|---" * (len(metrics) + 1) + "|"]
    lines += [f"| {name} | {' | '.join(_cell(found[metric]) for metric in metrics)} |" for name, found in told.items()]
    return "\n".join(lines) + "\n"


def _cell(found: dict[str, float | None]) -> str:
    value, low, high = (found[key] for key in ("value", "low", "high"))
    return "-" if value is None or low is None or high is None else f"{value:.3f} ({low:.3f} to {high:.3f})"
