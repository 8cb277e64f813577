"""Ported probes beside scikit-learn, over rows that reach every class and come near every boundary.

Rows are drawn from the scaler's mean and scale, moved along the coefficients until every class holds at least 5 % of
the predictions, and, between rows of different classes, bisected towards the boundary. Rows whose smallest margin is
under 1e-4 are counted apart: there float32 and float64 may rightly differ.
"""

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from inspector_pipeline.errors import DataFileError
from inspector_pipeline.heads import LinearProbe

from .build import Array, ProbeWeights
from .port import port

N_SPREAD = 2000
N_BOUNDARY = 400
MIN_SHARE = 0.05
CLEAR_MARGIN = 1e-4
STRENGTHS = (0.0, 1.0, 3.0, 10.0, 30.0, 100.0)


@dataclass(frozen=True)
class PortReport:
    """One classifier against its port.

    Attributes:
        rule: The port's.
        rows: Rows compared.
        smallest_share: Of the rarest predicted class.
        mismatches: Predictions that differ among rows with a clear margin.
        unclear: Rows with a margin under 1e-4.
        decision_error: Largest difference of decision values, relative to 1 + their size.
        probability_error: Largest difference of probabilities; None where scikit-learn gives none.
    """

    rule: str
    rows: int
    smallest_share: float
    mismatches: int
    unclear: int
    decision_error: float
    probability_error: float | None


def compare(estimator: Any, seed: int = 0) -> PortReport:
    """Compare an estimator with its port.

    Args:
        estimator: A fitted classifier, see `port`.
        seed: Of the rows.
    """
    probe = port(estimator)
    rows = make_rows(estimator, probe, seed)
    decision_values, class_index, probabilities = run_probe(probe, rows)
    exact = rows.astype(np.float64)
    expected = np.asarray(estimator.predict(exact))
    truth = (exact - probe.center) @ probe.weight.T + probe.bias
    clear = margins(probe, truth) > CLEAR_MARGIN
    different = np.array(probe.classes)[class_index] != expected
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # predict_proba of SVC goes away; files that have it stay
        proba = estimator.predict_proba(exact) if hasattr(estimator, "predict_proba") else None
    return PortReport(
        rule=probe.rule,
        rows=len(rows),
        smallest_share=float(min((expected == c).mean() for c in probe.classes)),
        mismatches=int((different & clear).sum()),
        unclear=int((~clear).sum()),
        decision_error=float((np.abs(decision_values - truth) / (1 + np.abs(truth))).max()),
        probability_error=None if proba is None else float(np.abs(probabilities - proba).max()),
    )


def make_rows(estimator: Any, probe: ProbeWeights, seed: int) -> NDArray[np.float32]:
    """Draw rows that reach every class and come near every boundary, (rows, features).

    Raises:
        DataFileError: Some class is never predicted, however far rows are moved.
    """
    rng = np.random.default_rng(seed)
    scale = _scale(estimator, len(probe.center))
    # Each moves one decision value, in units of scale.
    directions = np.linalg.pinv(probe.weight * scale, rcond=1e-6)
    found: dict[int, list[Array]] = {c: [] for c in probe.classes}
    wanted = N_SPREAD // len(probe.classes)
    for strength in STRENGTHS * 4:
        noise = rng.normal(size=(N_SPREAD, len(scale))) * scale
        towards = rng.normal(size=(N_SPREAD, len(probe.bias))) * strength - (strength > 0) * probe.bias
        pool = (probe.center + noise + (towards @ directions.T) * scale).astype(np.float32)
        predicted = np.asarray(estimator.predict(pool.astype(np.float64)))
        for c in probe.classes:
            found[c] += list(pool[predicted == c][: max(0, wanted - len(found[c]))])
        if all(len(rows) >= wanted for rows in found.values()):
            break
    short = [c for c, rows in found.items() if len(rows) < MIN_SHARE * N_SPREAD]
    if short:
        raise DataFileError(f"Expected rows of every class, but none of the moves reached {short} often enough.")
    spread = np.concatenate([np.stack(rows) for rows in found.values()])
    order = rng.permutation(len(spread))
    return np.concatenate([spread[order], _bisected(estimator, spread, rng)])


def _scale(estimator: Any, n_features: int) -> Array:
    """Return the scaler's scale where there is one."""
    inner = getattr(estimator, "best_estimator_", estimator)
    for _, step in getattr(inner, "steps", []):
        if getattr(step, "scale_", None) is not None:
            return np.asarray(step.scale_, np.float64)
    return np.ones(n_features)


def _bisected(estimator: Any, rows: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:
    """Move pairs of rows with different predictions together, a different number of halvings each."""
    a, b = (rows[rng.integers(0, len(rows), 4 * N_BOUNDARY)].astype(np.float64) for _ in range(2))
    class_a, class_b = (np.asarray(estimator.predict(x)) for x in (a, b))
    keep = np.flatnonzero(class_a != class_b)[:N_BOUNDARY]
    a, b, class_a = a[keep], b[keep], class_a[keep]
    halvings = rng.integers(4, 20, len(keep))
    for step in range(int(halvings.max())):
        active = halvings > step
        middle = (a + b) / 2
        same = np.asarray(estimator.predict(middle)) == class_a
        a = np.where((active & same)[:, None], middle, a)
        b = np.where((active & ~same)[:, None], middle, b)
    return np.concatenate([a, b]).astype(np.float32)


def run_probe(probe: ProbeWeights, rows: NDArray[np.float32]) -> tuple[Array, NDArray[np.int64], Array]:
    """Run a port as a judge does, in float32: decision values, class indices and probabilities."""
    module = LinearProbe(1, len(probe.center), len(probe.classes), probe.rule, probe.members)
    center = torch.tensor(probe.center, dtype=torch.float32)
    bias = probe.bias + probe.weight @ (center.double().numpy() - probe.center)
    for name, values in {"weight": probe.weight[:, None], "bias": bias, **probe.parameters}.items():
        module.get_parameter(name).data = torch.tensor(np.asarray(values), dtype=torch.float32)
    values = module((torch.from_numpy(rows) - center)[:, None])
    decision = module.decide(values)
    return values.double().numpy(), decision.class_index.numpy(), decision.probabilities.double().numpy()


def margins(probe: ProbeWeights, decision_values: Array) -> Array:
    """Return how far each row's decision is from another, (rows,)."""
    if probe.rule in ("votes", "hard_votes", "calibrated_votes") or decision_values.shape[1] == 1:
        return np.asarray(np.abs(decision_values).min(axis=1))
    top = np.sort(decision_values, axis=1)
    return np.asarray(top[:, -1] - top[:, -2])
