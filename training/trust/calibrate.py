"""Calibrate a judge on 50 to 500 labels of a domain: its levels, its probabilities, and sets of a stated coverage."""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from inspector_pipeline.calibration import METHODS, NONE, LevelMap
from inspector_pipeline.decisions import PREFERENCE
from inspector_pipeline.errors import DataFileError, SettingsError
from inspector_pipeline.files.entries import Row
from inspector_pipeline.pipeline_inspector import TASK, InspectorPipeline

from ..evaluation.evidence import today
from ..evaluation.metrics import Resamples, interval, resamples
from ..rows.reading import as_pairs
from ..rows.scales import is_blank
from .conformal import Thresholds, by_value, coverage_of, cross_conformal, least_probabilities
from .level_maps import Nested, Slice, choose_method, fit_map, nested_maps
from .reliability import fit_of_probabilities
from .selective import area_under_risk, risk_coverage
from .slices import Labelled, judge_says, labelled_rows, slice_of

LEAST_LABELS, LEAST_QUESTIONS = 20, 10
FEW_LABELS, FEW_QUESTIONS, FEW_OF_A_KIND = 50, 30, 10
MORE = 0.01  # than was asked, from where on it is told


@dataclass(frozen=True)
class CalibrationSettings:
    """How to calibrate.

    Attributes:
        methods: Those to choose from, each one of `METHODS`; of equal ones the first is taken.
        coverage: Which share of labels the score sets are to hold. Where the likeliest level alone holds more, that is
            stated in its place.
        by_label: Whether each level's labels are to be covered by themselves, rather than all together.
        group: A column whose groups are each to be covered; the judge, which does not know the group of a new row, gets
            the thresholds of the group that needs the widest sets.
        folds: Of questions, outer and inner ones.
        bootstraps: Resamples of questions, for the intervals.
        seed: Of the folds and resamples.
    """

    methods: tuple[str, ...] = METHODS
    coverage: float = 0.9
    by_label: bool = False
    group: str | None = None
    folds: int = 5
    bootstraps: int = 1000
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse settings that mean nothing."""
        if not self.methods or not set(self.methods) <= set(METHODS):
            raise SettingsError(f"--methods expects some of {', '.join(METHODS)}, but got {', '.join(self.methods)}.")
        if not 0 < self.coverage < 1 or self.folds < 2:
            raise SettingsError(
                f"--coverage expects a share between 0 and 1 and --folds 2 or more, but got {self.coverage} and "
                f"{self.folds}."
            )


def calibrate_judge(
    judge: InspectorPipeline,
    tables: Mapping[str, Sequence[Row]] | Sequence[Row],
    *,
    labels: Mapping[str, str] | None = None,
    settings: CalibrationSettings | None = None,
    batch_size: int | None = None,
) -> tuple[InspectorPipeline, dict[str, Any]]:
    """Calibrate a judge on labelled rows; an earlier calibration is replaced.

    The backbone runs once over the rows that have no scores of the judge yet, and not at all where all have them.

    Args:
        judge: A loaded judge, whose config is changed.
        tables: Rows with question, prediction and labels, or name -> rows.
        labels: Aspect -> column of its labels; see `slices.labelled_rows`.
        settings: How to calibrate.
        batch_size: As in a call of the judge.

    Returns:
        The judge, calibrated, and the part `calibration` of results.json: the settings, and `aspects`: name -> what
        `calibrate_aspect` measures.

    Raises:
        DataFileError: Labels are missing, wrong or too few.
        PairError: A row cannot be scored.

    Example:
        >>> judge, evidence = calibrate_judge(load_judge(), rows, labels={"correctness": "right"})  # doctest: +SKIP
        >>> judge.save_pretrained("my-judge", fused=False)  # doctest: +SKIP
    """
    settings = settings or CalibrationSettings()
    named = tables if isinstance(tables, Mapping) else {"The table": tables}
    plain = with_calibration(judge, {})
    aspects = [aspect for aspect in plain.model.config.parsed_aspects if aspect.head.rule != PREFERENCE]
    if not aspects:
        raise DataFileError("Calibration expects a judge of levels, but this one was fitted on preferences alone.")
    keys = plain.encode.keys
    read = ((name, as_pairs(list(own), {}, name, keys=keys)) for name, own in named.items())
    labelled = labelled_rows(read, aspects, labels, keys)
    said, seen = judge_says(plain, labelled.rows, batch_size)
    maps, found = {}, {}
    for aspect in (aspect for aspect in aspects if aspect.name in labelled.labels):
        own, places = slice_of(labelled, said, aspect)
        group, told = _groups(labelled, places, settings.group)
        maps[aspect.name], found[aspect.name] = calibrate_aspect(own, aspect.name, settings, group)
        found[aspect.name]["warnings"] += told
        shares = found[aspect.name]["level_shares"].values()
        found[aspect.name]["level_shares"] = dict(zip(map(str, aspect.levels), shares, strict=True))
        n_seen = found[aspect.name]["n_seen"] = sum(seen[place] for place in places)
        if n_seen:
            found[aspect.name]["warnings"].append(
                f"{n_seen} of these rows ask what the judge was fitted on: it knows them too well, and new rows less."
            )
    given = {**vars(settings), "methods": list(settings.methods)}
    evidence = {"date": today(), "n_rows": len(labelled.rows), "settings": given}
    return with_calibration(plain, maps), {**evidence, "aspects": found}


def with_calibration(judge: InspectorPipeline, maps: Mapping[str, LevelMap]) -> InspectorPipeline:
    """Return a judge with these maps in the place of those that it had; it shares the backbone."""
    model = judge.model
    config = model.config = copy.deepcopy(model.config)
    config.calibration = {name: one.to_dict() for name, one in maps.items()} or None
    config.format_version = config.needed_version
    config.check()
    model.set_level_maps(config.parsed_calibration)
    place = {} if getattr(model, "hf_device_map", None) else {"device": judge.device}
    return InspectorPipeline(model=model, tokenizer=judge.tokenizer, task=TASK, **place)


def _groups(labelled: Labelled, places: Sequence[int], column: str | None) -> tuple[Any, list[str]]:
    """Return each row's group, (rows,), None where none are asked for, and what to know of it."""
    if column is None:
        return None, []
    if not any(column in row for row in labelled.rows):
        raise DataFileError(f"--group expects a column of the labelled rows, but none has {column!r}.")
    cells = [labelled.rows[place].get(column) for place in places]
    named = ["" if is_blank(cell) else str(cell) for cell in cells]
    blank = named.count("")
    told = f"{blank} of {len(named)} rows have no {column!r}: they are taken for a group of their own."
    return np.array(named), [told] if blank else []


