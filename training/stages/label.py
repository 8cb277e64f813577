r"""Have a teacher LLM score responses, at any OpenAI-compatible endpoint.

python -m training label --responses responses.jsonl --output labelled.jsonl --teacher gpt-5-mini \
    --endpoint.base-url https://api.openai.com/v1 --prices.prompt 0.25 --prices.completion 2 --prices.max-cost 10

What cannot be parsed, even after one repair, is null with its reason, never a number. Tokens of every call count, those
of repairs and of useless replies too. A killed run goes on where it stopped; only calls in flight then are paid twice.
"""

import asyncio
import logging
from collections import Counter
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple

from inspector_pipeline.errors import SettingsError
from inspector_pipeline.files.tables import Row
from inspector_pipeline.pairs import is_blank

from ..labelling.endpoint import Endpoint, EndpointConfig, Failure, Message, Reply, derived_seed, model_label
from ..labelling.journal import (
    Journal,
    Key,
    Ledger,
    Prices,
    answers_manifest,
    is_settled,
    most_tokens,
)
from ..labelling.rubrics import FIVE_LEVELS, Rubric, Scale, chosen_rubrics
from ..labelling.teacher import combine, grading_messages, read_answer, repair_messages, response_format
from ..rows.records import checked_rows, read_records, response_key
from ..runs.manifest import Manifest

logger = logging.getLogger(__name__)

MOST_PROBLEM = 400  # bytes that the description of one aspect's problem may take


@dataclass(frozen=True)
class Config:
    """Settings of the label stage.

    Attributes:
        responses: Rows with id, question, prediction and where known sample and generator, in any table format.
        output: JSON Lines file to write: every response's keys with scores, reasons, justifications, ....
        teacher: The teacher's name at the endpoint.
        endpoint: Any OpenAI-compatible endpoint.
        aspects: Which of the five aspects to score, or of the seven criteria of instruction data.
        scale: Theirs: 1-5 or 0-1 of aspects, 1-9 of criteria.
        custom_aspects: Further aspects with a name, a description and a scale of their own.
        calls: One call for each aspect, or one for all together.
        samples: Replies for each score; the score is their lower median, and their agreement is stored.
        weight_by_agreement: Whether the agreement also becomes the label's weight in a fit.
        temperature: 0 takes the likeliest tokens (and one sample); null leaves it to the server.
        max_tokens: Limit of a reply's new tokens.
        structured: What the server is asked to hold replies to: the JSON schema, any JSON object, or none.
        show_reference: Whether the teacher sees the row's answer, where there is one.
        seed: Each call's own seed is derived from it and the call's name; null sends none.
        prices: Prices of tokens, and a limit of cost.
        retry_failed: Whether to ask again, in a later run, what failed for a reason that may have passed.
    """

    responses: str
    output: str
    teacher: str
    endpoint: EndpointConfig
    aspects: tuple[str, ...] = tuple(FIVE_LEVELS)
    scale: Scale = "1-5"
    custom_aspects: tuple[Rubric, ...] = ()
    calls: Literal["per_aspect", "together"] = "per_aspect"
    samples: int = 1
    weight_by_agreement: bool = False
    temperature: float | None = 0.0
    max_tokens: int = 512
    structured: Literal["json_schema", "json_object", "none"] = "json_schema"
    show_reference: bool = False
    seed: int | None = 731
    prices: Prices = field(default_factory=Prices)
    retry_failed: bool = True

    def __post_init__(self) -> None:
        """Refuse settings that contradict each other.

        Raises:
            SettingsError: They do.
        """
        if not self.output.endswith(".jsonl"):
            raise SettingsError(f"output expects a name on .jsonl, but got {self.output}.")
        if self.samples < 1 or (self.samples > 1 and self.temperature == 0):
            raise SettingsError(
                f"samples expects 1, or more with a temperature above 0, but got {self.samples} at temperature "
                f"{self.temperature}."
            )
        if self.weight_by_agreement and self.samples == 1:
            raise SettingsError("weight_by_agreement expects samples above 1: one reply agrees with itself.")
        self.groups()

    def groups(self) -> list[list[Rubric]]:
        """Return the rubrics of each call for one response.

        Raises:
            SettingsError: The aspects are unknown or doubled.
        """
        rubrics = chosen_rubrics(self.aspects, self.scale, self.custom_aspects)
        return [rubrics] if self.calls == "together" else [[rubric] for rubric in rubrics]


class Unit(NamedTuple):
    """One score to ask for: a response, the rubrics of the call, and which of the samples."""

    row: Row
    rubrics: list[Rubric]
    sample: int

    @property
    def key(self) -> Key:
        """Name of the unit: the response's, the aspects', and the sample."""
        return *response_key(self.row), "+".join(rubric.name for rubric in self.rubrics), self.sample


def run(config: Config) -> None:
    """Run the stage: responses -> labelled rows.

    Raises:
        DataFileError: The responses cannot be read, or a journal of other settings is in the way.
        EndpointError: The endpoint cannot be used or the limit of cost is reached; what was answered is kept.
    """
    output = Path(config.output)
    manifest = Manifest.of("label", config, (config.responses,))
    manifest = answers_manifest(manifest, ("retry_failed", "prices"), teacher=model_label(config.teacher))
    if is_settled(output, manifest, config.retry_failed):
        return
    texts = ("question", "prediction", "answer") if config.show_reference else ("question", "prediction")
    rows = checked_rows(config.responses, read_records(config.responses), response_key, texts)
    with Journal(output, manifest) as journal:
        grader = Grader(config, journal)
        asyncio.run(grader.grade_all(rows))
        labelled = [_labelled(config, row, journal) for row in rows]
        journal.finish(labelled)
    n_null = sum(score is None for row in labelled for score in row["scores"].values())
    used = grader.ledger.summary()
    logger.info("Wrote %d rows to %s; %d scores are null. Used: %s.", len(rows), output, n_null, used)


