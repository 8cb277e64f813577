"""The labels of a table's rows: read on their scales, several raters' made one, and all of them accounted for."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol

from inspector_pipeline.errors import DataFileError
from inspector_pipeline.files.entries import Row

from .labels import Account, kind_of, read_cells, settle
from .raters import FEWEST, rater_warnings
from .scales import BLANK, SHOWN, Level, cells_of, find_scale, number_of, rater_columns

NOT_STATED = "not stated"
MOST_SHOWN = 8  # generators
RATERS = ("annotator", "rater", "annotator_id", "rater_id", "labeler", "labeller", "reviewer", "worker_id", "user_id")
SWAPPED = 2.0  # so many times as often as questions are responses the same


class Reported(Protocol):
    """What is accounted for."""

    def to_dict(self) -> dict[str, Any]:
        """Write it for results.json and the card."""


class LabelReader:
    """Reads the labels of rows.

    Args:
        rows: All rows of the table.
        label: Aspect -> its column, or the columns of several raters, joined by `+`.
        words: Label as it is written -> number.
        scales: Aspect -> its stated scale, see `scales.stated_scale`.
        good: Aspect -> the level from which on labels are good.

    Attributes:
        accounts: Aspect -> what became of its labels.
        warnings: What looks as if columns were swapped.

    Raises:
        DataFileError: A scale is not stated where it must be, or a setting names no aspect.
    """

    def __init__(
        self,
        rows: Sequence[Row],
        label: Mapping[str, str],
        words: Mapping[str, Level],
        scales: Mapping[str, str],
        good: Mapping[str, str],
    ) -> None:
        """Find each aspect's scale."""
        present = {name for row in rows for name in row}
        for setting, given in (("scales", scales), ("good", good)):
            if unknown := sorted(given.keys() - label.keys()):
                raise DataFileError(
                    f"{setting} expects aspects ({', '.join(label) or 'none'}), but got {unknown[0]!r}."
                )
        self.accounts: dict[str, Account] = {}
        self.warnings: list[str] = []
        for aspect, column in label.items():
            names = rater_columns(column, present)
            cells = [cell for row in rows for name in names for cell in cells_of(row.get(name))]
            scale = find_scale(cells, words, scales.get(aspect), aspect).with_good(good.get(aspect), aspect)
            self.accounts[aspect] = Account(aspect, column, scale)
            by_column = {name: [scale.read(row.get(name))[0] for row in rows] for name in names}
            self.warnings += rater_warnings(aspect, by_column) if len(names) > 1 else []
            if column != aspect and aspect in present and column in present:
                self.warnings.append(
                    f"{aspect} is read from the column {column!r} and not from {aspect!r}: are they swapped?"
                )

    def read(self, source: Row, number: int) -> Row:
        """Read the labels of one row: `ratings`, and `reasons` of aspects without any."""
        ratings, reasons = {}, {}
        for aspect, account in self.accounts.items():
            ratings[aspect], why = read_cells(source, account.column, account.scale)
            account.n_read += len(ratings[aspect])
            wrong = [reason for reason in why if reason != BLANK]
            account.unused.update(map(kind_of, wrong))
            account.examples += [f"row {number}: {reason}" for reason in wrong][: SHOWN - len(account.examples)]
            if not ratings[aspect]:
                reasons[aspect] = (wrong or [BLANK])[0]
                account.blank += not wrong
        return {"ratings": ratings, "reasons": reasons}

    def settle(self, rows: Sequence[Row], *, merge: bool, allow_unreadable: bool = True) -> list[Row]:
        """Make one label of each row's ratings.

        Args:
            rows: What `read` gave, with the rows' own keys.
            merge: Whether rows of one question, response and generator are several raters' rows of one response.
            allow_unreadable: Whether more than a few labels may be unreadable.

        Raises:
            DataFileError: More than that are.
        """
        for aspect, account in self.accounts.items():
            account.check(allow_unreadable)
            self.warnings += rater_warnings(aspect, _by_rater(rows, aspect)) if merge else []
        return [self._settled(row) for row in (_merged(rows) if merge else rows)]

    def _settled(self, row: Row) -> Row:
        scores: Row = {}
        weights, exact = {}, {}
        reasons, ratings = dict(row["reasons"]), row["ratings"]
        for aspect, account in self.accounts.items():
            scores[aspect] = None
            if not ratings[aspect]:
                continue
            reasons.pop(aspect, None)  # of another rater
            account.ratings.append(ratings[aspect])
            found = settle(ratings[aspect], account.scale)
            scores[aspect] = found.level
            account.used += found.level is not None
            if found.reason:
                reasons[aspect] = found.reason
                account.unused[found.reason] += 1
            if found.weight < 1:
                weights[aspect] = round(found.weight, 6)
            if account.scale.means:
                exact[aspect] = ratings[aspect][0]
        several = {aspect: own for aspect, own in ratings.items() if len(own) > 1}
        kept = {key: value for key, value in row.items() if key not in ("ratings", "reasons")}
        added = {"ratings": several, "weights": weights, "raw_labels": exact}
        labels = {"scores": scores, "reasons": reasons, **{key: value for key, value in added.items() if value}}
        place = next((i for i, key in enumerate(row) if key == "ratings"), len(row))
        items = list(kept.items())
        return dict([*items[:place], *labels.items(), *items[place:]])


