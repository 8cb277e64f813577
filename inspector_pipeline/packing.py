"""Many sequences in one row of tokens, without padding and without a mask, each prefix that they share only once.

A pack is one row of tokens, cut into segments. A segment's tokens see the segments it follows and, causally, their
own; to the backbone it is one long text whose positions restart. What several sequences begin with (a reading's fixed
opening, a question with many responses, a pair under many rubrics) is one segment that all of them follow. The
backbone's own layers run unchanged; only the attention function is ours, put in place by the interface that
transformers has for it.
"""

from collections.abc import Container, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface

from .devices import to_device
from .errors import BackboneError
from .prefixes import PrefixTree
from .varlen import Lengths, varlen_allowed, varlen_attend

ATTENTION = "inspector_packed"


class Segment(NamedTuple):
    """Where a node's tokens lie in a pack, `start` to `end - 1`, and where the nodes before it lie."""

    start: int
    end: int
    before: tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class Pack:
    """One row of tokens for one pass.

    Attributes:
        input_ids: Token ids.
        positions: Position of each token in its sequence.
        segments: Cover the row from left to right, each after those it follows.
        sequences: Which sequences are in the pack, by their positions in what was packed.
        paths: For each of them, the segments it is made of.
    """

    input_ids: list[int]
    positions: list[int]
    segments: list[Segment]
    sequences: list[int]
    paths: list[list[int]]


def pack(tree: PrefixTree, token_budget: int) -> Iterator[Pack]:
    """Fill packs up to a budget, in the tree's order, so that sequences with a common prefix stay together.

    Args:
        tree: Sequences.
        token_budget: Tokens of a pack; a single longer sequence is a pack of its own.

    Yields:
        Packs that hold every sequence once; a prefix whose sequences need several packs is in each, so sequences that
        begin alike and fit into one pack are in one.
    """
    held: dict[int, None] = {}  # nodes in order of arrival
    members: list[int] = []
    n_tokens = 0
    subtrees = tree.subtree_tokens()
    for sequence in sorted(range(len(tree.ends)), key=lambda i: tree.ends[i]):
        path = tree.path(sequence)
        if members and n_tokens + _wanted(tree, path, held, subtrees, token_budget) > token_budget:
            yield _assemble(tree, list(held), members)
            held, members, n_tokens = {}, [], 0
        n_tokens += sum(len(tree.nodes[node].ids) for node in path if node not in held)
        held.update(dict.fromkeys(path))
        members.append(sequence)
    if members:
        yield _assemble(tree, list(held), members)


def _wanted(
    tree: PrefixTree, path: Sequence[int], held: Container[int], subtrees: Sequence[int], token_budget: int
) -> int:
    """Return the tokens that a sequence adds, with those of the others that begin alike, if one pack can hold them."""
    n_before = n_new = 0
    for node in path:
        if node not in held:
            if n_before + subtrees[node] <= token_budget:
                return n_new + subtrees[node]
            n_new += len(tree.nodes[node].ids)
        n_before += len(tree.nodes[node].ids)
    return n_new


def _assemble(tree: PrefixTree, held: list[int], members: list[int]) -> Pack:
    ids: list[int] = []
    positions: list[int] = []
    segments: list[Segment] = []
    place = {node: i for i, node in enumerate(held)}
    for index in held:
        node = tree.nodes[index]
        parent = None if node.parent is None else segments[place[node.parent]]
        before = (*parent.before, (parent.start, parent.end)) if parent else ()
        segments.append(Segment(len(ids), len(ids) + len(node.ids), before))
        ids += node.ids
        positions += range(node.start, node.start + len(node.ids))
    return Pack(ids, positions, segments, members, [[place[node] for node in tree.path(member)] for member in members])


def spans_of(segments: Sequence[Segment], n_past: int) -> list[list[tuple[int, int]]]:
    """Return, for each segment, where what it sees lies in past and pack, its own tokens last."""
    return [[(0, n_past), *((a + n_past, b + n_past) for a, b in (*s.before, s[:2]))] for s in segments]


@dataclass
class Packing:
    """What packed attention has to know of a pass; goes to it as a keyword argument through the backbone.

    Attributes:
        segments: The pack's.
        past: Keys and values of the opening that all segments follow, by layer: each (1, heads, tokens, size). Empty
            where there is none.
        record: Filled with the pass's own keys and values by layer, where it is not None.
        n_calls: How often attention ran: once a layer, unless a layer mixes tokens by other means.
    """

    segments: list[Segment]
    past: dict[int, tuple[Tensor, Tensor]] = field(default_factory=dict)
    record: dict[int, tuple[Tensor, Tensor]] | None = None
    n_calls: int = 0
    _masks: dict[int, Tensor | None] = field(default_factory=dict)
    _gather: "_Gather | None" = None
    _lengths: Lengths | None = None

    def mask(self, index: int, n_keys: int, like: Tensor) -> Tensor | None:
        """Return a segment's additive mask (tokens, keys); None where plain causal attention will do. Made once."""
        if index not in self._masks:
            n = self.segments[index].end - self.segments[index].start
            mask = None
            if n_keys > n:
                hidden = torch.ones(n, n_keys, dtype=torch.bool, device=like.device).triu(n_keys - n + 1)
                mask = torch.zeros(n, n_keys, dtype=like.dtype, device=like.device).masked_fill(hidden, -torch.inf)
            self._masks[index] = mask
        return self._masks[index]

    def lengths(self, n_past: int, device: torch.device) -> Lengths:
        """Return where what each segment sees lies. Made once."""
        if self._lengths is None:
            self._lengths = Lengths.of(spans_of(self.segments, n_past), device)
        return self._lengths

    def gather(self, n_past: int, device: torch.device) -> "_Gather":
        """Return the indices of a pass that reads all segments at once. Made once."""
        if self._gather is None:
            self._gather = _Gather.of(self.segments, n_past, device)
        return self._gather


