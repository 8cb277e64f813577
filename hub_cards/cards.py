"""What every card shares, and the card of a probing set.

A card is a dataclass of what it says, a template beside this module, and metadata that the Hub reads. A variable that
the template names and the card lacks is an error; the same card gives the same bytes.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from huggingface_hub import CardData, DatasetCardData

from inspector_pipeline.errors import DataFileError

from .evidence import DataSource
from .markdown import environment

SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))
LARGEST = "n>1M"


def render(template: str, metadata: CardData, **fields: Any) -> str:
    """Render a card.

    Args:
        template: File name of the template beside this module.
        metadata: The card's metadata.
        **fields: What the template names; one that is missing is an error.

    Returns:
        Markdown behind its metadata, with one newline at the end. The same fields give the same bytes.
    """
    filters = {"interval": interval, "audit_lines": audit_lines}
    body = environment(filters).get_template(template).render(fields)
    return f"---\n{metadata.to_yaml(line_break=chr(10))}\n---\n{body.rstrip()}\n"


def interval(value: dict[str, float]) -> str:
    """Write a value with its 95 % interval."""
    return f"{value['value']:.3f} ({value['low']:.3f} to {value['high']:.3f})"


def audit_lines(audit: Any) -> list[str]:
    """Write an audit's findings, one line each: its `findings` where it has such a list, else its plain values."""
    found = audit.get("findings", audit) if isinstance(audit, Mapping) else audit
    if isinstance(found, Mapping):
        own = {key: value for key, value in found.items() if key != "aspects"}
        return [f"{key}: {_plain(value)}" for part in (own, found.get("aspects", {})) for key, value in part.items()]
    return [_plain(item) for item in found]


def _plain(value: Any) -> str:
    if isinstance(value, Mapping):
        said = {key: _plain(item) for key, item in value.items()}
        return "; ".join(f"{key.replace('_', ' ')} {words}" for key, words in said.items() if words)
    if isinstance(value, (list, tuple)):
        return ", ".join(map(_plain, value))
    return "not looked for" if value is None else " ".join(str(value).split())


class LabelledRow(Protocol):
    """A labelled pair, as far as the card of its set counts it.

    Attributes:
        id: The question's id.
        scores: Aspect -> label.
        generator: What wrote the response; None where the row does not say.
        auxiliary: Whether it was made for training only, such as a damaged gold solution.
    """

    id: int | str
    scores: dict[str, int]
    generator: str | None
    auxiliary: bool


@dataclass(frozen=True)
class ProbingSetCard:
    """The card of a probing set: labelled pairs, who labelled them, how many there are, and what is wrong with them.

    Attributes:
        pairs: The labelled pairs, one at least.
        repo_id: Hub id or folder that the snippet loads.
        teacher: What gave the labels; None where not recorded.
        license: Of the labels; None where none was found.
        sources: What it was made of.
        meanings: Aspect -> score -> what it means; a score without a recorded meaning is absent.
        audit: The audit's findings; None where no audit was made.
        notes: What else its maker has to say, a sentence each.
    """

    pairs: Sequence[LabelledRow]
    repo_id: str
    teacher: str | None = None
    license: str | None = None
    sources: Sequence[DataSource] = ()
    meanings: Mapping[str, Mapping[str, str]] | None = None
    audit: Any = None
    notes: Sequence[str] = ()

    def __post_init__(self) -> None:
        """Refuse an empty set.

        Raises:
            DataFileError: There is no pair.
        """
        if not self.pairs:
            raise DataFileError("A probing set's card expects labelled pairs, but got none.")

    @property
    def name(self) -> str:
        """Name of the set."""
        return self.repo_id.rstrip("/").split("/")[-1]

    @property
    def scored(self) -> list[LabelledRow]:
        """The pairs that an evaluation may score."""
        return [pair for pair in self.pairs if not pair.auxiliary]

    @property
    def n_auxiliary(self) -> int:
        """How many pairs serve training only."""
        return len(self.pairs) - len(self.scored)

    @property
    def n_questions(self) -> int:
        """How many questions the scored pairs have."""
        return len({pair.id for pair in self.scored})

    @property
    def labels(self) -> dict[str, dict[str, int]]:
        """Aspect -> score -> scored pairs that have it."""
        names = dict.fromkeys(name for pair in self.scored for name in pair.scores)
        counts = {name: Counter(pair.scores[name] for pair in self.scored if name in pair.scores) for name in names}
        return {name: {str(score): found[score] for score in sorted(found)} for name, found in counts.items()}

    @property
    def labels_per_pair(self) -> dict[int, int]:
        """How many labels a pair carries -> pairs."""
        return dict(sorted(Counter(len(pair.scores) for pair in self.scored).items()))

    @property
    def generators(self) -> dict[str, int]:
        """Model -> responses that it wrote, most first; "not recorded" where a row does not say."""
        return dict(Counter(pair.generator or "not recorded" for pair in self.scored).most_common())

    def metadata(self) -> DatasetCardData:
        """Build the metadata that the Hub reads."""
        return DatasetCardData(
            license=self.license or "unknown",
            language="en",
            pretty_name=self.name,
            task_categories=["text-classification"],
            size_categories=[next((label for bound, label in SIZES if len(self.pairs) < bound), LARGEST)],
            source_datasets=[source.hub_id for source in self.sources if source.hub_id] or None,
            tags=["llm-as-a-judge", "inspector-judge", "probing"],
        )

    def render(self) -> str:
        """Render the card as Markdown with metadata."""
        return render("dataset_card.md.jinja", self.metadata(), card=self)