def _unanswerable(row: Row) -> str | None:
    """Say why a row is not shown to the teacher."""
    if row.get("prediction") is None:
        return f"no response: {row.get('error') or 'none was given'}"
    return "no response: it is blank" if is_blank(row["prediction"]) else None


class Grader:
    """Asks the teacher for one score at a time and records what comes of it.

    Args:
        config: Settings of the stage.
        journal: Where results go.
    """

    def __init__(self, config: Config, journal: Journal) -> None:
        """Begin with the costs of earlier runs."""
        self.config = config
        self.journal = journal
        self.ledger = Ledger(config.prices, journal.usage.values())
        self.endpoint = Endpoint(config.endpoint, config.teacher)

    async def grade_all(self, rows: list[Row]) -> None:
        """Ask for every score that the journal lacks.

        Raises:
            EndpointError: No call can succeed, or the limit of cost is reached.
        """
        asked, config = [row for row in rows if not _unanswerable(row)], self.config
        units = [Unit(row, group, k) for row in asked for group in config.groups() for k in range(config.samples)]
        async with self.endpoint:
            await self.journal.ask_for_missing(
                self.endpoint, units, self.grade, retry_failed=config.retry_failed, unit="call"
            )

    async def grade(self, unit: Unit) -> bool:
        """Ask for a unit's scores, with one repair, record them, and say whether the teacher replied at all."""
        reference = unit.row.get("answer") if self.config.show_reference else None
        messages = grading_messages(unit.row, unit.rubrics, reference)
        call, repair = self._most_used(unit, messages)
        async with self.ledger.room_for(Counter(call) + Counter(repair)):
            answer = await self._ask(unit, messages, call)
            verdict = read_answer(answer, unit.rubrics)
            if isinstance(answer, Reply) and verdict.reasons and not answer.refusal:
                problem = "; ".join(verdict.reasons.values())
                again = repair_messages(messages, answer.text, unit.rubrics, problem)
                answer = await self._ask(unit, again, repair)
                verdict = verdict.completed_by(read_answer(answer, unit.rubrics))
        passing = isinstance(answer, Failure) and answer.passing
        if not (passing and self.endpoint.stopping.is_set()):  # then it was not tried to the end
            self.journal.append({"key": list(unit.key), "passing": passing, **asdict(verdict)})
        return isinstance(answer, Reply)

    async def _ask(self, unit: Unit, messages: list[Message], most: dict[str, int]) -> Reply | Failure:
        """Ask once, and put what it took, at most so much, into the journal at once."""
        config = self.config
        seeded = config.seed is not None and config.temperature != 0
        answer = await self.endpoint.ask(
            messages,
            config.max_tokens,
            temperature=config.temperature,
            seed=derived_seed(config.seed or 0, *unit.key) if seeded else None,
            response_format=response_format(unit.rubrics, config.structured),
        )
        if isinstance(answer, Reply):
            counted = most.keys() <= answer.usage.keys()
            usage = answer.usage if counted else {**most, **answer.usage, "calls_not_counted_by_the_server": 1}
            self.ledger.used.update(usage)
            self.journal.append({"key": list(unit.key), "usage": usage, "partial": True})
        return answer

    def _most_used(self, unit: Unit, messages: list[Message]) -> tuple[dict[str, int], dict[str, int]]:
        """Bound from above what a unit's call and its repair can use."""
        new = self.config.max_tokens
        first = most_tokens(messages) + len(str(response_format(unit.rubrics, self.config.structured)))
        added = new + most_tokens(repair_messages((), "", unit.rubrics, "")) + MOST_PROBLEM * len(unit.rubrics)
        call = {"prompt_tokens": first, "completion_tokens": new}
        return call, {"prompt_tokens": first + added, "completion_tokens": new}


def _labelled(config: Config, row: Row, journal: Journal) -> Row:
    """Join a response with what the journal holds under its name."""
    unanswerable = _unanswerable(row)
    found: dict[str, dict[str, Any]] = {}
    usage: Counter[str] = Counter()
    for group in config.groups():
        keys = [Unit(row, group, k).key for k in range(config.samples)]
        entries = [] if unanswerable else [journal.entries[key] for key in keys]
        for key in keys:
            usage.update(journal.usage.get(key, {}))
        for rubric in group:
            for name, value in combine(rubric.name, entries, unanswerable).items():
                if value is not None or name == "scores":  # there, null says that there is no label
                    found.setdefault(name, {})[rubric.name] = value
    names = ["scores", "reasons", "justifications", *(["agreement", "sample_scores"] if config.samples > 1 else [])]
    if config.weight_by_agreement:
        found["weights"] = found.get("agreement", {})
        names.append("weights")
    merged = {name: {**(row.get(name) or {}), **found.get(name, {})} for name in names}
    return {**row, **merged, "teacher": model_label(config.teacher), "teacher_usage": dict(usage)}
