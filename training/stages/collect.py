r"""Collect responses to questions from a generator, by an endpoint or right here.

python -m training collect --questions questions.jsonl --output responses.jsonl --generator Qwen/Qwen3-1.7B \
    --endpoint.base-url http://127.0.0.1:8000/v1

Without an endpoint the generator is a Hub id, folder or pypi: id, and runs here with plain transformers.

A response is joined to its question by id. A killed run goes on where it stopped. What failed is a row with its error,
tried again by the next run where the reason may have passed (429, 5xx, time-outs, connections).
"""

import asyncio
import logging
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from transformers.utils import logging as hf_logging

from inspector_pipeline.batches import plan_batches
from inspector_pipeline.errors import SettingsError
from inspector_pipeline.files.tables import Row
from inspector_pipeline.pairs import is_blank

from ..labelling.endpoint import Endpoint, EndpointConfig, Failure, Message, derived_seed, model_label
from ..labelling.generate import LocalConfig, LocalGenerator
from ..labelling.journal import Journal, Key, answers_manifest, is_settled
from ..rows.records import checked_rows, read_records
from ..runs.manifest import Manifest

logger = logging.getLogger(__name__)

QUESTION_MARK = "{question}"


@dataclass(frozen=True)
class Config:
    """Settings of the collect stage.

    Attributes:
        questions: Rows with id and question, in any table format; ids are distinct.
        output: JSON Lines file to write: every question's keys with sample, prediction, generator, error, ....
        generator: The model's name at the endpoint; without one, a Hub id, folder or pypi: id to run here.
        endpoint: Any OpenAI-compatible endpoint.
        local: How the model runs here, without an endpoint.
        samples: Responses for each question.
        temperature: 0 takes the likeliest tokens (and one sample).
        top_p: Share of the probability to sample from.
        max_tokens: Limit of new tokens; a response cut off there has the finish_reason `length`.
        system: System message, if any.
        prompt: User message; {question} stands for the question.
        seed: Each sample's own seed is derived from it, the id and the sample. Not every endpoint heeds it.
        retry_failed: Whether to ask again, in a later run, what failed for a reason that may have passed.
    """

    questions: str
    output: str
    generator: str
    endpoint: EndpointConfig | None = None
    local: LocalConfig = field(default_factory=LocalConfig)
    samples: int = 1
    temperature: float = 0.0
    top_p: float = 1.0
    max_tokens: int = 512
    system: str | None = None
    prompt: str = QUESTION_MARK
    seed: int = 731
    retry_failed: bool = True

    def __post_init__(self) -> None:
        """Refuse settings that contradict each other.

        Raises:
            SettingsError: They do.
        """
        if not self.output.endswith(".jsonl"):
            raise SettingsError(f"output expects a name on .jsonl, but got {self.output}.")
        if self.samples < 1 or (self.samples > 1 and not self.temperature):
            raise SettingsError(
                f"samples expects 1, or more with a temperature above 0, but got {self.samples} at temperature "
                f"{self.temperature:g}."
            )
        if QUESTION_MARK not in self.prompt:
            raise SettingsError(f"prompt expects {QUESTION_MARK} in it, but got {self.prompt!r:.80}.")


class Unit(NamedTuple):
    """One response to collect: a question, and which of its samples."""

    row: Row
    sample: int

    @property
    def key(self) -> Key:
        """Name of the unit: the question's id and the sample."""
        return str(self.row["id"]), self.sample


def run(config: Config) -> None:
    """Run the stage: questions -> responses.

    Raises:
        DataFileError: The questions cannot be read, or a journal of other settings is in the way.
        EndpointError: The endpoint cannot be used; what it answered is kept.
        BackboneError: The local model cannot be loaded.
    """
    output = Path(config.output)
    manifest = answers_manifest(
        Manifest.of("collect", config, (config.questions,)),
        ("retry_failed", "local") if config.endpoint else ("retry_failed",),
        generator=model_label(config.generator),
    )
    if is_settled(output, manifest, config.retry_failed):
        return
    rows = checked_rows(config.questions, read_records(config.questions), lambda row: (str(row["id"]),), ("question",))
    units = [Unit(row, sample) for row in rows for sample in range(config.samples)]
    with Journal(output, manifest) as journal:
        if config.endpoint is None:
            _generate(config, units, journal)
        else:
            asyncio.run(_ask(config, config.endpoint, units, journal))
        responses = [_response(config, unit, journal) for unit in units]
        journal.finish(responses)
    failed = sum(row["prediction"] is None for row in responses)
    logger.info("Wrote %d responses to %s; %d without a prediction.", len(responses), output, failed)


