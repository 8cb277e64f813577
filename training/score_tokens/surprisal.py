"""How surprised a judge's own backbone is, as a language model, by each piece of a response."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from inspector_pipeline.backbone import load_backbone
from inspector_pipeline.explain import RESPONSE
from inspector_pipeline.pipeline_inspector import InspectorPipeline

from .logits import load_unembedding


class Surprisal:
    """Reads negative log probabilities, by the whole backbone that a judge was cut from.

    Args:
        judge: A loaded judge; pairs are read as its first reading writes them.
    """

    def __init__(self, judge: InspectorPipeline) -> None:
        """Load the backbone with all its layers, its final norm and its unembedding."""
        config = judge.model.config
        self.encoder = next(iter(judge.encode.encoders.values()))
        self.device = judge.device
        backbone = load_backbone(config.backbone_id, config.backbone_revision, None, dtype=torch.float32)
        self.backbone = backbone.to(self.device)
        head = load_unembedding(config.backbone_id, config.backbone_revision)
        self.weight, self.bias = (part.float().to(self.device) for part in head)

    def __call__(self, question: str, response: str, pieces: Sequence[tuple[str, Any]]) -> NDArray[np.float64]:
        """Return the summed surprisal of each piece of a response, in nats.

        Args:
            question: The question.
            response: The response.
            pieces: That joined are the response.

        Returns:
            (pieces,); tokens count to the piece that holds their last character. 0 where nothing was read.
        """
        encoded = self.encoder(question, response, keep_places=True)
        surprisal = self.of_tokens(question, response)
        places = encoded.places.of_tokens if encoded.places is not None else []
        ends = np.cumsum([len(text) for text, _ in pieces])
        found = np.zeros(len(pieces))
        for place, value in zip(places, surprisal, strict=True):
            if place.part == RESPONSE and place.end > place.start:
                found[int(np.searchsorted(ends, place.end))] += value
        return found

    def of_tokens(self, question: str, response: str) -> list[float]:
        """Return the surprisal of each token of an encoded pair, given those before it; 0 for the first."""
        ids = torch.tensor([self.encoder(question, response).input_ids], device=self.device)
        with torch.inference_mode():
            states = self.backbone(ids, use_cache=False).last_hidden_state[0, :-1].float()
            log_probabilities = torch.log_softmax(states @ self.weight.T + self.bias, dim=1)
            told: list[float] = (-log_probabilities.gather(1, ids[0, 1:, None])[:, 0]).tolist()
        return [0.0, *told]
