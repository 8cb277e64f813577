"""Whole numbers for a decoder's linear maps: up to twice as fast on a CPU that has them, and exact on every one.

Weights are rounded to -63 .. 63 with one scale for each output, states to -127 .. 127 with one scale for each token.
Products of whole numbers have no rounding error, so no order of summing, no other pair in the batch and no other CPU
changes them. 63 and not 127: on a CPU without VNNI two products are first added in 16 bits, where 255 * 127 * 2 would
not fit.

What is left in float32 works token by token, attention apart. Rounding turns its last digits into whole steps, layer by
layer, so attention must be computed in the same pieces whatever else is in a pass: see `cut_tree` in `prefixes.py`.
"""

import weakref
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn

from .allocation import return_freed_memory
from .errors import BackboneError

TORCH, TORCH_INT8 = "torch", "torch-int8"
ENGINES = (TORCH, TORCH_INT8)
WEIGHT_LEVELS, STATE_LEVELS = 63, 127
ENGINE_SETTINGS: dict[str, Any] = {"name": TORCH_INT8, "weight_levels": WEIGHT_LEVELS, "state_levels": STATE_LEVELS}
STATE_ERROR = "state_error"  # beside them, where it was measured: how far its features are from float32's, relative

_ZERO_POINT = STATE_LEVELS + 1  # added to a state's level, so that it is positive
_SMALLEST = 1e-30  # a scale, for states or weights that are all zero
_BUCKET = 64  # tokens; the kernel keeps half a megabyte for each number of them that it has seen, up to 1,024 such
_FLOAT32_INTEGERS = 2**24  # up to which float32 holds every whole number


