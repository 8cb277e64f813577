"""What sequences of token ids begin with in common: a tree in which it stands once."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

MIN_SHARED_TOKENS = 16  # a shorter common prefix costs more to arrange than to read again


@dataclass(frozen=True)
class Node:
    """Tokens that one or more sequences have at the same place.

    Attributes:
        ids: Token ids.
        start: Position of the first one in its sequences.
        parent: The node before it; None where it follows the opening or begins the sequence.
    """

    ids: list[int]
    start: int
    parent: int | None


@dataclass(frozen=True)
class PrefixTree:
    """Sequences as paths of nodes, so that what they share is there once.

    Attributes:
        nodes: Every parent before its children.
        ends: For each sequence, the node that it ends with.
    """

    nodes: list[Node]
    ends: list[int]

    def path(self, sequence: int) -> list[int]:
        """Return a sequence's nodes, the first one first."""
        path = []
        node: int | None = self.ends[sequence]
        while node is not None:
            path.append(node)
            node = self.nodes[node].parent
        return path[::-1]

    def subtree_tokens(self) -> list[int]:
        """Return, for each node, its tokens and those of all nodes after it."""
        totals = [len(node.ids) for node in self.nodes]
        for index in range(len(self.nodes) - 1, -1, -1):
            parent = self.nodes[index].parent
            if parent is not None:
                totals[parent] += totals[index]
        return totals


def prefix_tree(
    sequences: Sequence[list[int]], start: int = 0, min_shared: int | None = MIN_SHARED_TOKENS
) -> PrefixTree:
    """Find what sequences of token ids begin with in common.

    Args:
        sequences: Token ids, longer than `start`.
        start: Tokens at the beginning that are left out, since they are cached.
        min_shared: Fewest tokens that are worth a node of their own; None shares nothing.

    Returns:
        Paths that spell each sequence from `start` on.
    """
    nodes: list[Node] = []
    ends: dict[int, int] = {}

    def grow(members: list[int], at: int, parent: int | None) -> None:
        for run, stop in _runs(sequences, members, at, min_shared):
            nodes.append(Node(sequences[run[0]][at:stop], at, parent))
            node = len(nodes) - 1
            ends.update(dict.fromkeys(run, node))
            grow([member for member in run if len(sequences[member]) > stop], stop, node)

    order = list(range(len(sequences)))
    grow(order if min_shared is None else sorted(order, key=lambda i: sequences[i]), start, None)
    return PrefixTree(nodes, [ends[i] for i in range(len(sequences))])


def _runs(
    sequences: Sequence[list[int]], members: list[int], at: int, min_shared: int | None
) -> Iterator[tuple[list[int], int]]:
    """Cut sorted sequences into runs that share enough tokens from `at` on, each with where its common part stops."""
    if not members:
        return
    run, stop = members[:1], len(sequences[members[0]])
    for member in members[1:]:
        common = at if min_shared is None else common_length(sequences[run[-1]], sequences[member], at)
        if min_shared is not None and common - at >= min_shared:
            run.append(member)
            stop = min(stop, common)
        else:
            yield run, stop
            run, stop = [member], len(sequences[member])
    yield run, stop


def cut_tree(
    sequences: Sequence[list[int]], cuts: Sequence[Sequence[int]], start: int = 0, *, is_shared: bool = True
) -> PrefixTree:
    """Cut sequences at places of their own, whatever else is there, and hold what they share up to a cut once.

    Attention over pieces gives the same last digits only where the pieces are the same. `prefix_tree` cuts where other
    sequences part.

    Args:
        sequences: Token ids, longer than `start`.
        cuts: For each sequence, where it is cut, ascending.
        start: Tokens at the beginning that are left out, since they are cached.
        is_shared: Whether equal pieces after equal pieces are one node.

    Returns:
        Paths that spell each sequence from `start` on.
    """
    nodes: list[Node] = []
    known: dict[tuple[int | None, tuple[int, ...]], int] = {}
    ends = [0] * len(sequences)
    for i in sorted(range(len(sequences)), key=lambda i: sequences[i]) if is_shared else range(len(sequences)):
        ids = sequences[i]
        borders = [start, *(cut for cut in cuts[i] if start < cut < len(ids)), len(ids)]
        parent: int | None = None
        for at, stop in pairwise(borders):
            key = (parent, tuple(ids[at:stop]))
            if not is_shared or key not in known:
                nodes.append(Node(ids[at:stop], at, parent))
                known[key] = len(nodes) - 1
            parent = known[key]
        ends[i] = len(nodes) - 1 if parent is None else parent
    return PrefixTree(nodes, ends)


def common_length(a: Sequence[int], b: Sequence[int], start: int = 0) -> int:
    """Return how many tokens two sequences have in common at their beginning, where the first `start` are alike."""
    end = min(len(a), len(b))
    if a[start:end] == b[start:end]:
        return end
    return next(i for i in range(start, end) if a[i] != b[i])
