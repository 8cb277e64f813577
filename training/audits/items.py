"""What the audit looks at: distinct pairs, whatever file they came in, and the rows that they stand for."""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Place:
    """Where a row stands.

    Attributes:
        split: The name of the file's split.
        index: The row's position in the file, from 0; in a probing set, its position in its aspect's list.
        aspect: The aspect's list in a probing set; None in a file of rows.
    """

    split: str
    index: int
    aspect: str | None = None


@dataclass(frozen=True)
class Item:
    """One pair with its labels.

    Attributes:
        places: The file rows that it stands for: one, or in a probing set one for each of its labels.
        id: The question's id; None where the row has none.
        question: The question; empty where the row has none.
        prediction: The response; empty where the row has none.
        scores: Aspect -> label, labels that are None left out.
        sample: Which of the question's responses.
        generator: What wrote the response.
        split: The row's own `split`, else that of its file.
    """

    places: tuple[Place, ...]
    id: int | str | None
    question: str
    prediction: str
    scores: Mapping[str, int] = field(default_factory=dict)
    sample: int = 0
    generator: str | None = None
    split: str = ""

    @property
    def key(self) -> tuple[str, int, str]:
        """What names the response: id, sample and generator."""
        return str(self.id), self.sample, self.generator or ""
