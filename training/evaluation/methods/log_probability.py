"""How likely a backbone finds a response: the mean log-probability of its tokens, which anybody would try first."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import nn
from transformers import AutoTokenizer
from transformers.utils import logging as hf_logging

from inspector_pipeline.backbone import backbone_location, load_backbone
from inspector_pipeline.batches import collate, plan_batches
from inspector_pipeline.encoded import EncodedPair
from inspector_pipeline.pair_tokenizer import PairTokenizer
from inspector_pipeline.template import PairTemplate
from inspector_pipeline.wheel_backbone import EMBEDDED_BACKBONE_ID, EMBEDDED_BACKBONE_REVISION

from ...probing.table import Array
from ...rows.records import LabelledPair
from ...score_tokens.logits import load_unembedding
from ..cost import Cost, mean_tokens, pass_flops, seconds_each
from ..metrics import Predictions
from ..pair_classifier import device_of_baselines
from .fitting import fitted_both, predictions_of
from .text import TextMethod

NAME = "log_probability"
TOKENS_AT_ONCE = 512  # whose logits, one for each entry of the vocabulary, are held


@dataclass(frozen=True)
class LogProbabilityConfig:
    """A backbone that says how likely a response is.

    Attributes:
        backbone_id: Hub id, folder, `pypi:` or `gguf:` id.
        backbone_revision: Its revision.
        dtype: In which it computes.
        max_length: Upper bound on the tokens of a pair.
    """

    backbone_id: str = EMBEDDED_BACKBONE_ID
    backbone_revision: str | None = EMBEDDED_BACKBONE_REVISION
    dtype: Literal["float32", "bfloat16"] = "float32"
    max_length: int = 2048


class Likelihood:
    """Reads mean log-probabilities with a whole backbone, in the chat reading.

    Args:
        config: Which backbone, and how.

    Raises:
        BackboneError: It cannot be loaded, or its logits are no linear map of its states.
    """

    def __init__(self, config: LogProbabilityConfig) -> None:
        """Load the backbone with its unembedding."""
        named, self.device = (config.backbone_id, config.backbone_revision), device_of_baselines()
        location, pinned = backbone_location(*named, None)
        tokenizer = AutoTokenizer.from_pretrained(location, **pinned)
        self.encode = PairTokenizer(PairTemplate.from_chat_template(tokenizer), tokenizer, config.max_length)
        dtype = getattr(torch, config.dtype)
        self.backbone = load_backbone(*named, None, dtype=dtype).to(self.device).eval()
        weight, bias = load_unembedding(*named)
        self.weight, self.bias = weight.to(self.device, dtype), bias.to(self.device, torch.float32)

    def encoded(self, pairs: Sequence[LabelledPair]) -> list[EncodedPair]:
        """Tokenise pairs."""
        return [self.encode(**pair.texts) for pair in pairs]

    def __call__(self, encoded: Sequence[EncodedPair]) -> Array:
        """Return each pair's mean log-probability of a token of the response given all before it, in nats, (pairs,)."""
        found = np.zeros(len(encoded))
        for batch in hf_logging.tqdm(plan_batches([len(pair.input_ids) for pair in encoded]), desc=NAME, unit="pass"):
            inputs = {name: x.to(self.device) for name, x in collate([encoded[i] for i in batch], pad_id=0).items()}
            with torch.inference_mode():
                ids, mask = inputs["input_ids"], inputs["attention_mask"]
                states = self.backbone(input_ids=ids, attention_mask=mask, use_cache=False).last_hidden_state[:, :-1]
                told = inputs["response_mask"][:, 1:].bool()  # each by the state of the token before it
                chunks = zip(*(torch.split(x[told], TOKENS_AT_ONCE) for x in (states, ids[:, 1:])), strict=True)
                values = torch.cat([self._of_tokens(*chunk) for chunk in chunks])
                sums = torch.zeros(len(batch), device=self.device)
                sums.index_add_(0, told.nonzero()[:, 0], values)
                found[batch] = (sums / told.sum(dim=1)).double().cpu().numpy()
        return found

    def _of_tokens(self, states: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
        """Return float32 (tokens,) log-probabilities of ids, (tokens,), by the states before them, (tokens, hidden)."""
        logits = nn.functional.linear(states, self.weight).float() + self.bias
        return logits.gather(1, ids[:, None])[:, 0] - logits.logsumexp(dim=1)


class LogProbability:
    """A logistic regression on one number of each pair: which way and how far likely responses are good ones.

    Args:
        value: What gives the number.
        description: What it is, in a few words.
    """

    name = NAME

    def __init__(self, value: Callable[[LabelledPair], float], description: str) -> None:
        """Keep what gives the number."""
        self.value, self.description = value, description

    def predict(
        self,
        train_pairs: Sequence[LabelledPair],
        train_scores: NDArray[Any],
        test_pairs: Sequence[LabelledPair],
        classes: list[Any],
        seed: int,
    ) -> Predictions:
        """Predict as `Majority.predict` says."""
        train, test = (np.array([[self.value(pair)] for pair in own]) for own in (train_pairs, test_pairs))
        model = make_pipeline(StandardScaler(), LogisticRegression())
        return predictions_of(*fitted_both(model, train, train_scores, test, classes), classes)


class LogProbabilityMethod(TextMethod):
    """The same as a method: all pairs are read once, in the first fit.

    Args:
        config: Which backbone reads them.
        pairs: All pairs.
        seed: Of the method's fits, which have no chance in them.
        sample: Number of pairs that are timed.
    """

    def __init__(self, config: LogProbabilityConfig, pairs: Sequence[LabelledPair], seed: int, sample: int) -> None:
        """Keep the pairs; nothing is loaded yet."""
        self.config, self.sample = config, sample
        description = "a logistic regression on the mean log-probability of the response's tokens by the whole backbone"
        super().__init__(LogProbability(lambda pair: self._values[id(pair)], description), pairs, seed)

    @cached_property
    def _values(self) -> dict[int, float]:
        read = Likelihood(self.config)
        values = read(read.encoded(self.pairs)).tolist()
        return {id(pair): value for pair, value in zip(self.pairs, values, strict=True)}

    def cost(self, _notes: Mapping[str, Any]) -> Cost:
        """Time reading a sample of pairs."""
        read, sample = Likelihood(self.config), self.pairs[: self.sample]
        encoded = read.encoded(sample)
        seconds = seconds_each(lambda: read(read.encoded(sample)), len(sample))
        unembedded = 2 * read.weight.numel() * float(np.mean([pair.response.size for pair in encoded]))
        flops = pass_flops(read.backbone.config, mean_tokens(encoded)) + unembedded
        tied = getattr(read.backbone.config, "tie_word_embeddings", False)
        n_parameters = sum(parameter.numel() for parameter in read.backbone.parameters())
        return Cost(seconds, flops, n_parameters + (0 if tied else read.weight.numel()))