class _Gather(NamedTuple):
    """Indices that turn a pack into padded batches of whole sequences and back.

    Attributes:
        batches: Each int64 (segments, longest): where a segment's sequence, up to its own end, lies in past and pack.
            Sequences of a batch differ in length by less than a factor of two, so that little is padding.
        back: int64 (tokens,): where each of the pack's tokens is in the flattened batches.
    """

    batches: list[Tensor]
    back: Tensor

    @classmethod
    def of(cls, segments: Sequence[Segment], n_past: int, device: torch.device) -> "_Gather":
        spans = spans_of(segments, n_past)
        widths = [sum(b - a for a, b in span) for span in spans]
        groups: list[list[int]] = []
        for row in sorted(range(len(segments)), key=lambda row: -widths[row]):
            if not groups or 2 * widths[row] <= widths[groups[-1][0]]:
                groups.append([])
            groups[-1].append(row)
        batches, offset = [], 0
        back = torch.empty(segments[-1].end, dtype=torch.long)
        for group in groups:
            batch = torch.zeros(len(group), widths[group[0]], dtype=torch.long)
            for place, row in enumerate(group):
                batch[place, : widths[row]] = torch.cat([torch.arange(a, b) for a, b in spans[row]])
                end = offset + place * batch.shape[1] + widths[row]
                segment = segments[row]
                back[segment.start : segment.end] = torch.arange(end - (segment.end - segment.start), end)
            batches.append(to_device(batch, device))
            offset += batch.numel()
        return cls(batches, to_device(back, device))


def packed_attention(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    packing: Packing | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Let every segment of a pack see the segments it follows and, causally, itself.

    Args:
        module: The attention module; its `layer_idx` names the layer.
        query: (1, heads, tokens, size).
        key: (1, key heads, tokens, size), rotated already.
        value: (1, key heads, tokens, size).
        attention_mask: Unused: a pack needs none.
        scaling: Factor of the products; None is 1 / sqrt(size).
        dropout: Unused: backbones are frozen.
        packing: The pack's segments.
        **kwargs: What else transformers hands on.

    Returns:
        (1, tokens, heads, size), and None for the weights.

    Raises:
        BackboneError: The layer wants attention that a pack cannot give.
    """
    unknown = [name for name in ("softcap", "s_aux", "position_bias") if kwargs.get(name) is not None]
    if packing is None or unknown or not getattr(module, "is_causal", True):
        raise BackboneError(f"Packed attention expects plain causal attention, but got {unknown or type(module)}.")
    packing.n_calls += 1
    if packing.record is not None:
        packing.record[module.layer_idx] = key, value
    past = packing.past.get(module.layer_idx)
    if varlen_allowed(query, value):
        pairs = zip(past, (key, value), strict=True) if past else ()
        keys, values = [torch.cat(parts, dim=2) for parts in pairs] or (key, value)
        lengths = packing.lengths(past[0].shape[2] if past else 0, query.device)
        output = varlen_attend(query, keys, values, lengths, scaling)
        if output is not None:
            return output, None
    attend = _attend_in_turn if query.device.type == "cpu" else _attend_at_once
    return attend(query, key, value, past, packing, scaling), None


def _attend_in_turn(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    past: tuple[Tensor, Tensor] | None,
    packing: Packing,
    scaling: float | None,
) -> Tensor:
    """Run one segment after the other: no padding, and no mask where a segment follows nothing."""
    output = query.new_empty(1, query.shape[2], query.shape[1], value.shape[3])
    opening = [[states] for states in past] if past else [[], []]
    for index, (start, end, before) in enumerate(packing.segments):
        spans = (*before, (start, end))
        parts = [
            [*first, *(states[:, :, a:b] for a, b in spans)]
            for first, states in zip(opening, (key, value), strict=True)
        ]
        keys, values = (torch.cat(own, dim=2) if len(own) > 1 else own[0] for own in parts)
        mask = packing.mask(index, keys.shape[2], query)
        output[:, start:end] = scaled_dot_product_attention(
            query[:, :, start:end],
            keys,
            values,
            attn_mask=mask,
            is_causal=mask is None,
            scale=scaling,
            enable_gqa=query.shape[1] != key.shape[1],
        ).transpose(1, 2)
    return output


def _attend_at_once(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    past: tuple[Tensor, Tensor] | None,
    packing: Packing,
    scaling: float | None,
) -> Tensor:
    """Run all segments of like length as one padded batch: few kernels a layer, which is what accelerators want.

    A segment's queries come with those of what it follows, whose results are dropped: so attention is plainly causal,
    and no kernel needs a mask.
    """
    if past:
        key, value = torch.cat([past[0], key], dim=2), torch.cat([past[1], value], dim=2)
        dropped = query.new_zeros(1, query.shape[1], past[0].shape[2], query.shape[3])
        query = torch.cat([dropped, query], dim=2)
    gather = packing.gather(past[0].shape[2] if past else 0, query.device)
    by_token = [states[0].transpose(0, 1) for states in (query, key, value)]
    attended = []
    for batch in gather.batches:
        queries, keys, values = (states[batch].transpose(1, 2) for states in by_token)
        output = scaled_dot_product_attention(
            queries, keys, values, is_causal=True, scale=scaling, enable_gqa=query.shape[1] != key.shape[1]
        )
        attended.append(output.transpose(1, 2).flatten(0, 1))
    return torch.cat(attended)[gather.back].unsqueeze(0)


AttentionInterface.register(ATTENTION, packed_attention)
