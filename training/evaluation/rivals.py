"""What a judge's own backbone says of each piece of a response with no judge: rivals of a judge's highlights."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from inspector_pipeline.backbone import load_backbone
from inspector_pipeline.explain import RESPONSE
from inspector_pipeline.pipeline_inspector import InspectorPipeline

from ..features.attention_weights import reduced_weights
from ..score_tokens.logits import load_unembedding

SURPRISAL, ATTENTION = "surprisal", "attention"


class Rivals:
    """Reads surprisal and attention, in one pass of the whole backbone that a judge was cut from.

    Args:
        judge: A loaded judge; pairs are read as its first reading writes them.
    """

    def __init__(self, judge: InspectorPipeline) -> None:
        """Load the backbone with all its layers, its final norm and its unembedding."""
        config = judge.model.config
        self.encoder = next(iter(judge.encode.encoders.values()))
        self.device = judge.device
        backbone = load_backbone(
            config.backbone_id, config.backbone_revision, None, dtype=torch.float32, attn_implementation="eager"
        )
        self.backbone = backbone.to(self.device)
        head = load_unembedding(config.backbone_id, config.backbone_revision)
        self.weight, self.bias = (part.float().to(self.device) for part in head)

    def __call__(
        self, question: str, response: str, pieces: Sequence[tuple[str, Any]]
    ) -> dict[str, NDArray[np.float64]]:
        """Sum what is read over each piece of a response.

        Args:
            question: The question.
            response: The response.
            pieces: That joined are the response.

        Returns:
            Rival -> (pieces,); tokens count to the piece that holds their last character. 0 where nothing was read.
        """
        encoded = self.encoder(question, response, keep_places=True)
        places = encoded.places.of_tokens if encoded.places is not None else []
        ends = np.cumsum([len(text) for text, _ in pieces])
        of_response = [i for i, at in enumerate(places) if at.part == RESPONSE and at.end > at.start]
        held_by = np.searchsorted(ends, [places[i].end for i in of_response])
        found = {}
        for name, values in self.of_tokens(question, response).items():
            summed = np.bincount(held_by, np.array(values)[of_response], minlength=len(pieces))
            found[name] = summed.astype(np.float64)
        return found

    def of_tokens(self, question: str, response: str) -> dict[str, list[float]]:
        """Read each token of an encoded pair.

        Returns:
            `surprisal`, its negative log probability given those before it, in nats, 0 for the first; and `attention`,
            how much of its attention the pair's last token gives it, on average over layers and heads.
        """
        ids = torch.tensor([self.encoder(question, response).input_ids], device=self.device)
        with torch.inference_mode(), reduced_weights(self.backbone, _of_last) as attention:
            states = self.backbone(ids, use_cache=False).last_hidden_state[0, :-1].float()
            log_probabilities = torch.log_softmax(states @ self.weight.T + self.bias, dim=1)
            told: list[float] = (-log_probabilities.gather(1, ids[0, 1:, None])[:, 0]).tolist()
        return {SURPRISAL: [0.0, *told], ATTENTION: torch.stack(list(attention.values())).mean(dim=0)[0].tolist()}


def _of_last(weights: Tensor) -> Tensor:
    """Average the last token's attention over the heads: (batch, k) of (batch, heads, q, k)."""
    return weights[:, :, -1].float().mean(dim=1)
