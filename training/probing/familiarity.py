"""What a judge takes for familiar: the hidden states and texts of the rows that it is fitted on, and where they end.

Only normal rows count, never auxiliary ones: what is made up to teach a judge bad answers is not familiar. Every limit
is set on rows of generators and questions that were held out: hidden states by directions, and words by a vocabulary,
that these rows did not take part in, and bounds of the texts' statistics by those of other generators.
"""

import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from inspector_pipeline.errors import DataFileError, SettingsError
from inspector_pipeline.familiarity import (
    STATISTICS,
    Bounds,
    Familiarity,
    question_number,
    text_statistics,
    why_unfamiliar,
    word_number,
    words_of,
)
from inspector_pipeline.features import Feature

from ..features.store import FeatureSet
from ..rows.records import LabelledPair
from .table import Array, Index

logger = logging.getLogger(__name__)

Mask = NDArray[np.bool_]
States = NDArray[np.float32]

MIN_ROWS = 50  # a row above all of them is rarer than 2 % by chance
FEW_ROWS = 2000  # up to here every row is held out once, beyond it one in as many as there are folds
MIN_QUESTIONS = 2  # that hold a word which is not new
MARGIN = 1.05  # by how much further from the median bounds lie than held-out rows need
LEAST_SPREAD = 0.05  # of a statistic around its median: about 5 % of a length, and a share of 0.25 % where it is 0


@dataclass(frozen=True)
class FamiliarityConfig:
    """Settings of what is familiar.

    Attributes:
        n_layers: How many of the layers that the probes read are looked at, evenly spaced.
        n_components: Directions inside which the distance of hidden states is measured one by one.
        flag_rate: Share of held-out normal rows that may be called unfamiliar; 0 leaves it out: the judge cannot tell.
        folds: Groups of generators, or of questions, that are held out in turn.
    """

    n_layers: int = 3
    n_components: int = 64
    flag_rate: float = 0.01
    folds: int = 5

    def __post_init__(self) -> None:
        """Refuse what cannot be.

        Raises:
            SettingsError: A setting is out of its range.
        """
        if min(self.n_layers, self.n_components) < 1 or self.folds < 2 or not 0 <= self.flag_rate < 0.5:
            raise SettingsError(
                "familiarity expects n_layers and n_components of 1 or more, folds of 2 or more and a flag_rate of "
                f"0 or more and below 0.5, but got {self}."
            )


@dataclass(frozen=True)
class Familiar:
    """What is familiar to a judge, as `inspector_pipeline.familiarity` reads it.

    Attributes:
        features: Whose distance is measured.
        tensors: Those of `Familiarity`, by name.
        threshold: The largest distance.
        text: Bounds of statistics of the texts, by name.
        report: How it was set: what was held out, and what share of held-out rows is called unfamiliar, by generator.
    """

    features: list[Feature]
    tensors: dict[str, NDArray[Any]]
    threshold: float
    text: dict[str, Bounds]
    report: dict[str, Any]

    @property
    def config(self) -> dict[str, Any]:
        """The object of a judge's config."""
        sizes = {"n_components": self.tensors["basis"].shape[1], "n_words": len(self.tensors["words"])}
        text = {name: list(bounds) for name, bounds in self.text.items()}
        described = [asdict(feature) for feature in self.features]
        return {"features": described, **sizes, "threshold": self.threshold, "text": text}

    def flags(self, pairs: Sequence[LabelledPair], states: States) -> Mask:
        """Say which pairs are unfamiliar.

        Args:
            pairs: The pairs.
            states: (pairs, features x hidden), from `states_of`.
        """
        words = frozenset(self.tensors["words"].tolist())
        statistics = [text_statistics(pair.question, pair.prediction, words) for pair in pairs]
        return _flags(self.text, self.threshold, statistics, distances(self.tensors, states))


