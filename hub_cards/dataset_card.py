"""The card of a probing set: labelled pairs, who labelled them, how many there are, and what is wrong with them."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from huggingface_hub import DatasetCardData
from inspector_training.rows.records import LabelledPair

from inspector_pipeline.errors import DataFileError

from .judge_card import audit_lines
from .rendering import render
from .sources import DataSource

SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))
LARGEST = "n>1M"


@dataclass(frozen=True)
class LabelRow:
    """The labels of one aspect.

    Attributes:
        name: The aspect.
        counts: Score -> pairs.
        meanings: Score -> what it means; a score without a recorded meaning is absent.
    """

    name: str
    counts: dict[str, int]
    meanings: dict[str, str]


@dataclass(frozen=True)
class ProbingSetCard:
    """What the card of a probing set says.

    Attributes:
        repo_id: Hub id or folder that the snippet loads.
        n_pairs: Distinct pairs that an evaluation may score.
        n_auxiliary: Pairs made for training only, such as damaged gold solutions.
        n_questions: Distinct questions.
        labels: The aspects.
        labels_per_pair: How many labels a pair carries -> pairs.
        generators: Model -> responses that it wrote; "not recorded" where a row does not say.
        teacher: What gave the labels; None where not recorded.
        license: Of the labels; None where none was found.
        sources: What it was made of.
        audit: The audit's findings, one line each; None where no audit was made.
        notes: What else its maker has to say, a sentence each.
    """

    repo_id: str
    n_pairs: int
    n_auxiliary: int
    n_questions: int
    labels: list[LabelRow]
    labels_per_pair: dict[int, int]
    generators: dict[str, int]
    teacher: str | None
    license: str | None
    sources: list[DataSource]
    audit: list[str] | None
    notes: list[str]

    @classmethod
    def from_pairs(
        cls,
        pairs: Sequence[LabelledPair],
        *,
        repo_id: str,
        teacher: str | None = None,
        license: str | None = None,
        sources: Sequence[DataSource] = (),
        meanings: Mapping[str, Mapping[str, str]] | None = None,
        audit: Any = None,
        notes: Sequence[str] = (),
    ) -> "ProbingSetCard":
        """Count what there is.

        Args:
            pairs: The labelled pairs.
            repo_id: Hub id or folder that the snippet loads.
            teacher: What gave the labels.
            license: Of the labels; None where none was found.
            sources: What it was made of.
            meanings: Aspect -> score -> what it means.
            audit: The audit's findings.
            notes: What else there is to say, a sentence each.

        Raises:
            DataFileError: There is no pair.
        """
        if not pairs:
            raise DataFileError("A probing set's card expects labelled pairs, but got none.")
        scored = [pair for pair in pairs if not pair.auxiliary]
        names = dict.fromkeys(name for pair in scored for name in pair.scores)
        counts = {name: Counter(p.scores[name] for p in scored if name in p.scores) for name in names}
        known = meanings or {}
        return cls(
            repo_id=repo_id,
            n_pairs=len(scored),
            n_auxiliary=len(pairs) - len(scored),
            n_questions=len({pair.id for pair in scored}),
            labels=[
                LabelRow(
                    name,
                    {str(score): counts[name][score] for score in sorted(counts[name])},
                    {str(score): text for score, text in known.get(name, {}).items()},
                )
                for name in names
            ],
            labels_per_pair=dict(sorted(Counter(len(pair.scores) for pair in scored).items())),
            generators=dict(Counter(pair.generator or "not recorded" for pair in scored).most_common()),
            teacher=teacher,
            license=license,
            sources=list(sources),
            audit=None if audit is None else audit_lines(audit),
            notes=list(notes),
        )

    @property
    def name(self) -> str:
        """Name the set."""
        return self.repo_id.rstrip("/").split("/")[-1]

    def metadata(self) -> DatasetCardData:
        """Build the metadata that the Hub reads."""
        total = self.n_pairs + self.n_auxiliary
        return DatasetCardData(
            license=self.license or "unknown",
            language="en",
            pretty_name=self.name,
            task_categories=["text-classification"],
            size_categories=[next((label for bound, label in SIZES if total < bound), LARGEST)],
            source_datasets=[source.hub_id for source in self.sources if source.hub_id] or None,
            tags=["llm-as-a-judge", "inspector-judge", "probing"],
        )

    def render(self) -> str:
        """Render the card as Markdown with metadata; a variable that the template lacks is an error."""
        shown = {field.name: getattr(self, field.name) for field in fields(self)}
        return render("dataset_card.md.jinja", self.metadata(), **shown, name=self.name)
