"""Probes: one linear map over an aspect's centred features, and a decision rule. Pure fp32 tensor code.

Scores and probabilities of a rule may come from different computations, as they do in scikit-learn; each rule says so.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn

RULES = ("logistic", "votes", "ordinal")

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


class LinearProbe(nn.Module):
    """One aspect's probe: a linear map of its centred features to decision values, and a rule.

    Everything is float32 whatever dtype the backbone has.

    Args:
        n_features: Number of features it reads.
        hidden_size: Size of each.
        n_classes: Number of observed classes, at least 2.
        rule: One of `RULES`.
    """

    def __init__(self, n_features: int, hidden_size: int, n_classes: int, rule: str) -> None:
        """Make the parameters, zero until loaded."""
        super().__init__()
        self.rule = rule
        n_outputs = n_decision_values(rule, n_classes)
        self.weight = frozen_parameter(n_outputs, n_features, hidden_size)
        self.bias = frozen_parameter(n_outputs)
        if rule == "ordinal":
            self.thresholds = frozen_parameter(n_classes - 1)
            self.cuts = frozen_parameter(n_classes - 1)
        if rule == "votes":
            self.platt_a = frozen_parameter(n_outputs)
            self.platt_b = frozen_parameter(n_outputs)

    def forward(self, features: Tensor) -> Tensor:
        """Compute decision values.

        Args:
            features: float32 (batch, features, hidden), centred, in the config's order.

        Returns:
            float32 (batch, outputs): 1 output for two logistic classes and for ordinal, else one per class (logistic)
            or per pair of classes (votes).
        """
        with torch.autocast(self.bias.device.type, enabled=False):
            return torch.nn.functional.linear(features.flatten(1), self.weight.flatten(1), self.bias)

    def decide(self, decision_values: Tensor) -> Decision:
        """Turn decision values into classes and probabilities by this probe's rule.

        Args:
            decision_values: float32 (batch, outputs), from `forward`.

        Returns:
            The class indices and the probabilities.
        """
        if self.rule == "logistic":
            return decide_logistic(decision_values)
        if self.rule == "ordinal":
            return decide_ordinal(decision_values, self.thresholds, self.cuts)
        return decide_votes(decision_values, self.platt_a, self.platt_b)


def frozen_parameter(*shape: int) -> nn.Parameter:
    """Make a float32 parameter that is not trained, zero until loaded."""
    return nn.Parameter(torch.zeros(shape, dtype=torch.float32), requires_grad=False)


def n_decision_values(rule: str, n_classes: int) -> int:
    """Return how many decision values a rule takes for a number of classes."""
    if rule == "ordinal" or (rule == "logistic" and n_classes == 2):
        return 1
    return n_classes if rule == "logistic" else n_classes * (n_classes - 1) // 2


def decide_logistic(decision_values: Tensor) -> Decision:
    """Decide as scikit-learn's LogisticRegression: softmax, and the class of the largest decision value.

    Args:
        decision_values: float32 (batch, classes), or (batch, 1) for two classes, positive for the second.
    """
    if decision_values.shape[1] == 1:
        positive = torch.sigmoid(decision_values)
        probabilities = torch.cat([torch.sigmoid(-decision_values), positive], dim=1)
        return Decision((decision_values[:, 0] > 0).long(), probabilities)
    return Decision(decision_values.argmax(dim=1), decision_values.softmax(dim=1))


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
    edge = torch.ones_like(exceed[:, :1])
    probabilities = torch.cat([edge, exceed], dim=1) - torch.cat([exceed, torch.zeros_like(edge)], dim=1)
    return Decision((decision_values > cuts).sum(dim=1), probabilities.clamp_min(0.0))


def decide_votes(decision_values: Tensor, platt_a: Tensor, platt_b: Tensor) -> Decision:
    """Decide as libsvm does: one vote per pair of classes; probabilities by Platt scaling and pairwise coupling.

    Votes and probabilities are two computations and differ often; the votes are the score. A tie goes to the lower
    class. The probabilities are computed in float64 on the CPU.

    Args:
        decision_values: float32 (batch, pairs), pairs in the order (0, 1), (0, 2), ..., positive for the pair's first.
        platt_a: float32 (pairs,), libsvm's probA.
        platt_b: float32 (pairs,), libsvm's probB.
    """
    n_classes = int((1 + (1 + 8 * decision_values.shape[1]) ** 0.5) / 2)
    first, second = torch.triu_indices(n_classes, n_classes, offset=1)
    winner = torch.where(decision_values > 0, first.to(decision_values.device), second.to(decision_values.device))
    votes = torch.nn.functional.one_hot(winner, n_classes).sum(dim=1)
    values, a, b = (tensor.detach().to("cpu", torch.float64) for tensor in (decision_values, platt_a, platt_b))
    pair_probability = torch.sigmoid(-(values * a + b)).clamp(_MIN_PAIR_PROBABILITY, 1 - _MIN_PAIR_PROBABILITY)
    r = values.new_zeros(values.shape[0], n_classes, n_classes)
    r[:, first, second] = pair_probability
    r[:, second, first] = 1 - pair_probability
    coupled = couple_pairwise(r).to(decision_values.device, torch.float32)
    return Decision(votes.argmax(dim=1), coupled)


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