class Rounder:
    """Rounds states to whole numbers, once for maps of one module that read the same ones (queries, keys and values).

    It knows the states by the tensor that they came in; no decoder changes one between two maps that read it.
    """

    def __init__(self) -> None:
        """Begin with nothing rounded."""
        self._last: tuple[Any, Tensor, Tensor] | None = None

    def __call__(self, states: Tensor) -> tuple[Tensor, Tensor]:
        """Round.

        Args:
            states: float32 (..., features).

        Returns:
            uint8 (tokens, features), levels above `_ZERO_POINT`, filled up with rows that mean nothing to a multiple of
            `_BUCKET`; and float32 (tokens, 1), the scale of each token.
        """
        last = self._last  # read once: another thread may be at work
        if last is not None and last[0]() is states:
            return last[1:]
        self._last = None  # before more memory is asked for
        rows = states.reshape(-1, states.shape[-1])
        largest = torch.maximum(rows.amax(dim=1, keepdim=True), -rows.amin(dim=1, keepdim=True))
        scale = (largest / STATE_LEVELS).clamp_min(_SMALLEST)
        shifted = torch.addcmul(rows.new_tensor(_ZERO_POINT + 0.5), rows, scale.reciprocal())
        levels = torch.empty(-(-len(rows) // _BUCKET) * _BUCKET, rows.shape[1], dtype=torch.uint8, device=rows.device)
        levels[: len(rows)].copy_(shifted)  # cut off, so rounded to the nearest
        self._last = weakref.ref(states), levels, scale
        return levels, scale

    def __reduce__(self) -> tuple[type["Rounder"], tuple[()]]:
        """Copy none of the states."""
        return Rounder, ()


class Int8Linear(nn.Module):
    """A linear map in whole numbers.

    Args:
        linear: The map that it stands for, in float32.
        rounder: Rounds its states; None is one of its own. Shared by maps that may read the same states.
    """

    weight: Tensor
    scale: Tensor
    bias: Tensor | None

    def __init__(self, linear: nn.Linear, rounder: Rounder | None = None) -> None:
        """Round the weights."""
        super().__init__()
        self.in_features, self.out_features = linear.in_features, linear.out_features
        scale = (linear.weight.detach().abs().amax(dim=1) / WEIGHT_LEVELS).clamp_min(_SMALLEST)
        levels = torch.round(linear.weight.detach() / scale[:, None]).to(torch.int8)
        self._packed: Any = None  # in the kernel's own layout, which then is the only one that is kept
        if levels.device.type == "cpu" and kernel_is_exact():
            zeros = torch.zeros(self.out_features, dtype=torch.long)
            self._packed = torch.ops.onednn.qlinear_prepack(levels, None), zeros
            levels = levels.new_empty(0)
        self.register_buffer("weight", levels, persistent=False)
        self.register_buffer("scale", scale, persistent=False)
        self.register_buffer("bias", None if linear.bias is None else linear.bias.detach(), persistent=False)
        self._rounder = rounder or Rounder()

    def forward(self, states: Tensor) -> Tensor:
        """Multiply.

        Args:
            states: float32 (..., in_features).

        Returns:
            float32 (..., out_features); not finite where a token's states are not.
        """
        levels, scale = self._rounder(states)
        values = self._products(levels)[: len(scale)].mul_(scale)
        if self.bias is not None:
            values.add_(self.bias)
        return values.view(*states.shape[:-1], self.out_features)

    def __deepcopy__(self, memo: dict[int, Any]) -> "Int8Linear":
        """Share the weights, which nothing changes, and of which the kernel's own layout cannot be copied."""
        other = Int8Linear.__new__(Int8Linear)
        other.__dict__.update(self.__dict__)
        other._buffers = dict(self._buffers)
        memo[id(self)] = other
        return other

    def _products(self, shifted: Tensor) -> Tensor:
        """Return products with the weights, in their scale: float32 (tokens, out_features)."""
        if self._packed is not None:
            return _multiply(shifted, self._packed, self.scale)
        fits = self.in_features * STATE_LEVELS * WEIGHT_LEVELS < _FLOAT32_INTEGERS
        dtype = torch.float32 if fits else torch.float64
        exact = (shifted.to(dtype) - _ZERO_POINT) @ self.weight.to(dtype).T
        return exact.to(torch.float32) * self.scale


def _multiply(shifted: Tensor, packed: Any, scale: Tensor) -> Tensor:
    weight, zeros = packed
    found: Tensor = torch.ops.onednn.qlinear_pointwise(
        shifted, 1.0, _ZERO_POINT, weight, scale, zeros, None, 1.0, 0, torch.float32, "none", [], ""
    )
    return found


@lru_cache(maxsize=1)
def kernel_is_exact() -> bool:
    """Whether this machine's whole-number kernel is there and never overflows, found out at the largest numbers."""
    weight = torch.full((16, 64), WEIGHT_LEVELS, dtype=torch.int8)
    weight[::2] *= -1
    shifted = torch.full((3, 64), STATE_LEVELS + _ZERO_POINT, dtype=torch.uint8)
    shifted[1] = 1
    shifted[2, ::2] = 1
    try:
        packed = torch.ops.onednn.qlinear_prepack(weight, None), torch.zeros(16, dtype=torch.long)
        found = _multiply(shifted, packed, torch.ones(16))
    except (RuntimeError, AttributeError, NotImplementedError):
        return False
    return found.double().equal((shifted.double() - _ZERO_POINT) @ weight.double().T)


def round_linears(layers: nn.Module) -> None:
    """Put whole-number maps in the place of the linear maps of a decoder's layers.

    Args:
        layers: The layers, in float32, whose weights are dropped.

    Raises:
        BackboneError: They have another dtype, or no linear maps of torch's own.
    """
    found = [
        (owner, name, child)
        for owner in layers.modules()
        for name, child in owner.named_children()
        if type(child) is nn.Linear
    ]
    kinds = {child.weight.dtype for _, _, child in found}
    if kinds != {torch.float32}:
        what = ", ".join(sorted(map(str, kinds))) or "none of torch's own"
        raise BackboneError(
            f"The engine {TORCH_INT8} expects linear maps in float32 in the backbone's layers, but got {what}. Use "
            f"the engine {TORCH}."
        )
    rounder = Rounder()
    while found:  # each map's floats are freed before the next one is rounded
        owner, name, child = found.pop()
        setattr(owner, name, Int8Linear(child, rounder))
        del child
    return_freed_memory()


def is_int8(backbone: nn.Module) -> bool:
    """Whether a backbone runs in whole numbers."""
    return any(isinstance(module, Int8Linear) for module in backbone.modules())