def calibrate_aspect(
    rows: Slice, name: str, settings: CalibrationSettings, group: Any = None
) -> tuple[LevelMap, dict[str, Any]]:
    """Calibrate one aspect.

    All rows are fitted on. What is measured, chosen by and covered are the rows that were drawn, not those that were
    chosen for their doubt.

    Args:
        rows: Its labelled rows.
        name: Of the aspect.
        settings: How.
        group: (rows,) each one's group; None for none.

    Returns:
        The map; and what it is worth on questions that it was not fitted on: `method`, counts, `before` and `after`
        (`reliability.fit_of_probabilities`) and the paired `gain`, all with intervals over questions; `sets`, the
        conformal ones; `risk_coverage` and its area `aurc`; and `warnings`, where the slice is too small to say.

    Raises:
        DataFileError: There are too few labels or questions, or one level alone.
    """
    _check_size(rows, name)
    warnings = _size_warnings(rows)
    if rows.drawn.sum() < LEAST_LABELS or len(np.unique(rows.question[rows.drawn])) < LEAST_QUESTIONS:
        if not rows.drawn.all():
            warnings.append(
                f"Only {int(rows.drawn.sum())} of these labels are of rows that were drawn: figures and sets are of "
                "rows that were chosen for their doubt, and hold for such rows alone. Label some at random."
            )
        rows = rows._replace(drawn=np.ones(len(rows.drawn), dtype=np.bool_))
    nested = nested_maps(rows, settings.methods, settings.folds, settings.seed)
    method = choose_method(rows, settings.methods, settings.folds, settings.seed)
    fitted = fit_map(method, rows)
    out, held = rows.take(rows.drawn), nested.take(rows.drawn)
    group = group if group is None else group[rows.drawn]
    samples = resamples(out.question, settings.bootstraps, settings.seed)
    measured = _before_and_after(out, held, samples)
    thresholds, sets = _sets(out, held, settings, group)
    fitted = replace(fitted, coverage=round(thresholds.stated, 4), least=tuple(thresholds.least.round(8).tolist()))
    values = np.array(rows.classes)
    return fitted, {
        "method": method,
        "methods_in_folds": held.chosen,
        "n": len(rows.label),
        "n_questions": len(np.unique(rows.question)),
        "n_escalated": int((~rows.drawn).sum()),
        "class_counts": {str(c): int((values[rows.label] == c).sum()) for c in rows.classes},
        "level_shares": {str(c): round(float((values[out.label] == c).mean()), 4) for c in rows.classes},
        **measured,
        "sets": sets,
        **_risk(out, held, samples),
        "warnings": warnings
        + _gain_warnings(method, measured["gain"]["rps"], len(out.label))
        + _set_warnings(sets, thresholds),
    }


def _before_and_after(rows: Slice, nested: Nested, samples: Resamples) -> dict[str, Any]:
    weights = samples.weights(rows.question)
    before, old = fit_of_probabilities(rows.probabilities, rows.label, rows.classes, weights)
    after, new = fit_of_probabilities(nested.probabilities, rows.label, rows.classes, weights)
    return {"before": before, "after": after, "gain": {key: interval(old[key] - new[key]) for key in old}}


