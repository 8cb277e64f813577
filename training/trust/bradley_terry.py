"""Bradley-Terry strengths of systems that answered the same prompts, of which the higher scored answer wins.

The difference of two strengths is the log odds that the one wins against the other at a prompt. Prompts are drawn
whole, so the covariance is that of prompts' contributions (a sandwich), not of comparisons; but at least that of
the model, since prompts that all end alike would say that there is no doubt at all.
"""

import numpy as np
from scipy.special import expit

from ..evaluation.metrics import Array

PRIOR = 1.0  # a tie of every two systems, as one more prompt: without it, who always wins has no strength
_STEPS, _ENOUGH = 100, 1e-10


def strengths(values: Array) -> tuple[Array, Array]:
    """Fit strengths by maximum likelihood; a tie counts half a win for either.

    Args:
        values: (prompts, k) scores.

    Returns:
        (k,) strengths, which add up to 0; and (prompts + k, k), how much each prompt moved them, and what the model
        adds: the covariance is that of the columns' products.
    """
    n, k = values.shape
    won = _won(values)
    strength = _likeliest(won)
    odds = expit(strength[:, None] - strength)
    scores = ((won - odds) * (1 - np.eye(k))).sum(axis=2)
    of_model = _inverse_information(odds, n)
    influence = (scores - scores.mean(axis=0)) @ of_model * np.sqrt(n / (n - 1))
    lacking, directions = np.linalg.eigh(of_model - influence.T @ influence)
    added = np.sqrt(np.maximum(lacking, 0.0))[:, None] * directions.T
    return strength - strength.mean(), np.concatenate([influence, added])


def _won(values: Array) -> Array:
    """Return who won at each prompt, (prompts, k, k): 1 where the first system did, half for a tie."""
    above = values[:, :, None] - values[:, None, :]
    return np.asarray((above > 0) + (above == 0) / 2)


def _likeliest(won: Array) -> Array:
    """Return the likeliest strengths (k,) by Newton's steps; where they lie as a whole is left open."""
    n, k, _ = won.shape
    prior = (1 - np.eye(k)) / 2 * PRIOR
    total = won.sum(axis=0) * (1 - np.eye(k)) + prior
    strength = np.zeros(k)
    for _ in range(_STEPS):
        odds = expit(strength[:, None] - strength)
        gradient = (total - (n + PRIOR) * odds * (1 - np.eye(k))).sum(axis=1)
        step = _inverse_information(odds, n) @ gradient
        strength = strength + step
        if np.abs(step).max() < _ENOUGH:
            break
    return strength


def _inverse_information(odds: Array, n: int) -> Array:
    """Return the inverse of the information, where strengths add up to 0."""
    weights = (n + PRIOR) * odds * (1 - odds)
    np.fill_diagonal(weights, 0.0)
    return np.asarray(np.linalg.pinv(np.diag(weights.sum(axis=1)) - weights, hermitian=True))


def shifts(values: Array, sd: float, unmoved: Array) -> Array:
    """Say how strengths move where the judge adds its error to all answers of one system.

    Args:
        values: (prompts, k) scores.
        sd: The error, on their scale.
        unmoved: (k,) the strengths by these scores.

    Returns:
        (k, k), a row for each system.
    """
    moved = (_likeliest(_won(values + sd * one)) for one in np.eye(values.shape[1]))
    return np.stack([strength - strength.mean() - unmoved for strength in moved])
