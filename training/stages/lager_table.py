"""Make LAGER's table of ten scores from its own logits, or from a comparison's.

    python -m training lager_table --logits flask_logits.json --validation valid_logits.json --output work/table
    python -m training lager_table --logits work/compare/methods/layer_logits.safetensors --pairs work/general.jsonl \
        --aspect quality --output work/table

A file of LAGER's is a list of rows with `human_score` and, under `df`, the score tokens' `logits` of every layer. The
scores have their published names; those with tuned weights take a validation file of the same model, or of labelled
pairs are tuned in folds by question on the other folds. Beside each score stands what it has over E-Score, paired.
What differs from the published code: summed probabilities are probabilities as they are, and not put through a softmax
once more.
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from safetensors import SafetensorError, safe_open

from inspector_pipeline.errors import DataFileError, SettingsError
from inspector_pipeline.files.disk import json_text, write_atomically
from inspector_pipeline.files.tables import read_json

from ..evaluation.correlations import correlation_draws
from ..evaluation.metrics import Interval, interval, intervals, resamples
from ..probing.settings import UNCOUNTED
from ..probing.table import Labels, counted_table, question_folds
from ..rows.records import labelled_pairs, read_records
from ..runs.manifest import Manifest
from ..score_tokens.weights import Array, TuningConfig, ten_scores, tune

logger = logging.getLogger(__name__)

STAGE = "lager_table"
BOOTSTRAPS = 1000
E_SCORE = "e_score"
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
        logits: JSON of a model's logits on scored prompts, or layer_logits.safetensors of the compare stage.
        output: Folder for results.json and table.md.
        validation: The same JSON of the prompts to tune the layer weights on; without it there are no tuned scores.
        pairs: The labelled rows that the comparison's logits are of.
        aspect: Which of their aspects.
        scores: The scale, ascending: what each logit stands for.
        layers: Which states are summed: all, or without_last as in the published code.
        tuning: How weights are tuned.
        folds: Of labelled pairs, by question, for tuned weights.
        seed: Of the folds and of the intervals' resamples.
    """

    logits: str
    output: str
    validation: str | None = None
    pairs: str | None = None
    aspect: str | None = None
    scores: tuple[int, ...] = (1, 2, 3, 4, 5)
    layers: Literal["all", "without_last"] = "without_last"
    tuning: TuningConfig = field(default_factory=TuningConfig)
    folds: int = 5
    seed: int = 731

    def __post_init__(self) -> None:
        """Refuse pairs without their aspect, and two ways to tune.

        Raises:
            SettingsError: There is one without the other, or both.
        """
        if (self.pairs is None) != (self.aspect is None) or (self.pairs and self.validation):
            raise SettingsError("pairs and aspect expect to be given together, and without a validation file.")


class ScoredLogits(NamedTuple):
    """Logits of scored rows.

    Attributes:
        values: (rows, layers, scores).
        truth: (rows,) the scores that people gave.
        n_null: How many rows are left out, since the model wrote no score.
        labels: The rows as a table, where they are labelled pairs.
    """

    values: Array
    truth: Array
    n_null: int = 0
    labels: Labels | None = None


def run(config: Config) -> None:
    """Run the stage.

    Raises:
        DataFileError: A file is no such list, or holds scores outside the scale.
        SettingsError: The two files are of models of different depth.
    """
    output = Path(config.output)
    manifest = Manifest.of(STAGE, config, (config.logits, config.validation, config.pairs))
    if manifest.is_done(output):
        return
    rows = _of_pairs(config) if config.pairs else read_logits(config.logits, len(config.scores))
    found, weights = _ten_scores(config, rows)
    levels, last = np.array(config.scores, dtype=float), rows.values[:, -1:]
    alone = ten_scores(last, dict.fromkeys(("logits", "probabilities"), np.ones(1)), levels)
    found |= {name: score for name, score in alone.items() if name.startswith("last")}
    is_tuned = weights is not None or rows.labels is not None
    chosen = {name: found[ours] for name, ours in PUBLISHED_NAMES.items() if is_tuned or "tuned" not in ours}
    told = _measured(chosen, rows, config.seed)
    unit = "rows" if rows.labels is None else "questions"
    results: dict[str, Any] = {"n": len(rows.truth), "n_null": rows.n_null, "scores": told}
    results |= {"layer_weights": None if weights is None else weights.round(6).tolist()}
    results |= {"intervals": f"95 %, percentile, {BOOTSTRAPS} resamples of {unit}"}
    output.mkdir(parents=True, exist_ok=True)
    files = [output / "results.json", output / "table.md"]
    write_atomically(files[0], json_text(results))
    write_atomically(files[1], _table(told))
    manifest.write(output, files)
    logger.info("%d rows, %d without a score:\n%s", len(rows.truth), rows.n_null, _table(told))


