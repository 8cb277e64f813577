from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from inspector_pipeline.errors import BackboneError
from inspector_pipeline.features import (
    POOLINGS,
    Feature,
    PackPooling,
    Pooled,
    TokenShares,
    last_token,
    normalized,
    pool,
    read_features,
    read_states,
    rms_normalize,
)


@st.composite
def batches(draw):
    """Rows of different lengths, each with a response span, padded left or right with rubbish."""
    lengths = draw(st.lists(st.integers(1, 9), min_size=1, max_size=5))
    spans = [sorted(draw(st.tuples(st.integers(0, n - 1), st.integers(1, n)))) for n in lengths]
    spans = [(a, max(b, a + 1)) for a, b in spans]
    generator = torch.Generator().manual_seed(draw(st.integers(0, 1000)))
    rows = [torch.randn(n, 3, generator=generator) * 10 for n in lengths]
    return rows, spans, draw(st.sampled_from(["left", "right"])), draw(st.integers(0, 4))


def padded(rows, spans, side, extra):
    width = max(len(row) for row in rows) + extra
    states = torch.full((len(rows), width, 3), 1e6)
    attention, response = torch.zeros(len(rows), width), torch.zeros(len(rows), width)
    for i, (row, (a, b)) in enumerate(zip(rows, spans, strict=True)):
        start = width - len(row) if side == "left" else 0
        states[i, start : start + len(row)] = row
        attention[i, start : start + len(row)] = 1
        response[i, start + a : start + b] = 1
    return states, attention.long(), response.long()


def expected(row, span, pooling):
    x = row.double().numpy()
    return {
        "mean": x.mean(0),
        "last": x[-1],
        "response_mean": x[span[0] : span[1]].mean(0),
        "min": x.min(0),
        "max": x.max(0),
    }[pooling]