def _response(row: Row) -> tuple[str, ...]:
    """Return what tells responses apart; over another context it is another one."""
    return str(row["id"]), *(str(row.get(name) or "") for name in ("prediction", "generator", "context"))


def _by_rater(rows: Sequence[Row], aspect: str) -> dict[str, list[float | None]]:
    """Return what each rater said of every response, where rows name their raters."""
    column = next((name for name in RATERS if any(row.get(name) not in (None, "") for row in rows)), None)
    if column is None:
        return {}
    said = {(str(row.get(column)), _response(row)): row["ratings"][aspect][0] for row in rows if row["ratings"][aspect]}
    responses = list(dict.fromkeys(response for _, response in said))
    return {rater: [said.get((rater, one)) for one in responses] for rater in dict.fromkeys(name for name, _ in said)}


def _merged(rows: Sequence[Row]) -> list[Row]:
    """Join rows that hold one response, each with another rater's labels."""
    found: dict[tuple[str, ...], Row] = {}
    for row in rows:
        first = found.setdefault(_response(row), row)
        if first is not row:
            first["ratings"] = {aspect: [*own, *row["ratings"][aspect]] for aspect, own in first["ratings"].items()}
            first["reasons"] = {aspect: why for aspect, why in first["reasons"].items() if not first["ratings"][aspect]}
    return list(found.values())


def label_report(
    accounts: Mapping[str, Reported], rows: Sequence[Row], rejected: Mapping[str, int], warnings: Sequence[str] = ()
) -> dict[str, Any]:
    """Say what labels were taken for, where their rows come from, and what is not used.

    Args:
        accounts: Aspect -> what became of its labels or comparisons.
        rows: The rows.
        rejected: Reason -> rows that could not be used.
        warnings: What looked as if columns were swapped.

    Returns:
        The part `labels` of results.json: `rows`, `questions`, `rejected`, `generators` and `domains` with counts,
        `aspects` (see `Account.to_dict`) and `warnings`.
    """
    questions, responses = Counter(str(row["id"]) for row in rows), Counter(row.get("prediction") or "" for row in rows)
    found: dict[str, Any] = {"rows": len(rows), "questions": len(questions), "rejected": dict(rejected)}
    for key in ("generator", "domain"):
        found[f"{key}s"] = dict(Counter(str(row.get(key) or NOT_STATED) for row in rows).most_common())
    told = {name: account.to_dict() for name, account in accounts.items()}
    said = [*warnings, *_disagreements(told), *swap_warnings(rows, len(questions), len(responses))]
    return found | {"aspects": told, "warnings": said}