def find_familiar(features: FeatureSet, read: Sequence[Feature], config: FamiliarityConfig) -> Familiar | None:
    """Find out what is familiar.

    Args:
        features: The rows that a judge is fitted on.
        read: Features that its probes read.
        config: Settings.

    Returns:
        None where there are too few rows to tell, or a flag rate of 0.
    """
    if not config.flag_rate:
        return None
    chosen = chosen_features(features, read, config.n_layers)
    states, pairs = states_of(features, chosen, auxiliary=False)
    n_questions = len({question_number(pair.question) for pair in pairs})
    if min(len(pairs), 10 * n_questions) < MIN_ROWS:
        logger.warning("%d rows are too few to tell which pairs are unfamiliar; %d are needed.", len(pairs), MIN_ROWS)
        return None
    texts = _Texts.of(pairs)
    held = _hold_out(texts, states, config)
    text, by_text = _text_bounds(held, config.flag_rate)
    threshold = _threshold(held.distance, by_text, config.flag_rate)
    flags = by_text | (held.distance > threshold)
    counts = {"rows": len(pairs), "held_out_rows": len(flags), "unfamiliar": round(float(flags.mean()), 4)}
    report = {"held_out": held.by, **counts, "by_generator": _by_generator([pairs[i] for i in held.row], flags)}
    tensors: dict[str, NDArray[Any]] = {**fit_space(states, config.n_components)}
    tensors["words"] = texts.known_words(np.ones(len(pairs), dtype=bool))
    return Familiar(chosen, tensors, threshold, text, report)


def unfamiliar_shares(familiar: Familiar, features: FeatureSet, *, auxiliary: bool | None = None) -> dict[str, Any]:
    """Say how many rows are called unfamiliar: of generators that were not fitted on, degenerate forms, other domains.

    Args:
        familiar: What is familiar.
        features: The rows.
        auxiliary: Whether of those that are auxiliary, or of those that are not; None for all.

    Returns:
        Generator -> rows, and the share of them that is unfamiliar.
    """
    states, pairs = states_of(features, familiar.features, auxiliary=auxiliary)
    return _by_generator(pairs, familiar.flags(pairs, states)) if pairs else {}


def _by_generator(pairs: Sequence[LabelledPair], flags: Mask) -> dict[str, Any]:
    names = np.array([str(pair.generator or "") for pair in pairs])
    return {
        str(name): {"rows": int((names == name).sum()), "unfamiliar": round(float(flags[names == name].mean()), 4)}
        for name in np.unique(names)
    }


def chosen_features(features: FeatureSet, read: Sequence[Feature], n_layers: int) -> list[Feature]:
    """Choose layers, evenly spaced, of one reading and pooling: the responses' mean, where it is read."""
    first = max(read, key=lambda feature: (len(features.rows[feature.reading]), feature.pooling == "response_mean"))
    same = {f.layer: f for f in read if (f.reading, f.pooling, f.state) == (first.reading, first.pooling, first.state)}
    layers = sorted(same)
    places = np.linspace(0, len(layers) - 1, min(n_layers, len(layers))).round().astype(int)
    return [same[layers[place]] for place in places.tolist()]


def states_of(
    features: FeatureSet, chosen: Sequence[Feature], *, auxiliary: bool | None
) -> tuple[States, list[LabelledPair]]:
    """Read the chosen features of labelled rows.

    Args:
        features: The rows.
        chosen: Features of one reading.
        auxiliary: Whether of those that are auxiliary, or of those that are not; None for all rows, labelled or not.

    Returns:
        float32 (pairs, features x hidden), and the pairs.
    """
    covered = features.rows[chosen[0].reading]
    wanted = [auxiliary is None or (bool(pair.scores) and pair.auxiliary == auxiliary) for pair in features.pairs]
    kept = np.array(wanted, dtype=bool)[covered]
    states = np.concatenate([features.matrix(feature)[kept] for feature in chosen], axis=1)
    return states, [features.pairs[i] for i in covered[kept]]