def _measured(scores: Mapping[str, Array], rows: ScoredLogits, seed: int) -> dict[str, Any]:
    """Correlate each of the scores with the truth, and with it the paired difference from E-Score's correlation."""
    groups = np.arange(len(rows.truth)).astype(str) if rows.labels is None else rows.labels.question
    weights = resamples(groups, BOOTSTRAPS, seed).weights(groups)
    draws = {name: correlation_draws(rows.truth, own, weights) for name, own in scores.items()}
    base = draws[E_SCORE]
    over = {
        name: {metric: interval(own[metric] - base[metric]) for metric in own}
        for name, own in draws.items()
        if name != E_SCORE
    }
    told = {name: {"over_e_score": own} for name, own in over.items()}
    return {name: {**intervals(own), **told.get(name, {})} for name, own in draws.items()}


def _ten_scores(config: Config, rows: ScoredLogits) -> tuple[dict[str, Array], Array | None]:
    """Compute the scores that sum over layers, and return the weights where one set of them serves all rows."""
    levels = np.array(config.scores, dtype=float)
    summed = rows.values[:, :-1] if config.layers == "without_last" else rows.values
    kinds = ("logits", "probabilities")
    if rows.labels is None:
        weights = _tuned(config, summed.shape[1], levels) if config.validation else None
        own = np.full(summed.shape[1], 1 / summed.shape[1]) if weights is None else weights
        return ten_scores(summed, dict.fromkeys(kinds, own), levels), weights
    found: dict[str, Array] = {}
    for fit, out in question_folds(rows.labels, config.folds, config.seed):
        own = tune(summed[fit], rows.truth[fit], levels, "logits", config.tuning)
        for name, score in ten_scores(summed[out], dict.fromkeys(kinds, own), levels).items():
            found.setdefault(name, np.full(len(rows.truth), np.nan))[out] = score
    return found, None


def _of_pairs(config: Config) -> ScoredLogits:
    """Read the logits of labelled pairs that a comparison has kept.

    Raises:
        DataFileError: The pairs have no such aspect, or the file holds others.
    """
    pairs = labelled_pairs(read_records(str(config.pairs), ("id", "question", "prediction")), unlabelled=True)
    table = counted_table(pairs, UNCOUNTED)
    if config.aspect not in table.names:
        raise DataFileError(f"{config.pairs} expects labels of {config.aspect!r}, but has {', '.join(table.names)}.")
    labels = table.take(np.flatnonzero(table.aspect == table.names.index(str(config.aspect))))
    try:
        with safe_open(config.logits, framework="numpy") as file:
            values = np.asarray(file.get_tensor(str(config.aspect)), dtype=float)
    except (SafetensorError, OSError) as error:
        raise DataFileError(
            f"{config.logits} expects a comparison's score-token logits of {config.aspect}, but: {error}."
        ) from error
    if values.shape[0] != len(labels.score) or values.shape[2] != len(config.scores):
        raise DataFileError(
            f"{config.logits} expects logits of {len(labels.score)} labels on {len(config.scores)} scores, but has "
            f"{values.shape[0]} on {values.shape[2]}. Name the same pairs, and the scale as scores."
        )
    return ScoredLogits(values, labels.score.astype(float), labels=labels)


def read_logits(path: str, n_scores: int) -> ScoredLogits:
    """Read a file of logits.

    Args:
        path: The file.
        n_scores: Scores of the scale.

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
    return ScoredLogits(values, np.array([score for _, score in known], dtype=float), len(rows) - len(known))


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
    values, truth, *_ = read_logits(str(config.validation), len(config.scores))
    summed = values[:, :-1] if config.layers == "without_last" else values
    if summed.shape[1] != n_layers:
        raise SettingsError(
            f"validation expects the same model as logits, of {n_layers} layers that are summed, but has "
            f"{summed.shape[1]}."
        )
    return tune(summed, truth, levels, "logits", config.tuning)


def _table(told: dict[str, Any]) -> str:
    metrics = ("spearman", "pearson", "kendall")
    header = [*metrics, *(f"{metric} over {E_SCORE}" for metric in metrics)]
    lines = [f"| score | {' | '.join(header)} |", "|---" * (len(header) + 1) + "|"]
    for name, found in told.items():
        over = found.get("over_e_score", {})
        cells = [_cell(found[metric]) for metric in metrics]
        cells += [_cell(over[metric], "+") if over else "" for metric in metrics]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _cell(found: Interval, sign: str = "") -> str:
    value, low, high = (found[key] for key in ("value", "low", "high"))
    if value is None or low is None or high is None:
        return "-"
    return f"{value:{sign}.3f} ({low:{sign}.3f} to {high:{sign}.3f})"
