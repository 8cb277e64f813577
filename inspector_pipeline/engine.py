"""From encoded pairs to pooled features: which passes run, what they share, and how deep they go.

Readings that differ only after the pair share its pass; each pass stops at the deepest layer that is read from it. On
a backbone with plain causal attention pairs run in packs (`packing.py`); whether a backbone is such a one is found out
by running it, not by its name. Any other runs in padded batches: by a token budget, longest rows first.
"""

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from .batches import collate, plan_batches
from .devices import to_device, token_budget
from .encoded import EncodedPair
from .errors import BackboneError
from .features import Feature, PackPooling, Pooled, TokenShares, pool_states, read_states
from .int8 import TORCH_INT8, is_int8
from .packing import ATTENTION, Pack, Packing, Segment, pack
from .prefixes import MIN_SHARED_TOKENS, PrefixTree, cut_tree, prefix_tree
from .template import Reading
from .truncation import check_final_norm, shallow_view, with_attention
from .varlen import stop_varlen

logger = logging.getLogger(__name__)

_CHECK_TOLERANCE = {torch.float32: 1e-3, torch.float64: 1e-6}  # relative; else _ROUGH_TOLERANCE
_ROUGH_TOLERANCE = 0.05
_INT8_TOLERANCE = 0.25  # a pack and a plain pass are cut into other pieces, see `int8.py`


@dataclass(frozen=True)
class _Opening:
    """What every pair of a reading begins with, read once.

    Attributes:
        ids: Token ids.
        states: Keys and values by layer.
        pooled: What its tokens add to the pooled features.
        hidden: (tokens, hidden) by layer, of which tokens' shares are made.
    """

    ids: list[int]
    states: dict[int, tuple[Tensor, Tensor]]
    pooled: dict[Feature, Pooled]
    hidden: dict[int, Tensor]


class _Row(NamedTuple):
    number: int  # of the pair in its window
    reading: str
    pair: EncodedPair


class _Family:
    """Readings that write the same up to the end of the pair, and so share its pass, to one depth."""

    def __init__(self, backbone: PreTrainedModel, features: Mapping[str, list[Feature]]) -> None:
        self.features = features
        self.depth = max(1, *(feature.layer for own in features.values() for feature in own))
        whole = backbone.config.num_hidden_layers
        can_cut = self.depth < whole and getattr(backbone, "hf_device_map", None) is None
        try:
            self.plain = shallow_view(backbone, self.depth) if can_cut else backbone
        except BackboneError:  # of a family that cannot be cut
            self.plain = backbone
        self.layers = sorted({feature.layer for own in features.values() for feature in own})

    @cached_property
    def packed(self) -> PreTrainedModel:
        """The same backbone with packed attention."""
        return with_attention(self.plain, ATTENTION)

    def states(self, input_ids: list[int], positions: list[int], packing: Packing) -> dict[int, Tensor]:
        """Run a pack and return the states of the layers that are read: each (tokens, hidden)."""
        device = self.plain.device
        ids, places = (to_device(torch.tensor([values]), device) for values in (input_ids, positions))
        output = self.packed(
            ids, position_ids=places, use_cache=False, output_hidden_states=self.layers, packing=packing
        )
        return {layer: output.hidden_states[layer][0] for layer in self.layers}