@pytest.mark.parametrize("pooling", POOLINGS)
@given(batch=batches())
def test_pools_real_tokens_only_on_either_side(pooling, batch):
    rows, spans, side, extra = batch
    states, attention, response = padded(rows, spans, side, extra)
    got = pool(states, attention, pooling, response)
    assert got.dtype == torch.float32
    for i, (row, span) in enumerate(zip(rows, spans, strict=True)):
        np.testing.assert_allclose(got[i].numpy(), expected(row, span, pooling), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("pooling", POOLINGS)
def test_padding_of_nan_does_not_leak(pooling):
    states = torch.tensor([[[1.0], [2.0], [float("nan")]]])
    mask = torch.tensor([[1, 1, 0]])
    assert torch.isfinite(pool(states, mask, pooling, mask)).all()


def test_half_precision_is_pooled_in_float32():
    states = torch.ones(1, 4096, 1, dtype=torch.bfloat16)
    assert pool(states, torch.ones(1, 4096), "mean").item() == 1.0


@pytest.mark.parametrize("pooling", POOLINGS)
def test_what_is_summed_in_half_precision_is_not_rounded_to_it(pooling):
    states = torch.randn(1, 500, 64, generator=torch.Generator().manual_seed(0)).bfloat16()
    mask = torch.ones(1, 500)
    got = pool(states, mask, pooling, mask)
    assert got.dtype == torch.float32
    np.testing.assert_allclose(got[0].numpy(), expected(states[0], (0, 500), pooling), rtol=1e-5, atol=1e-6)
    normed = normalized(states, "rms_normed", 1e-6, None)
    exact = states.double() / (states.double().square().mean(-1, keepdim=True) + 1e-6).sqrt()
    assert normed.dtype == torch.float32
    np.testing.assert_allclose(normed.numpy(), exact.numpy(), rtol=1e-6)
    feature = Feature("chat", 1, "mean", "rms_normed")
    whole = PackPooling.of([[(0, 500)]], [(0, 500)], [500], 500)(states[0], feature, 1e-6, None)
    past = Pooled.of(states[0, :300], feature, 1e-6, None)
    rest = PackPooling.of([[(0, 200)]], [(300, 500)], [500], 200)(states[0, 300:], feature, 1e-6, None, past)
    for found in (whole, rest):
        np.testing.assert_allclose(found[0].numpy(), exact[0].mean(0).numpy(), rtol=1e-4, atol=1e-6)


def test_a_row_without_tokens_is_never_a_valid_number():
    states, nothing = torch.ones(1, 2, 1), torch.zeros(1, 2)
    assert not torch.isfinite(pool(states, nothing, "mean")).any()
    assert not torch.isfinite(pool(states, nothing, "min")).any()
    assert not torch.isfinite(pool(states, torch.ones(1, 2), "response_mean", nothing)).any()


def test_unknown_pooling_and_missing_mask_are_refused():
    states, mask = torch.ones(1, 2, 1), torch.ones(1, 2)
    with pytest.raises(ValueError, match="mean, last, response_mean, min, max, but got 'median'"):
        pool(states, mask, "median")
    with pytest.raises(ValueError, match="response_mask"):
        pool(states, mask, "response_mean")


def test_last_token_is_found_by_mask():
    states = torch.arange(6.0).reshape(2, 3, 1)
    assert last_token(states, torch.tensor([[1, 1, 0], [0, 1, 1]])).flatten().tolist() == [1.0, 5.0]
    assert last_token(states, torch.tensor([[1, 3, 1], [7, 2, 0]])).flatten().tolist() == [2.0, 4.0], "whatever it says"


def test_rms_normalize_has_unit_root_mean_square():
    states = torch.randn(2, 3, 8) * 100
    normed = rms_normalize(states, 1e-6)
    torch.testing.assert_close(normed.square().mean(-1), torch.ones(2, 3))
    reference = torch.nn.functional.rms_norm(states, (8,), eps=1e-6)
    torch.testing.assert_close(normed, reference)


@pytest.mark.parametrize("eps", [0.0, 1e-6, 0.5])
def test_epsilon_is_added_to_the_mean_square(eps):
    states = torch.randn(2, 3, 8, generator=torch.Generator().manual_seed(0)) / 1000  # whose squares are of its size
    exact = states.double().numpy()
    exact = exact / np.sqrt((exact**2).mean(-1, keepdims=True) + eps)
    for found in (rms_normalize(states, eps), normalized(states, "rms_normed", eps, None)):
        np.testing.assert_allclose(found.numpy(), exact, rtol=1e-5)


def test_a_packs_rows_are_found_by_their_ranges():
    packed = PackPooling.of([[(0, 2), (5, 7)], [(2, 5)]], [(3, 6), (0, 1)], [6, 3], 7)
    assert "_weights_of" not in repr(packed)
    assert packed.responses == [[(1, 2), (5, 7)], [(2, 3)]] and packed.lengths == [6, 3]
    assert PackPooling.of([[(0, 2), (5, 7)]], [(2, 4)], [4], 7).responses == [[(5, 7)]], "no empty ranges"
    states = torch.arange(7.0).unsqueeze(1)
    past = Pooled(torch.tensor([10.0]), torch.tensor([-1.0]), torch.tensor([9.0]))

    def pooled(pooling, past=None):
        return packed(states, Feature("chat", 1, pooling), 0.0, None, past).flatten().tolist()

    assert pooled("response_mean") == pytest.approx([4.0, 2.0]) and pooled("last") == [6.0, 4.0]
    assert pooled("mean") == pytest.approx([2.0, 3.0]), "the two tokens outside add nothing"
    assert pooled("mean", past) == pytest.approx([12 / 6 + 10 / 6, 3 + 10 / 3])
    assert pooled("response_mean", past) == pytest.approx([4.0, 2.0])
    assert (pooled("min"), pooled("max")) == ([0.0, 2.0], [6.0, 4.0])
    assert (pooled("min", past), pooled("max", past)) == ([-1.0, -1.0], [9.0, 9.0])
    whole = Pooled.of(torch.tensor([[1.0, -2.0], [3.0, 5.0]]), Feature("chat", 1, "mean"), 0.0, None)
    assert (whole.total.tolist(), whole.low.tolist(), whole.high.tolist()) == ([4, 3], [1, -2], [3, 5])


def test_tokens_shares_are_summed_by_reading_and_by_feature():
    mean, last, part = (Feature("chat", 1, pooling) for pooling in ("mean", "last", "response_mean"))
    other = Feature("other", 2, "mean")
    weights = {one: torch.tensor([[1.0, 2.0], [0.0, 1.0]]) for one in (mean, last, part, other)}
    shares = TokenShares(weights, {one: torch.tensor([1.0, 0.0]) for one in weights})
    odd = torch.full((1, 2), 1.003)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = shares.project(odd, mean, 0.0, None)
    assert found.dtype == torch.float32 and torch.equal(found, shares.project(odd, mean, 0.0, None))
    states = torch.tensor([[1.0, 0.0], [2.0, 1.0], [4.0, -1.0]])
    projected = shares.project(states, mean, 0.0, None)
    assert projected.tolist() == [[0, 0], [3, 1], [1, -1]]
    for one in (mean, last, part, other):
        shares.add(5, one, projected, (1, 3))
    third = projected / 3
    expected = third + torch.tensor([[0.0], [0], [1]]) * projected + torch.tensor([[0.0], [0.5], [0.5]]) * projected
    torch.testing.assert_close(shares.of_tokens[5]["chat"], expected)
    torch.testing.assert_close(shares.of_tokens[5]["other"], third)
    assert {one: own.tolist() for one, own in shares.of_features[5].items()} == {
        mean: pytest.approx([4 / 3, 0]), last: [1, -1], part: [2, 0], other: pytest.approx([4 / 3, 0])
    }  # fmt: skip


class Backbone:
    """Notes how it is called, and gives a state for each layer asked for."""

    def __init__(self, layers=2, states=3):
        self.config = SimpleNamespace(num_hidden_layers=layers)
        self.states = states

    def forward(self, input_ids, attention_mask, output_hidden_states, position_ids=None, use_cache=None):
        self.asked = {"mask": attention_mask, "layers": output_hidden_states, "at": position_ids, "cache": use_cache}
        states = [input_ids.unsqueeze(-1) * 1.0 + layer for layer in range(self.states)]
        return SimpleNamespace(hidden_states=states)

    def __call__(self, *args, **kwargs):
        return self.forward(*args, **kwargs)


def test_a_pass_is_told_positions_and_layers_and_its_states_are_pooled():
    backbone, ids, mask = Backbone(), torch.tensor([[9, 1, 2], [3, 4, 9]]), torch.tensor([[0.0, 0.5, 2], [1, 1, 0]])
    features = [Feature("chat", 2, "mean"), Feature("chat", 1, "last", "final_norm"), Feature("chat", 2, "mean")]
    features.append(Feature("chat", 0, "response_mean", "rms_normed"))
    arguments = {"input_ids": ids, "attention_mask": mask, "response_mask": mask * torch.tensor([[1, 0, 1]])}
    found = read_features(backbone, torch.nn.Identity(), features, **arguments, rms_norm_eps=3.0)
    asked = backbone.asked
    assert (asked["layers"], asked["cache"]) == ([0, 1, 2], False)
    assert asked["mask"].dtype == asked["at"].dtype == torch.int64
    assert asked["at"].tolist() == [[0, 0, 1], [0, 1, 1]] and asked["mask"].tolist() == [[0, 1, 1], [1, 1, 0]]
    assert list(found) == list(dict.fromkeys(features))
    assert found[features[0]].tolist() == [[3.5], [5.5]] and found[features[1]].tolist() == [[3.0], [5.0]]
    exact = [[2 / np.sqrt(4 + 3)], [3 / np.sqrt(9 + 3)]]
    np.testing.assert_allclose(found[features[3]], exact, rtol=1e-6)
    with pytest.raises(BackboneError, match="a state per layer, 3 states, but Backbone gives 2, whose numbering"):
        read_states(Backbone(states=2), [1], ids, mask)
    with pytest.raises(BackboneError, match="needs the backbone's final norm"):
        normalized(torch.ones(1, 2), "final_norm", 0.0, None)

    class Plain(Backbone):
        def forward(self, input_ids, attention_mask, output_hidden_states):
            return super().forward(input_ids, attention_mask, output_hidden_states)

    plain = Plain()
    read_states(plain, [1], ids, mask)
    assert plain.asked["at"] is None and plain.asked["cache"] is None
    halved = normalized(torch.ones(1, 2, dtype=torch.bfloat16), "final_norm", 0.0, torch.nn.Identity())
    assert halved.dtype == torch.float32 and Feature("chat", 1, "mean").state == "raw"


@pytest.mark.parametrize("pooling", POOLINGS)
def test_what_is_pooled_stays_on_the_device_of_the_states(pooling):
    states = torch.empty(2, 4, 3, device="meta")
    assert pool(states, states[..., 0] > 0, pooling, states[..., 0] > 0).device.type == "meta"
    pooling_of = PackPooling([[(0, 2)], [(2, 5), (6, 8)]], [[(1, 2)], [(6, 8)]], [4, 5], 8)
    past = Pooled(*(torch.empty(3, device="meta") for _ in range(3)))
    found = pooling_of(torch.empty(8, 3, device="meta"), Feature("chat", 1, pooling), 1e-6, None, past)
    assert found.device.type == "meta" and found.shape == (2, 3)
