"""Decision rules: from a probe's decision values to a class and probabilities. Pure tensor functions.

Score and probabilities of a rule may come from different computations, as they do in scikit-learn; each rule says so.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor

_COUPLING_MAX_ITER = 100
_MIN_PAIR_PROBABILITY = 1e-7


class Decision(NamedTuple):
    """What a rule makes of decision values.

    Attributes:
        class_index: int64 (batch,), the position of the predicted class.
        probabilities: float32 (batch, classes), each row summing to 1.
    """

    class_index: Tensor
    probabilities: Tensor


def decide_logistic(decision_values: Tensor) -> Decision:
    """Decide as scikit-learn's LogisticRegression: softmax, and the class of the largest decision value.

    Args:
        decision_values: float32 (batch, classes), or (batch, 1) for two classes, positive for the second.
    """
    if decision_values.shape[1] == 1:
        probabilities = torch.cat([torch.sigmoid(-decision_values), torch.sigmoid(decision_values)], dim=1)
        return Decision((decision_values[:, 0] > 0).long(), probabilities)
    return Decision(decision_values.argmax(dim=1), decision_values.softmax(dim=1))


def decide_one_vs_rest(decision_values: Tensor) -> Decision:
    """Decide as one-vs-rest logistic regression: the largest decision value; sigmoids, divided by their sum.

    Args:
        decision_values: float32 (batch, classes), three classes or more.
    """
    return Decision(decision_values.argmax(dim=1), _divided_by_sum(torch.sigmoid(decision_values)))


def decide_margin(decision_values: Tensor) -> Decision:
    """Decide by the largest margin, as LinearSVC and RidgeClassifier do, which know no probabilities.

    The predicted class gets probability 1, so that the expected score is the score.

    Args:
        decision_values: float32 (batch, classes), or (batch, 1) for two classes, positive for the second.
    """
    return _certain(decide_logistic(decision_values).class_index, max(2, decision_values.shape[1]))


def decide_ordinal(decision_values: Tensor, thresholds: Tensor, cuts: Tensor) -> Decision:
    """Decide along one ordered axis: the score by cuts, the probabilities by a cumulative logit model (McCullagh 1980).

    The score is the number of cuts passed. P(class > k) = sigmoid(value - threshold_k). The two differ: where a probe
    knows little, every row's most probable score is a middle one, while cuts can be laid so that each score is given
    as often as it was observed.

    Args:
        decision_values: float32 (batch, 1).
        thresholds: float32 (classes - 1,), ascending.
        cuts: float32 (classes - 1,), ascending.
    """
    exceed = torch.sigmoid(decision_values - thresholds)
    return Decision((decision_values > cuts).sum(dim=1), level_shares(exceed))


def level_shares(exceed: Tensor) -> Tensor:
    """Return the probability of each class, (batch, classes), from those of exceeding each, (batch, classes - 1)."""
    edge = torch.ones_like(exceed[:, :1])
    probabilities = torch.cat([edge, exceed], dim=1) - torch.cat([exceed, torch.zeros_like(edge)], dim=1)
    return probabilities.clamp_min(0.0)


def decide_regression(decision_values: Tensor, levels: Tensor) -> Decision:
    """Decide by the class nearest to a predicted score, as rounding a regression does.

    The probability is shared between the two classes beside the prediction so that the expected score is the
    prediction, held within the lowest and the highest class. A prediction halfway goes to the higher class.

    Args:
        decision_values: float32 (batch, 1), predicted scores.
        levels: float32 (classes,), the classes, ascending.
    """
    value = decision_values.clamp(levels[0], levels[-1])
    upper = (value >= levels[1:-1]).sum(dim=1) + 1
    low, high = levels[upper - 1], levels[upper]
    share = ((value[:, 0] - low) / (high - low)).unsqueeze(1)
    probabilities = torch.zeros(len(value), len(levels), device=value.device)
    probabilities.scatter_(1, torch.stack([upper - 1, upper], dim=1), torch.cat([1 - share, share], dim=1))
    return Decision(upper - (share[:, 0] < 0.5).long(), probabilities)


def decide_votes(decision_values: Tensor, platt_a: Tensor, platt_b: Tensor) -> Decision:
    """Decide as libsvm does: one vote per pair of classes; probabilities by Platt scaling and pairwise coupling.

    Votes and probabilities are two computations and differ often; the votes are the score. The probabilities are
    computed in float64 on the CPU.

    Args:
        decision_values: float32 (batch, pairs), pairs in the order (0, 1), (0, 2), ..., positive for the pair's first.
        platt_a: float32 (pairs,), libsvm's probA.
        platt_b: float32 (pairs,), libsvm's probB.
    """
    votes = count_votes(decision_values)
    n_classes = votes.shape[1]
    first, second = torch.triu_indices(n_classes, n_classes, offset=1)
    values, a, b = (tensor.detach().to("cpu", torch.float64) for tensor in (decision_values, platt_a, platt_b))
    pair_probability = torch.sigmoid(-(values * a + b)).clamp(_MIN_PAIR_PROBABILITY, 1 - _MIN_PAIR_PROBABILITY)
    r = values.new_zeros(values.shape[0], n_classes, n_classes)
    r[:, first, second] = pair_probability
    r[:, second, first] = 1 - pair_probability
    coupled = couple_pairwise(r).to(decision_values.device, torch.float32)
    return Decision(votes.argmax(dim=1), coupled)


def decide_hard_votes(decision_values: Tensor) -> Decision:
    """Decide by one-vs-one votes without probabilities: the predicted class gets probability 1.

    Args:
        decision_values: float32 (batch, pairs), as in `decide_votes`.
    """
    votes = count_votes(decision_values)
    return _certain(votes.argmax(dim=1), votes.shape[1])


def decide_calibrated(decision_values: Tensor, slope: Tensor, offset: Tensor, n_classes: int) -> Decision:
    """Decide as CalibratedClassifierCV with sigmoids: the most probable class, averaged over its members.

    Args:
        decision_values: float32 (batch, members x classes), or (batch, members) for two classes.
        slope: float32, one per decision value; P = sigmoid(-(slope * value + offset)).
        offset: float32, one per decision value.
        n_classes: Number of classes.
    """
    sigmoids = torch.sigmoid(-(decision_values * slope + offset))
    if n_classes == 2:
        positive = sigmoids.mean(dim=1, keepdim=True)
        probabilities = torch.cat([1 - positive, positive], dim=1)
    else:
        probabilities = _divided_by_sum(sigmoids.reshape(len(sigmoids), -1, n_classes)).mean(dim=1)
    return Decision(probabilities.argmax(dim=1), probabilities)


def decide_calibrated_votes(decision_values: Tensor, slope: Tensor, offset: Tensor, n_classes: int) -> Decision:
    """Decide as CalibratedClassifierCV around SVC: sigmoids of votes that carry their confidences, averaged.

    Args:
        decision_values: float32 (batch, members x pairs), as in `decide_votes`; three classes or more.
        slope: float32 (members x classes,).
        offset: float32 (members x classes,).
        n_classes: Number of classes.
    """
    values = decision_values.reshape(len(decision_values), -1, _pairs(n_classes))
    members = [_votes_with_confidence(member) for member in values.unbind(dim=1)]
    return decide_calibrated(torch.cat(members, dim=1), slope, offset, n_classes)


def count_votes(decision_values: Tensor) -> Tensor:
    """Count one-vs-one votes; their argmax breaks a tie for the lower class, as libsvm does.

    Args:
        decision_values: float32 (batch, pairs), pairs in the order (0, 1), (0, 2), ..., positive for the pair's first.

    Returns:
        int64 (batch, classes).
    """
    n_classes = int((1 + (1 + 8 * decision_values.shape[1]) ** 0.5) / 2)
    first, second = torch.triu_indices(n_classes, n_classes, offset=1, device=decision_values.device)
    winner = torch.where(decision_values > 0, first, second)
    return torch.nn.functional.one_hot(winner, n_classes).sum(dim=1)


def _votes_with_confidence(decision_values: Tensor) -> Tensor:
    """Add to each class's votes its summed decision values, squeezed under a third, as scikit-learn's SVC does."""
    votes = count_votes(decision_values)
    n_classes = votes.shape[1]
    first, second = torch.triu_indices(n_classes, n_classes, offset=1, device=decision_values.device)
    summed = torch.zeros(votes.shape, device=decision_values.device)
    summed = summed.index_add(1, first, decision_values).index_add(1, second, -decision_values)
    return votes + summed / (3 * (summed.abs() + 1))


def _certain(class_index: Tensor, n_classes: int) -> Decision:
    return Decision(class_index, torch.nn.functional.one_hot(class_index, n_classes).float())


def _divided_by_sum(sigmoids: Tensor) -> Tensor:
    """Divide by the sum over the last axis; rows that are all zero become uniform."""
    total = sigmoids.sum(dim=-1, keepdim=True)
    return torch.where(total > 0, sigmoids / total, 1.0 / sigmoids.shape[-1])


def couple_pairwise(r: Tensor) -> Tensor:
    """Couple pairwise probabilities, by the second method of Wu, Lin and Weng (JMLR 2004) as libsvm iterates it.

    Args:
        r: float64 (batch, classes, classes), r[:, i, j] = P(i | i or j), zero on the diagonal.

    Returns:
        float64 (batch, classes). Each row stops by itself once its largest error is under 0.005 / classes, so a row
        does not depend on the batch.
    """
    k = r.shape[1]
    q = -r.transpose(1, 2) * r
    q.diagonal(dim1=1, dim2=2).copy_((r**2).sum(dim=1))
    p = torch.full_like(r[:, 0], 1.0 / k)
    qp = torch.einsum("bij,bj->bi", q, p)
    pqp = (p * qp).sum(dim=1)
    active = torch.ones_like(pqp, dtype=torch.bool)
    for _ in range(max(_COUPLING_MAX_ITER, k)):
        qp = torch.where(active[:, None], torch.einsum("bij,bj->bi", q, p), qp)
        pqp = torch.where(active, (p * qp).sum(dim=1), pqp)
        active = active & ((qp - pqp[:, None]).abs().amax(dim=1) >= 0.005 / k)
        if not active.any():
            break
        for t in range(k):
            diff = torch.where(active, (pqp - qp[:, t]) / q[:, t, t], torch.zeros_like(pqp))
            step = diff[:, None]
            p = p.clone()
            p[:, t] += diff
            pqp = (pqp + diff * (diff * q[:, t, t] + 2 * qp[:, t])) / (1 + diff) ** 2
            qp = (qp + step * q[:, t, :]) / (1 + step)
            p = p / (1 + step)
    return p


def _one_or_all(n_classes: int) -> int:
    return 1 if n_classes == 2 else n_classes


def _pairs(n_classes: int) -> int:
    return n_classes * (n_classes - 1) // 2


@dataclass(frozen=True)
class Rule:
    """A decision rule and the sizes that it needs.

    Attributes:
        decide: (decision_values, **parameters) -> Decision.
        n_values: Number of classes -> decision values of one member.
        parameters: Name -> (number of classes -> size for one member) of what it needs beside the decision values.
        takes_members: Whether it averages several members, each with values and parameters of its own.
    """

    decide: Callable[..., Decision]
    n_values: Callable[[int], int]
    parameters: dict[str, Callable[[int], int]] = field(default_factory=dict)
    takes_members: bool = False


PREFERENCE = (
    "preference"  # a Bradley-Terry score: what is expected is the decision value, whose differences are log odds
)

RULES = {
    "logistic": Rule(decide_logistic, _one_or_all),
    "one_vs_rest": Rule(decide_one_vs_rest, lambda n: n),
    "margin": Rule(decide_margin, _one_or_all),
    "ordinal": Rule(decide_ordinal, lambda n: 1, {"thresholds": lambda n: n - 1, "cuts": lambda n: n - 1}),
    "regression": Rule(decide_regression, lambda n: 1, {"levels": lambda n: n}),
    "votes": Rule(decide_votes, _pairs, {"platt_a": _pairs, "platt_b": _pairs}),
    "hard_votes": Rule(decide_hard_votes, _pairs),
    "calibrated": Rule(decide_calibrated, _one_or_all, {"slope": _one_or_all, "offset": _one_or_all}, True),
    "calibrated_votes": Rule(decide_calibrated_votes, _pairs, {"slope": lambda n: n, "offset": lambda n: n}, True),
    PREFERENCE: Rule(decide_logistic, lambda n: 1),
}