class FeatureReader:
    """Reads the features of encoded pairs, a window at a time.

    Args:
        backbone: A decoder without its final norm (`take_final_norm`), in eval mode.
        final_norm: That norm, where a feature needs it.
        features: What to read.
        encoders: Reading's name -> what encodes its pairs.
        rms_norm_eps: Epsilon of rms_normed states.
        pad_id: Any valid token id.

    Attributes:
        is_packed: Whether passes run in packs; else in padded batches.
        is_int8: Whether the backbone runs in whole numbers. Then pairs are cut into pieces of their own, and a pair's
            features are the same to the last digit in any company.
        on_pass: Told after each pass of the tokens of the pairs that it read, shared ones of each of them; or None.
    """

    def __init__(
        self,
        backbone: PreTrainedModel,
        final_norm: nn.Module | None,
        features: Iterable[Feature],
        encoders: Mapping[str, Reading],
        *,
        rms_norm_eps: float,
        pad_id: int = 0,
    ) -> None:
        """Group the readings and find out whether the backbone can run packs."""
        self.backbone = backbone
        self.final_norm = final_norm
        self.encoders = encoders
        self.rms_norm_eps = rms_norm_eps
        self.pad_id = pad_id
        self.on_pass: Callable[[int], None] | None = None
        self.features: dict[str, list[Feature]] = {}
        for feature in dict.fromkeys(features):
            self.features.setdefault(feature.reading, []).append(feature)
        groups: dict[tuple[Any, ...], dict[str, list[Feature]]] = {}
        for name, own in self.features.items():
            template = encoders[name].template
            same_until_the_end = (template.prefix, template.middle, template.add_special_tokens)
            groups.setdefault(same_until_the_end, {})[name] = own
        self.families = [_Family(backbone, group) for group in groups.values()]
        check_final_norm(backbone)
        # The deepest family runs the layers of all others, so it speaks for them.
        deepest = max(self.families, key=lambda family: family.depth)
        self.is_packed = _runs_packs(deepest)
        if not self.is_packed and stop_varlen("packs did not give what plain passes give"):
            self.is_packed = _runs_packs(deepest)
        if not self.is_packed:
            logger.info("%s runs in padded batches.", type(backbone).__name__)
        self.is_int8 = is_int8(backbone)
        if self.is_int8 and not (self.is_packed and backbone.device.type == "cpu"):
            raise BackboneError(
                f"The engine {TORCH_INT8} expects a decoder of plain causal attention on the CPU, but got "
                f"{type(backbone).__name__} on {backbone.device}. Load the judge with engine='torch', or on the CPU."
            )
        self._openings: dict[_Family, _Opening | None] = {}

    def __call__(
        self,
        window: Sequence[Mapping[str, EncodedPair]],
        *,
        share_prefixes: bool = True,
        shares: TokenShares | None = None,
    ) -> dict[Feature, Tensor]:
        """Read every feature of a window of pairs.

        Args:
            window: Pairs, each encoded under every reading.
            share_prefixes: Whether tokens that pairs or readings have in common at their beginning are read once.
            shares: Gets what each token brings to the features that it has weights of.

        Returns:
            float32 (pairs, hidden) for each feature, on the backbone's last device.
        """
        self._check_ids(window)
        columns: dict[Feature, Tensor] = {}
        for family in self.families:
            longest = max(len(pair[name].input_ids) for pair in window for name in family.features)
            if self.is_packed and longest <= _attention_span(self.backbone.config):
                self._read_packs(family, window, share_prefixes, (len(window), columns, shares))
            elif self.is_int8:
                raise BackboneError(
                    f"The engine {TORCH_INT8} expects pairs inside the backbone's attention window, but got one of "
                    f"{longest} tokens. Load the judge with engine='torch'."
                )
            else:
                for name in family.features:
                    self._read_padded(family, name, [pair[name] for pair in window], (len(window), columns, shares))
        return columns

    def _check_ids(self, window: Sequence[Mapping[str, EncodedPair]]) -> None:
        """Refuse ids that the backbone has no embedding of: on a GPU, reading one ends all further work.

        Raises:
            BackboneError: There is one.
        """
        size = getattr(self.backbone.get_input_embeddings(), "num_embeddings", None)
        largest = max((max(pair[name].input_ids) for pair in window for name in self.features), default=0)
        if size is not None and largest >= size:
            raise BackboneError(
                f"A backbone expects token ids below {size}, but its tokenizer gave {largest}. Load the judge with the "
                "tokenizer that it was made with."
            )

    def _read_packs(
        self,
        family: _Family,
        window: Sequence[Mapping[str, EncodedPair]],
        share_prefixes: bool,
        target: "_Target",
    ) -> None:
        """Pack all pairs under all readings of a family; those that do not begin with its opening by themselves."""
        opening = self._opening(family) if share_prefixes or self.is_int8 else None
        opened: list[_Row] = []
        others: list[_Row] = []
        for name in family.features:
            for number, encoded in enumerate(window):
                begins = opening is not None and encoded[name].input_ids[: len(opening.ids)] == opening.ids
                (opened if begins else others).append(_Row(number, name, encoded[name]))
        for rows, shared in ((opened, opening), (others, None)):
            tree = self._tree(family, rows, len(shared.ids) if shared else 0, share_prefixes)
            for one in pack(tree, token_budget(self.backbone.device, self.is_int8)):
                members = [rows[i] for i in one.sequences]
                self._read_pack(family, one, members, shared, target)
                self._tell(row.pair for row in members)

    def _tell(self, pairs: Iterable[EncodedPair]) -> None:
        """Say that a pass has read these."""
        if self.on_pass is not None:
            self.on_pass(sum(len(pair.input_ids) for pair in pairs))

    def _tree(self, family: _Family, rows: Sequence[_Row], start: int, share_prefixes: bool) -> PrefixTree:
        """Say what pairs share; in whole numbers, by where each pair's own parts end."""
        sequences = [row.pair.input_ids for row in rows]
        if not self.is_int8:
            return prefix_tree(sequences, start, MIN_SHARED_TOKENS if share_prefixes else None)
        ends = slice(2 if len(family.features) > 1 else 1)  # readings that differ after the pair share it
        cuts = [[row.pair.response.start, row.pair.response.end][ends] for row in rows]
        return cut_tree(sequences, cuts, start, is_shared=share_prefixes)

    def _read_pack(
        self,
        family: _Family,
        one: Pack,
        rows: Sequence[_Row],
        opening: _Opening | None,
        target: "_Target",
    ) -> None:
        """Run one pack and write its rows' features into the columns of their window."""
        states = family.states(one.input_ids, one.positions, Packing(one.segments, opening.states if opening else {}))
        for name, features in family.features.items():
            members = [i for i, row in enumerate(rows) if row.reading == name]
            if not members:
                continue
            pooling = PackPooling.of(
                [[one.segments[s][:2] for s in one.paths[i]] for i in members],
                [rows[i].pair.response for i in members],
                [len(rows[i].pair.input_ids) for i in members],
                len(one.input_ids),
            )
            for feature in features:
                past = opening.pooled.get(feature) if opening else None
                values = pooling(states[feature.layer], feature, self.rms_norm_eps, self.final_norm, past)
                _write(values, feature, [rows[i].number for i in members], *target[:2])
                if target[2] is not None and feature in target[2].weights:
                    own = [rows[i] for i in members]
                    self._share(target[2], feature, states[feature.layer], pooling, own, opening)

    def _share(
        self,
        shares: TokenShares,
        feature: Feature,
        states: Tensor,
        pooling: PackPooling,
        rows: Sequence[_Row],
        opening: _Opening | None,
    ) -> None:
        """Add what each token of a pack's rows, the opening's included, brings to a feature."""
        norm = self.rms_norm_eps, self.final_norm
        projected = shares.project(states, feature, *norm)
        before = [shares.project(opening.hidden[feature.layer], feature, *norm)] if opening else []
        for row, own in zip(rows, pooling.ranges, strict=True):
            tokens = torch.cat([*before, *(projected[start:end] for start, end in own)])
            shares.add(row.number, feature, tokens, row.pair.response)

    def _opening(self, family: _Family) -> _Opening | None:
        """Read what a family's pairs begin with, once; None where that is too short to matter."""
        if family not in self._openings:
            openings = [self.encoders[name].opening_ids for name in family.features]
            ids = min(openings, key=len)
            worth = len(ids) >= MIN_SHARED_TOKENS and all(own[: len(ids)] == ids for own in openings)
            self._openings[family] = self._read_opening(family, ids) if worth else None
        return self._openings[family]

    def _read_opening(self, family: _Family, ids: list[int]) -> _Opening:
        recorded: dict[int, tuple[Tensor, Tensor]] = {}
        states = family.states(ids, list(range(len(ids))), Packing([Segment(0, len(ids), ())], record=recorded))
        pooled = {
            feature: Pooled.of(states[feature.layer], feature, self.rms_norm_eps, self.final_norm)
            for features in family.features.values()
            for feature in features
        }
        # Cloned, since keys and values may be views of far larger tensors.
        cached = {layer: (key.clone(), value.clone()) for layer, (key, value) in recorded.items()}
        return _Opening(ids, cached, pooled, {layer: own.clone() for layer, own in states.items()})

    def _read_padded(self, family: _Family, name: str, pairs: Sequence[EncodedPair], target: "_Target") -> None:
        device = self.backbone.device
        n_rows, columns, shares = target
        features = family.features[name]
        for batch in plan_batches([len(pair.input_ids) for pair in pairs], token_budget=token_budget(device)):
            inputs = collate([pairs[i] for i in batch], self.pad_id)
            ids, mask, responses = (
                to_device(inputs[key], device) for key in ("input_ids", "attention_mask", "response_mask")
            )
            states = read_states(family.plain, {feature.layer for feature in features}, ids, mask)
            read = pool_states(states, self.final_norm, features, mask, responses, self.rms_norm_eps)
            for feature, values in read.items():
                _write(values, feature, batch, n_rows, columns)
                if shares is not None and feature in shares.weights:
                    projected = shares.project(states[feature.layer], feature, self.rms_norm_eps, self.final_norm)
                    for own, i in zip(projected, batch, strict=True):
                        shares.add(i, feature, own[: len(pairs[i].input_ids)], pairs[i].response)
            self._tell(pairs[i] for i in batch)


