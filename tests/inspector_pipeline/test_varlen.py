"""Attention of variable lengths: the same as packed attention, by a stand-in for the kernel, which needs a GPU."""

import pytest
import torch
from torch.nn.attention import varlen as kernels
from torch.nn.functional import scaled_dot_product_attention

from inspector_pipeline import varlen as varlen_module
from inspector_pipeline.packing import Packing, Segment, packed_attention

SEGMENTS = [Segment(0, 5, ()), Segment(5, 9, ((0, 5),)), Segment(9, 12, ((0, 5),)), Segment(12, 20, ())]


class Attention(torch.nn.Module):
    """What packed attention asks a layer for."""

    is_causal = True
    layer_idx = 0


def kernel(query, key, value, query_ends, key_ends, most_queries, most_keys, *, window_size, num_splits, **options):
    """Do what the documentation of torch's kernel says, one sequence after the other."""
    assert window_size == (-1, 0) and num_splits == 1
    assert query_ends.dtype == key_ends.dtype == torch.int32
    parts = []
    for i in range(len(query_ends) - 1):
        own = query[query_ends[i] : query_ends[i + 1]]
        seen, values = (states[key_ends[i] : key_ends[i + 1]] for states in (key, value))
        assert len(own) <= most_queries and len(seen) <= most_keys
        mask = torch.ones(len(own), len(seen), dtype=torch.bool).tril(len(seen) - len(own))
        heads = (states.transpose(0, 1)[None] for states in (own, seen, values))
        parts.append(scaled_dot_product_attention(*heads, attn_mask=mask, **options)[0].transpose(0, 1))
    return torch.cat(parts)


@pytest.fixture(autouse=True)
def forgotten():
    """Leave no trace of a kernel that was refused."""
    yield
    varlen_module._allowed, varlen_module._used = True, False


@pytest.fixture
def states():
    torch.manual_seed(0)
    return torch.randn(1, 4, 20, 8), torch.randn(1, 2, 20, 8), torch.randn(1, 2, 20, 8)


@pytest.mark.parametrize("n_past", [0, 3])
def test_a_pack_is_the_same_with_the_kernel(states, n_past, monkeypatch):
    past = {0: (torch.randn(1, 2, n_past, 8), torch.randn(1, 2, n_past, 8))} if n_past else {}
    plain, _ = packed_attention(Attention(), *states, None, packing=Packing(SEGMENTS, past))
    assert not varlen_module.varlen_allowed(states[0], states[2]), "on a CPU there is no such kernel"
    monkeypatch.setattr("inspector_pipeline.packing.varlen_allowed", lambda *_: True)
    monkeypatch.setattr(kernels, "varlen_attn", kernel)

    found, _ = packed_attention(Attention(), *states, None, packing=Packing(SEGMENTS, past))

    torch.testing.assert_close(found, plain, rtol=1e-5, atol=1e-6)
    assert varlen_module.stop_varlen("tested")
    assert not varlen_module.stop_varlen("tested again")


def test_a_kernel_that_refuses_is_used_no_more(states, monkeypatch):
    def refuses(*_, **__):
        raise RuntimeError("FlashAttention only supports Ampere GPUs or newer.")

    plain, _ = packed_attention(Attention(), *states, None, packing=Packing(SEGMENTS))
    monkeypatch.setattr("inspector_pipeline.packing.varlen_allowed", lambda *_: varlen_module._allowed)
    monkeypatch.setattr(kernels, "varlen_attn", refuses)
    for _ in range(2):
        found, _ = packed_attention(Attention(), *states, None, packing=Packing(SEGMENTS))
        torch.testing.assert_close(found, plain)
    assert not varlen_module._allowed


def test_it_is_for_half_precision_on_a_gpu():
    half = torch.empty(1, 4, 3, 64, dtype=torch.bfloat16, device="meta")
    assert not varlen_module.varlen_allowed(half, half)