def _sets(rows: Slice, nested: Nested, settings: CalibrationSettings, group: Any) -> tuple[Thresholds, dict[str, Any]]:
    """Set the least probabilities on held-out rows, and measure sets whose thresholds come from other folds."""
    parts, coverage, by_label = (nested.probabilities, rows.label, rows.question), settings.coverage, settings.by_label
    sets = cross_conformal(*parts, nested.fold, coverage, by_label=by_label, group=group)
    found = {
        "coverage": coverage,
        "by": "group" if group is not None else "label" if by_label else "all",
        **coverage_of(sets, rows.label, rows.question, settings.bootstraps, settings.seed),
        "by_label": by_value(sets, rows.label, rows.question, np.array(rows.classes)[rows.label]),
    }
    if group is None:
        return least_probabilities(*parts, coverage, by_label=by_label), found
    thresholds = {}
    for name in np.unique(group):
        own = group == name
        shares, label, question = nested.probabilities[own], rows.label[own], rows.question[own]
        thresholds[str(name)] = least_probabilities(shares, label, question, coverage, by_label=by_label)
    found["by_group"] = by_value(sets, rows.label, rows.question, group)
    found["least_by_group"] = {name: one.least.round(8).tolist() for name, one in thresholds.items()}
    widest = np.min([one.least for one in thresholds.values()], axis=0)
    return Thresholds(widest, min(one.stated for one in thresholds.values())), found


def _risk(rows: Slice, nested: Nested, samples: Resamples) -> dict[str, Any]:
    """Measure how far the expected score is off on the rows that the calibrated judge is surest of."""
    values = np.array(rows.classes, dtype=np.float64)
    expected = nested.probabilities @ values
    doubt = np.sqrt(np.maximum(nested.probabilities @ values**2 - expected**2, 0))
    error = np.abs(expected - values[rows.label])
    curve = risk_coverage(doubt, {"mean_absolute_error": error}, samples.weights(rows.question))
    return {"risk_coverage": curve, "aurc": round(area_under_risk(doubt, error), 4)}


def _check_size(rows: Slice, name: str) -> None:
    n, n_questions, levels = len(rows.label), len(np.unique(rows.question)), len(np.unique(rows.label))
    if n < LEAST_LABELS or n_questions < LEAST_QUESTIONS or levels < 2:
        raise DataFileError(
            f"Calibration of {name} expects {LEAST_LABELS} or more labels on {LEAST_QUESTIONS} or more questions, of 2 "
            f"or more levels, but got {n} on {n_questions}, of {levels}. Label more rows."
        )


def _size_warnings(rows: Slice) -> list[str]:
    n, n_questions = len(rows.label), len(np.unique(rows.question))
    rarest = int(min(count for count in np.bincount(rows.label) if count))
    told = []
    if n < FEW_LABELS or n_questions < FEW_QUESTIONS:
        told.append(
            f"{n} labels on {n_questions} questions are few: with under {FEW_LABELS} on {FEW_QUESTIONS} neither the "
            "choice of a method nor its figures say much."
        )
    if rarest < FEW_OF_A_KIND:
        told.append(f"A level has {rarest} labels: with under {FEW_OF_A_KIND} its probability is hardly known.")
    return told


def _gain_warnings(method: str, gain: Mapping[str, Any], n: int) -> list[str]:
    if gain["low"] is not None and gain["low"] > 0:
        return []
    told = f"{n} labels do not show that calibration helps (gain {gain['value']:+.4f}, {gain['low']:+.4f} to "
    told += f"{gain['high']:+.4f} in the ranked probability score)"
    return [f"{told}: {'the judge stays as it is' if method == NONE else 'take more to be sure'}."]


def _set_warnings(sets: Mapping[str, Any], thresholds: Thresholds) -> list[str]:
    if sets["single"] == 1 and sets["stated"] > sets["coverage"] + MORE:
        return [
            f"Sets of the likeliest level alone hold {sets['stated']:.1%}, and this is stated: a coverage of "
            f"{sets['coverage']:.0%}, which was asked, would need empty sets."
        ]
    if sets["whole"] < 1:
        of = f"a {sets['by']}" if sets["by"] != "all" else "the rows"
        told = f"The judge's sets will hold every level: the labels of {of} are too few for {sets['coverage']:.0%}."
        return [told] if (thresholds.least <= 0).all() else []
    few = f"{sets['n_clusters']} questions" if sets["by"] == "all" else f"the labels of a {sets['by']}"
    return [
        f"All score sets hold every level: {few} are too few for a coverage of {sets['coverage']}, or the judge cannot "
        "tell these levels apart."
    ]
