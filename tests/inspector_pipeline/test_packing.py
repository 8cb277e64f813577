import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from inspector_pipeline import BackboneError
from inspector_pipeline import packing as packing_module
from inspector_pipeline.packing import Packing, Segment, pack, packed_attention
from inspector_pipeline.prefixes import common_length, prefix_tree

TOKENS = st.lists(st.integers(0, 2), min_size=1, max_size=12)


@given(st.lists(TOKENS, min_size=1, max_size=12), st.integers(1, 4))
def test_paths_spell_the_sequences_and_nothing_long_is_there_twice(sequences, min_shared):
    tree = prefix_tree(sequences, min_shared=min_shared)
    for number, sequence in enumerate(sequences):
        path = [tree.nodes[node] for node in tree.path(number)]
        assert [token for node in path for token in node.ids] == sequence
        assert [node.start for node in path] == [sum(len(n.ids) for n in path[:i]) for i in range(len(path))]
    for i, node in enumerate(tree.nodes):
        assert node.ids and (node.parent is None or node.parent < i)
        for other in tree.nodes[:i]:
            if other.parent == node.parent:
                assert common_length(node.ids, other.ids) < min_shared


@given(st.lists(TOKENS, min_size=1, max_size=12), st.sampled_from([None, 1, 3]), st.integers(1, 30))
def test_packs_hold_every_sequence_once_within_the_budget(sequences, min_shared, budget):
    tree = prefix_tree(sequences, min_shared=min_shared)
    packs = list(pack(tree, budget))
    assert sorted(number for one in packs for number in one.sequences) == list(range(len(sequences)))
    for one in packs:
        assert len(one.input_ids) <= budget or len(one.sequences) == 1
        assert [s.start for s in one.segments] == [0, *(s.end for s in one.segments[:-1])]
        assert one.segments[-1].end == len(one.input_ids)
        for number, path in zip(one.sequences, one.paths, strict=True):
            tokens = [i for s in path for i in range(one.segments[s].start, one.segments[s].end)]
            assert [one.input_ids[i] for i in tokens] == sequences[number]
            assert [one.positions[i] for i in tokens] == list(range(len(tokens)))
            assert one.segments[path[-1]].before == tuple(one.segments[s][:2] for s in path[:-1])


def test_sequences_that_begin_alike_stay_in_one_pack_where_they_fit():
    """Else the question of a group that is cut would be read twice."""
    responses = [[i] * 10 for i in range(2, 6)]
    groups = [[100 + question] * 30 + response for question in range(3) for response in responses]
    packs = list(pack(prefix_tree(groups, min_shared=16), 100))
    assert [len(one.input_ids) for one in packs] == [70, 70, 70]
    packs = list(pack(prefix_tree(groups, min_shared=16), 140))
    assert [len(one.input_ids) for one in packs] == [140, 70]
    packs = list(pack(prefix_tree(groups, min_shared=16), 60))  # no pack holds a group
    assert [len(one.sequences) for one in packs] == [3, 1] * 3
    template = [[9] * 20 + sequence for sequence in groups]  # all of them begin alike
    packs = list(pack(prefix_tree(template, min_shared=16), 100))
    assert [len(one.input_ids) for one in packs] == [90, 90, 90]


def test_sharing_nothing_keeps_the_order_and_every_token():
    tree = prefix_tree([[3, 4], [1, 2], [3, 4]], min_shared=None)
    assert [node.ids for node in tree.nodes] == [[3, 4], [1, 2], [3, 4]]


def test_equal_sequences_are_read_once():
    tree = prefix_tree([[1, 2, 3], [1, 2, 3], [1, 2, 3, 4]], min_shared=2)
    assert [node.ids for node in tree.nodes] == [[1, 2, 3], [4]] and tree.ends == [0, 0, 1]


class Layer:
    layer_idx = 0
    is_causal = True


@pytest.mark.parametrize("n_past", [0, 3])
@pytest.mark.parametrize("form", ["_attend_in_turn", "_attend_at_once"])
def test_attention_sees_what_the_tree_says_and_nothing_else(form, n_past, monkeypatch):
    """Against a literal softmax over the tokens that each token may see."""
    monkeypatch.setattr(packing_module, "_attend_in_turn", getattr(packing_module, form))
    torch.manual_seed(0)
    segments = [Segment(0, 4, ()), Segment(4, 6, ((0, 4),)), Segment(6, 9, ((0, 4),)), Segment(9, 10, ((0, 4), (6, 9)))]
    query = torch.randn(1, 4, 10, 8)
    key, value = torch.randn(2, 1, 2, 10, 8)
    past = (torch.randn(1, 2, n_past, 8), torch.randn(1, 2, n_past, 8))
    packing = Packing(segments, {0: past} if n_past else {})
    got, weights = packed_attention(Layer(), query, key, value, None, scaling=0.3, packing=packing)
    assert weights is None and got.shape == (1, 10, 4, 8) and packing.n_calls == 1
    for segment in segments:
        for token in range(segment.start, segment.end):
            seen = [i for a, b in segment.before for i in range(a, b)] + list(range(segment.start, token + 1))
            for head in range(4):
                keys = torch.cat([past[0][0, head // 2], key[0, head // 2, seen]])
                values = torch.cat([past[1][0, head // 2], value[0, head // 2, seen]])
                expected = torch.softmax(0.3 * keys @ query[0, head, token], dim=0) @ values
                torch.testing.assert_close(got[0, token, head], expected, atol=1e-5, rtol=1e-5)


def test_attention_that_a_pack_cannot_give_is_refused():
    states = torch.zeros(1, 1, 1, 1)
    with pytest.raises(BackboneError, match=r"plain causal attention, but got \['softcap'\]"):
        packed_attention(Layer(), states, states, states, None, packing=Packing([Segment(0, 1, ())]), softcap=30.0)
    with pytest.raises(BackboneError, match="plain causal attention"):
        packed_attention(Layer(), states, states, states, None)
