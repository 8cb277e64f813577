from hypothesis import given
from hypothesis import strategies as st

from inspector_pipeline.batches import collate, plan_batches, windows
from inspector_pipeline.encoded import EncodedPair, Span

lengths_lists = st.lists(st.integers(1, 300), max_size=60)


@given(lengths_lists, st.integers(1, 1000))
def test_token_budget_holds_and_every_row_is_in_one_batch(lengths, budget):
    batches = plan_batches(lengths, token_budget=budget)
    assert sorted(i for batch in batches for i in batch) == list(range(len(lengths)))
    for batch in batches:
        assert len(batch) == 1 or len(batch) * max(lengths[i] for i in batch) <= budget


@given(lengths_lists, st.integers(1, 9))
def test_a_batch_size_is_kept(lengths, size):
    batches = plan_batches(lengths, size)
    assert all(len(batch) == size for batch in batches[:-1])
    assert sorted(i for batch in batches for i in batch) == list(range(len(lengths)))


@given(lengths_lists)
def test_batches_go_from_long_to_short(lengths):
    flat = [lengths[i] for batch in plan_batches(lengths) for i in batch]
    assert flat == sorted(lengths, reverse=True)


def test_windows_cut_a_stream_lazily():
    def endless():
        n = 0
        while True:
            yield n
            n += 1

    stream = windows(endless(), 3)
    assert next(stream) == [0, 1, 2] and next(stream) == [3, 4, 5]
    assert list(windows(range(4), 3)) == [[0, 1, 2], [3]]


def test_collate_pads_on_either_side():
    pairs = [EncodedPair([5, 6, 7], Span(1, 3), False), EncodedPair([8], Span(0, 1), False)]
    right, left = collate(pairs, 9), collate(pairs, 9, "left")
    assert right["input_ids"].tolist() == [[5, 6, 7], [8, 9, 9]]
    assert right["attention_mask"].tolist() == [[1, 1, 1], [1, 0, 0]]
    assert right["response_mask"].tolist() == [[0, 1, 1], [1, 0, 0]]
    assert left["input_ids"].tolist() == [[5, 6, 7], [9, 9, 8]]
    assert left["response_mask"].tolist() == [[0, 1, 1], [0, 0, 1]]