def fit_space(states: States, n_components: int) -> dict[str, States]:
    """Find centre, scale and main directions of hidden states, as `Familiarity` has them.

    Args:
        states: float32 (rows, size).
        n_components: Directions; fewer where the rows could not fill twice as many.
    """
    n, size = states.shape
    center, scale = states.mean(axis=0, dtype=np.float64), states.std(axis=0, dtype=np.float64)
    scale = np.maximum(scale, 1e-3 * np.median(scale))  # of a constant, any other value is far
    scale[scale == 0] = 1.0
    u = ((states - center) / scale).astype(np.float32)
    k = max(1, min(n_components, min(n - 1, size) // 2))
    if size <= n:
        values, vectors = np.linalg.eigh((u.T @ u).astype(np.float64) / n)
        basis = vectors[:, ::-1][:, :k]
    else:
        values, vectors = np.linalg.eigh((u @ u.T).astype(np.float64) / n)
        basis = np.linalg.qr(u.T.astype(np.float64) @ vectors[:, ::-1][:, :k])[0]
    total = max(float(values.sum()), 1e-12)
    inside = np.maximum(values[::-1][:k], 1e-6 * total)
    found = {"center": center, "scale": scale, "basis": basis, "deviation": np.sqrt(inside)}
    found["residual"] = np.array([max(total - inside.sum(), 1e-6 * total)])
    return {name: np.ascontiguousarray(values, dtype=np.float32) for name, values in found.items()}


def distances(tensors: dict[str, NDArray[Any]], states: States) -> Array:
    """Measure distances as a judge does, (rows,)."""
    words = tensors.get("words", np.empty(0, dtype=np.int64))
    size, n_components = tensors["basis"].shape
    module = Familiarity(size, n_components, len(words))
    for name, values in {**tensors, "words": words}.items():
        module.get_buffer(name).data = torch.from_numpy(values)
    return np.asarray(module(torch.from_numpy(states)).numpy(), dtype=np.float64)


@dataclass(frozen=True)
class _Texts:
    """The rows' texts, and which words they hold.

    Attributes:
        pairs: The rows.
        generator: (rows,) names.
        question: (rows,) numbers of their questions.
        words: (words,) the numbers of all words, ascending.
        word: (entries,) positions in `words`; an entry is one word of one row.
        row: (entries,) its row.
    """

    pairs: Sequence[LabelledPair]
    generator: NDArray[np.str_]
    question: Index
    words: Index
    word: Index
    row: Index

    @classmethod
    def of(cls, pairs: Sequence[LabelledPair]) -> "_Texts":
        """Collect the words of questions and responses."""
        of_rows = [{word_number(word) for word in words_of(f"{p.question}\n{p.prediction}")} for p in pairs]
        entries = np.array([number for own in of_rows for number in own], dtype=np.int64)
        words, word = np.unique(entries, return_inverse=True)
        row = np.repeat(np.arange(len(pairs)), [len(own) for own in of_rows])
        generator = np.array([str(pair.generator or "") for pair in pairs])
        question = np.array([question_number(pair.question) for pair in pairs], dtype=np.int64)
        return cls(pairs, generator, question, words, word, row)

    def known_words(self, rows: Mask) -> Index:
        """Return the numbers of words that stand in some of the rows, of `MIN_QUESTIONS` questions or more."""
        here = rows[self.row]
        _, question = np.unique(self.question, return_inverse=True)
        pairs = np.unique(self.word[here] * (question.max(initial=0) + 1) + question[self.row[here]])
        counts = np.bincount(pairs // (question.max(initial=0) + 1), minlength=len(self.words))
        return np.asarray(self.words[counts >= MIN_QUESTIONS])


@dataclass(frozen=True)
class _HeldOut:
    """Rows that were held out, as those that were not would have them.

    Attributes:
        by: What was held out, in words.
        row: (held,) which row.
        group: (held,) with which others it was held out.
        distance: (held,) of its hidden states.
        statistics: (held,) of its texts.
    """

    by: str
    row: Index
    group: Index
    distance: Array
    statistics: list[dict[str, float]]


def _hold_out(texts: _Texts, states: States, config: FamiliarityConfig) -> _HeldOut:
    """Measure rows by fits that saw neither their generators nor their questions."""
    by, folds = _folds(texts, config.folds)
    found: list[tuple[Index, Index, Array]] = []
    statistics = []
    for group, fitted_on, out in folds:
        if fitted_on.sum() < 2 or not out.any():
            continue
        rows, own = np.flatnonzero(out), [texts.pairs[i] for i in np.flatnonzero(out).tolist()]
        words = frozenset(texts.known_words(fitted_on).tolist())
        space = fit_space(states[fitted_on], config.n_components)
        found.append((rows, np.full(len(rows), group), distances(space, states[rows])))
        statistics += [text_statistics(pair.question, pair.prediction, words) for pair in own]
    if not found:
        raise DataFileError(
            f"Expected rows of more than one question to hold some out, but got {len(texts.pairs)} of one. Add more, "
            "or fit with a flag_rate of 0."
        )
    row, of_group, distance = (np.concatenate(part) for part in zip(*found, strict=True))
    return _HeldOut(by, row, of_group, distance, statistics)


def _folds(texts: _Texts, folds: int) -> tuple[str, list[tuple[int, Mask, Mask]]]:
    """Return what is held out, in words, and folds: a number, the rows to fit on, and those that are held out."""
    names, which, counts = np.unique(texts.generator, return_inverse=True, return_counts=True)
    n = min(folds, len(names))
    if n < 2:
        part = texts.question % folds
        return "questions, as there is one generator only", [(i, part != i, part == i) for i in range(folds)]
    place = np.empty(len(names), dtype=np.int64)
    place[np.argsort(-counts, kind="stable")] = np.arange(len(names)) % n
    group, part = place[which], texts.question % n
    found = [
        (i, (group != i) & (part != (i + shift) % n), (group == i) & (part == (i + shift) % n))
        for shift in range(n if len(which) <= FEW_ROWS else 1)
        for i in range(n)
    ]
    return "generators, each with questions that the others did not answer", found


def _flags(text: dict[str, Bounds], threshold: float, statistics: Sequence[dict[str, float]], distance: Array) -> Mask:
    rows = zip(statistics, distance.tolist(), strict=True)
    return np.array([why_unfamiliar(text, threshold, own, far) is not None for own, far in rows], dtype=bool)


def _text_bounds(held: _HeldOut, flag_rate: float) -> tuple[dict[str, Bounds], Mask]:
    """Set bounds of the texts' statistics, all together for half of the flag rate.

    Returns:
        The bounds; and which rows are out of those that rows of the other groups set.
    """
    found: dict[str, Bounds] = {}
    flags = np.zeros(len(held.row), dtype=bool)
    for name in STATISTICS:
        values = np.array([own.get(name, np.nan) for own in held.statistics])
        there = np.flatnonzero(~np.isnan(values))
        if not len(there):
            continue
        is_length = "characters" in name  # on these scales a spread is about the same everywhere
        scaled = np.log(np.maximum(values[there], 1)) if is_length else np.arcsin(np.sqrt(values[there]))
        limits = []
        for sign in (-1, 1):
            limit, beyond = _limit(sign * scaled, held.group[there], flag_rate)
            limits.append(sign * limit)
            flags[there] |= beyond
        low, high = limits
        if is_length:
            found[name] = (float(np.floor(np.exp(low))) if low > 0 else None, float(np.ceil(np.exp(high))))
        else:
            least = float(np.floor(1e4 * np.sin(low) ** 2)) / 1e4 if low > 0 else None
            found[name] = (least or None, float(np.ceil(1e4 * np.sin(high) ** 2)) / 1e4 if high < np.pi / 2 else None)
    return {name: bounds for name, bounds in found.items() if bounds != (None, None)}, flags


def _limit(values: Array, group: Index, flag_rate: float) -> tuple[float, Mask]:
    """Set an upper limit by how far rows of each group go beyond what is usual in the others.

    Args:
        values: (rows,).
        group: (rows,) with which others they were held out.
        flag_rate: Of all limits together, twice as much as they may take.

    Returns:
        The limit, and which rows lie beyond the one that the other groups set.
    """

    def usual(own: Array) -> tuple[float, float]:
        middle, near = np.quantile(own, [0.5, 1 - flag_rate]).tolist()
        return middle, max(near - middle, LEAST_SPREAD)

    excess = np.empty(len(values))
    for one in np.unique(group):
        others = values[group != one] if (group != one).any() else values
        middle, spread = usual(others)
        excess[group == one] = (values[group == one] - middle) / spread
    allowed = int(flag_rate / 2 / (2 * len(STATISTICS)) * len(values))
    factor = MARGIN * max(1.0, float(np.sort(excess)[::-1][allowed]))
    middle, spread = usual(values)
    return middle + factor * spread, excess > factor


def _threshold(distance: Array, by_text: Mask, flag_rate: float) -> float:
    """Return the least distance by which no more rows are called unfamiliar than the flag rate, texts included."""
    allowed = max(0, int(flag_rate * len(by_text)) - int(by_text.sum()))
    ranked = np.sort(distance[~by_text])[::-1]
    return float(ranked[min(allowed, len(ranked) - 1)])
