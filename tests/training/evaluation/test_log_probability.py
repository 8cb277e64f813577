"""Mean log-probabilities of responses, against those of the whole causal model, and what a fit makes of them."""

import numpy as np
import pytest
import torch
from inspector_training.evaluation.methods import log_probability
from inspector_training.evaluation.methods.base import Fold
from inspector_training.evaluation.methods.log_probability import (
    Likelihood,
    LogProbability,
    LogProbabilityConfig,
    LogProbabilityMethod,
)
from inspector_training.probing.table import Labels
from inspector_training.rows.records import LabelledPair
from support.causal import save_causal
from transformers import AutoModelForCausalLM

PAIRS = [LabelledPair(str(i), f"What is {i}?", f"It is {'very ' * i}{i}.", {"truth": i % 2}) for i in range(12)]


@pytest.mark.parametrize("family", ["llama", "qwen3"])
def test_a_responses_tokens_are_as_likely_as_the_whole_model_says(family, tmp_path, tokenizer, monkeypatch):
    folder = str(save_causal(tmp_path / family, family, tokenizer))
    monkeypatch.setattr(log_probability, "TOKENS_AT_ONCE", 5)
    read = Likelihood(LogProbabilityConfig(folder, None))
    encoded = read.encoded(PAIRS)
    model, expected = AutoModelForCausalLM.from_pretrained(folder, dtype="float32"), []
    for pair in encoded:
        ids = torch.tensor([pair.input_ids])
        with torch.no_grad():
            told = model(ids).logits[0].log_softmax(dim=1)
        places = range(pair.response.start, pair.response.end)
        expected.append(np.mean([float(told[i - 1, ids[0, i]]) for i in places]))
    assert read(encoded) == pytest.approx(np.array(expected), abs=1e-4) and len(set(expected)) == len(PAIRS)
    halved = Likelihood(LogProbabilityConfig(folder, None, dtype="bfloat16"))(encoded)
    assert halved == pytest.approx(np.array(expected), abs=0.2)


def test_its_direction_is_fitted():
    labels = Labels.of(PAIRS, ())
    for sign in (1, -1):
        values = {pair.question: sign * (i % 2) for i, pair in enumerate(PAIRS)}
        fitted = LogProbability(lambda pair, own=values: own[pair.question], "by hand")
        found = fitted.predict(PAIRS[:8], labels.score[:8], PAIRS[8:], [0, 1], 0)
        assert (found.good > 0.5).tolist() == [False, True, False, True] == (found.score == 1).tolist()


def test_pairs_are_read_once_for_all_folds(monkeypatch):
    labels, read = Labels.of(PAIRS, ()), []

    class Counted:
        def __init__(self, config):
            read.append(config)

        def encoded(self, pairs):
            return pairs

        def __call__(self, pairs):
            return np.array([pair.scores["truth"] for pair in pairs], dtype=float)

    monkeypatch.setattr(log_probability, "Likelihood", Counted)
    method = LogProbabilityMethod(LogProbabilityConfig(), PAIRS, 0, 2)
    for n, half in enumerate((range(6), range(6, 12))):
        rest = [i for i in range(12) if i not in half]
        predict = method.fit(Fold(0, n, labels.take(np.array(rest)), labels.take(np.array(half))))
        ((rows, found),) = predict(labels.take(np.array(half)))
        assert rows.tolist() == list(half) and ((found.good > 0.5) == labels.positive[rows]).all()
    assert len(read) == 1
