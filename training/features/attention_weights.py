"""Read attention weights, each layer's reduced as soon as it is there: all of them at once would not fit."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from torch import Tensor
from transformers import PreTrainedModel

from inspector_pipeline.errors import BackboneError
from inspector_pipeline.truncation import find_decoder_parts


@contextmanager
def reduced_weights(backbone: PreTrainedModel, reduce: Callable[[Tensor], Tensor]) -> Iterator[dict[int, Tensor]]:
    """Collect what each layer's attention weights are reduced to while a backbone runs; they are dropped at once.

    Args:
        backbone: A decoder with eager attention.
        reduce: Takes one layer's weights, (batch, heads, queries, keys).

    Yields:
        Layer, counted from 1 -> what they were reduced to, once it has run.

    Raises:
        BackboneError: The backbone ran and gave no attention weights.
    """
    n_layers = backbone.config.num_hidden_layers
    parts = find_decoder_parts(backbone, n_layers)
    layers = getattr(backbone.get_submodule(parts.path), parts.layers_name)
    found: dict[int, Tensor] = {}

    def keep(layer: int, module: Any, inputs: Any, output: Any) -> None:
        weights = output[1] if isinstance(output, tuple) and len(output) > 1 else None
        if isinstance(weights, Tensor) and weights.ndim == 4:
            found[layer] = reduce(weights)

    handles = [
        module.register_forward_hook(partial(keep, i))
        for i, layer in enumerate(layers, start=1)
        for module in layer.modules()
        if type(module).__name__.endswith("Attention")
    ]
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()
    if len(found) != n_layers:
        raise BackboneError(
            f"A backbone expects attention weights of {n_layers} layers, but {type(backbone).__name__} gave those of "
            f"{len(found)}. Load it with eager attention."
        )