# Rows of a window, its columns so far, and what gets tokens' shares, where they are asked for.
_Target = tuple[int, dict[Feature, Tensor], TokenShares | None]


def _write(values: Tensor, feature: Feature, rows: list[int], n_rows: int, columns: dict[Feature, Tensor]) -> None:
    """Write a feature (rows, hidden) into the rows of its column (n_rows, hidden), made where it is not there."""
    if feature not in columns:
        columns[feature] = values.new_empty(n_rows, values.shape[1])
    columns[feature][to_device(torch.tensor(rows), values.device)] = values


def _attention_span(config: Any) -> float:
    """Return how far back every layer sees: the shortest window or chunk of a backbone's attention."""
    spans = [getattr(config, name, None) for name in ("sliding_window", "attention_chunk_size")]
    if getattr(config, "use_sliding_window", True) is False:
        spans[0] = None
    return min((span for span in spans if span is not None), default=float("inf"))


def _runs_packs(family: _Family) -> bool:
    """Whether a pack gives what plain passes give, found out with a few tokens.

    Layers that mix tokens by other means than attention, or positions that are not told by `position_ids`, show here.
    """
    backbone = family.plain
    config = backbone.config
    can_switch_attention = getattr(backbone, "_supports_attention_backend", False)
    if not can_switch_attention or getattr(backbone, "hf_device_map", None) is not None:
        return False
    ids = [(7919 * i + 11) % config.vocab_size for i in range(40)]
    sequences = [ids[:30], ids[:20] + ids[32:39], ids[:9]]
    with torch.inference_mode():
        try:
            opening = Packing([Segment(0, 5, ())], record={})
            family.states(ids[:5], list(range(5)), opening)
            (one,) = pack(prefix_tree(sequences, 5, min_shared=4), 100)
            packing = Packing(one.segments, opening.record or {})
            states = family.states(one.input_ids, one.positions, packing)[family.layers[-1]]
        except (BackboneError, TypeError, AttributeError, KeyError, IndexError, ValueError, NotImplementedError):
            return False
        if packing.n_calls != config.num_hidden_layers:
            return False
        for sequence, path in zip(one.sequences, one.paths, strict=True):
            tokens = torch.tensor([sequences[sequence]], device=backbone.device)
            plain = backbone(tokens, use_cache=False, output_hidden_states=family.layers).hidden_states
            plain = plain[family.layers[-1]][0]
            own = torch.cat([states[slice(*one.segments[s][:2])] for s in path])
            error = (own.float() - plain[-own.shape[0] :].float()).norm() / plain.float().norm()
            tolerance = _CHECK_TOLERANCE.get(states.dtype, _ROUGH_TOLERANCE)
            if not error < (_INT8_TOLERANCE if is_int8(backbone) else tolerance):
                return False
    return True
