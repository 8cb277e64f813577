"""How many floating-point operations a decoder's layers cost, counted from its config.

Counted are the matrix products, a multiplication and an addition each: for every token 2 x the weights of the layer's
linear maps, and for every sequence of T tokens the two products of attention, 2 x 2 x heads x head_dim x T^2, of which
a causal layer needs half. Norms, activations, rotary embeddings, softmax and the embedding's look-up are left out.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class LayerShape:
    """Sizes of a layer.

    Attributes:
        hidden: Size of a state.
        heads: Query heads.
        kv_heads: Key and value heads.
        head_dim: Size of a head.
        intermediate: Size of the MLP.
        gated: Whether the MLP has a gate beside its up projection.
        causal: Whether a token sees only those before it.
    """

    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    intermediate: int
    gated: bool = True
    causal: bool = True

    @classmethod
    def of(cls, config: Any, *, gated: bool = True, causal: bool = True) -> "LayerShape":
        """Read the sizes from a backbone's config."""
        heads = config.num_attention_heads
        return cls(
            hidden=config.hidden_size,
            heads=heads,
            kv_heads=getattr(config, "num_key_value_heads", None) or heads,
            head_dim=getattr(config, "head_dim", None) or config.hidden_size // heads,
            intermediate=config.intermediate_size,
            gated=gated,
            causal=causal,
        )

    @property
    def linears(self) -> dict[str, tuple[int, int]]:
        """The layer's linear maps: name -> (inputs, outputs)."""
        query, key = self.heads * self.head_dim, self.kv_heads * self.head_dim
        maps = {
            "q": (self.hidden, query),
            "k": (self.hidden, key),
            "v": (self.hidden, key),
            "o": (query, self.hidden),
            "gate": (self.hidden, self.intermediate),
            "up": (self.hidden, self.intermediate),
            "down": (self.intermediate, self.hidden),
        }
        return {name: sizes for name, sizes in maps.items() if self.gated or name != "gate"}

    def flops(self, lengths: Iterable[int], layers: int) -> int:
        """Count the operations of some layers on sequences.

        Args:
            lengths: Tokens of each sequence, padding included where it is computed.
            layers: How many layers run.
        """
        weights = sum(inputs * outputs for inputs, outputs in self.linears.values())
        attention = 4 * self.heads * self.head_dim
        total = 0
        for n in lengths:
            total += 2 * weights * n + (attention * n * n) // (2 if self.causal else 1)
        return layers * total