def _messages(config: Config, row: Row) -> list[Message]:
    system = [{"role": "system", "content": config.system}] if config.system else []
    return [*system, {"role": "user", "content": config.prompt.replace(QUESTION_MARK, row["question"])}]


def _response(config: Config, unit: Unit, journal: Journal) -> Row:
    """Join a question with what the journal holds under its id."""
    entry = journal.entries[unit.key]
    return {
        **unit.row,
        "sample": unit.sample,
        "prediction": entry.get("prediction"),
        "generator": model_label(config.generator),
        "error": entry.get("error"),
        "finish_reason": entry.get("finish_reason"),
        "usage": journal.usage[unit.key],
    }


def _entry(key: Key, text: str, finish_reason: str | None, usage: dict[str, int], refusal: str = "") -> Row:
    """Write a journal entry; an empty reply is no response."""
    error = None if not is_blank(text) else f"refused: {refusal}" if refusal else "the reply is empty"
    described = {"prediction": None if error else text, "error": error, "finish_reason": finish_reason, "usage": usage}
    return {"key": list(key), **described}


async def _ask(config: Config, settings: EndpointConfig, units: list[Unit], journal: Journal) -> None:
    """Ask the endpoint for every response that the journal lacks."""
    sampling = {"temperature": config.temperature, "top_p": config.top_p if config.top_p < 1 else None}
    async with Endpoint(settings, config.generator) as endpoint:

        async def ask(unit: Unit) -> bool:
            seed = derived_seed(config.seed, *unit.key) if config.temperature else None
            answer = await endpoint.ask(_messages(config, unit.row), config.max_tokens, seed=seed, **sampling)
            if isinstance(answer, Failure):
                if not (answer.passing and endpoint.stopping.is_set()):  # then it was not tried to the end
                    journal.fail(unit.key, answer)
                return False
            journal.append(_entry(unit.key, answer.text, answer.finish_reason, answer.usage, answer.refusal))
            return True

        await journal.ask_for_missing(endpoint, units, ask, retry_failed=config.retry_failed, unit="response")


def _generate(config: Config, units: list[Unit], journal: Journal) -> None:
    """Generate every batch that the journal lacks; batches depend on the questions only, not on what is done."""
    missing = {unit.key for unit in units if not journal.is_done(unit.key, retry_failed=False)}
    if not missing:
        return
    model = LocalGenerator(config.generator, config.local)
    rows = {unit.key[0]: unit.row for unit in units}
    prompts = {name: model.encode(_messages(config, row)) for name, row in rows.items()}
    room = (model.max_length or sys.maxsize) - config.max_tokens
    for name, sample in missing:
        if len(prompts[name]) > room:
            reason = f"the prompt has {len(prompts[name])} tokens, but the model has room for {room}"
            journal.append({"key": [name, sample], "error": reason})
    keys = [unit.key for unit in units if len(prompts[unit.key[0]]) <= room]
    batches = plan_batches([len(prompts[name]) for name, _ in keys], config.local.batch_size)
    for batch in hf_logging.tqdm(batches, desc="collect", unit="batch"):
        chosen = [keys[i] for i in batch]
        if missing.isdisjoint(chosen):
            continue
        ids = [prompts[name] for name, _ in chosen]
        seeds = [derived_seed(config.seed, *key) for key in chosen]
        made = model.generate(ids, config.max_tokens, config.temperature, config.top_p, seeds)
        entries = [
            _entry(key, one.text, one.finish_reason, {"prompt_tokens": len(prompt), "completion_tokens": one.n_tokens})
            for key, prompt, one in zip(chosen, ids, made, strict=True)
            if key in missing
        ]
        journal.append(*entries)