def _disagreements(told: Mapping[str, Any]) -> Iterator[str]:
    """Say where raters agree less than by chance."""
    for name, own in told.items():
        alpha, n = (own["raters"][key] for key in ("alpha", "rated_twice"))
        if alpha is not None and alpha < 0 and n >= FEWEST:
            yield (
                f"{name}: raters agree less than by chance (Krippendorff's alpha {alpha:.2f} on {n}): is a scale "
                "reversed, or are rows of several responses taken for one?"
            )


def joined_reports(reports: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Join the reports of several tables: counts are added, and each aspect keeps what was said of it last."""
    found: dict[str, Any] = {key: sum(one[key] for one in reports) for key in ("rows", "questions")}
    for key in ("rejected", "generators", "domains"):
        counts: Counter[str] = Counter()
        for one in reports:
            counts.update(one[key])
        found[key] = dict(counts.most_common())
    found["aspects"] = {name: told for one in reports for name, told in one["aspects"].items()}
    return found | {"warnings": [warning for one in reports for warning in one["warnings"]]}


def label_lines(report: Mapping[str, Any]) -> Iterator[str]:
    """Say in lines what stands in a report."""
    for name, told in report["aspects"].items():
        unused = ", ".join(f"{n} times {reason}" for reason, n in told["unused"].items())
        yield f"{name}: {_taken_for(told)}{'; not used: ' * bool(unused)}{unused}"
        if told["examples"]:
            yield f"{name}: could not be read: {'; '.join(told['examples'])}"
        raters = told["raters"]
        if raters["rated_twice"]:
            alpha = "undefined" if raters["alpha"] is None else f"{raters['alpha']:.3f}"
            yield (
                f"{name}: {raters['rated_twice']} rated by up to {raters['most']} raters, Krippendorff's alpha {alpha} "
                f"({raters['metric']})"
            )
    for kind in ("generators", "domains"):
        most = list(report[kind].items())
        shown = ", ".join(f"{name} ({n})" for name, n in most[:MOST_SHOWN])
        yield f"{kind}: {shown}{f' and {len(most) - MOST_SHOWN} more' if len(most) > MOST_SHOWN else ''}"


def _taken_for(told: Mapping[str, Any]) -> str:
    if "ties" in told:
        ties = f"{told['ties']} of them tied, a tie counting half for each"
        return f"{told['n']} comparisons, {ties}, {told['blank']} blank; good is {told['good']}"
    by = "stated" if told["good_stated"] else "by the usual rule"
    of = "stated" if told["scale_stated"] else "as the labels look"
    return f"{told['n']} labels of {told['scale']} ({of}), {told['blank']} blank; good is {told['good']} ({by})"


def swap_warnings(rows: Sequence[Row], n_questions: int, n_responses: int) -> list[str]:
    """Say where questions look like responses: they are asked less often, and repeat less."""
    found = []
    if n_questions > SWAPPED * n_responses:
        found.append(
            f"{len(rows)} rows hold {n_questions} different questions but only {n_responses} different responses: are "
            "question and prediction swapped?"
        )
    numbers = sum(number_of(row.get("question") or "", {}) is not None for row in rows)
    if numbers > len(rows) / 2:
        found.append(f"{numbers} of {len(rows)} questions are a bare number: is that the column of the questions?")
    asking = {
        key: sum(str(row.get(key) or "").rstrip().endswith("?") for row in rows) for key in ("question", "prediction")
    }
    if asking["prediction"] > max(asking["question"], len(rows) / 2):
        found.append(
            f"{asking['prediction']} of {len(rows)} responses end with a question mark but only {asking['question']} "
            "questions do: are question and prediction swapped?"
        )
    return found
