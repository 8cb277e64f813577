"""Settings of the extract stage, and what they stand for: pairs, readings and the fingerprint of the features."""

import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Literal

import torch
from transformers import AutoModel, PreTrainedConfig, PreTrainedTokenizerBase

from inspector_pipeline.backbone import named_by_content
from inspector_pipeline.errors import BackboneError, DataFileError, SettingsError
from inspector_pipeline.features import POOLINGS, STATE_KINDS
from inspector_pipeline.files.disk import file_sha256
from inspector_pipeline.files.tables import read_json
from inspector_pipeline.int8 import TORCH, TORCH_INT8
from inspector_pipeline.names import CONTEXT, REFERENCE
from inspector_pipeline.pairs import PAIR_KEYS, QUESTION_KEYS, check_pair
from inspector_pipeline.template import QUESTION_MARK, PairTemplate
from inspector_pipeline.truncation import position_limit, truncated_config
from inspector_pipeline.turns import ChatTurns
from inspector_pipeline.wheel_backbone import EMBEDDED_BACKBONE_ID, EMBEDDED_BACKBONE_REVISION

from ..labelling.readings import OWN, own_readings
from ..rows.probing_set import drop_foreign, is_probing_set, read_probing_set, read_questions, read_rubrics
from ..rows.records import LabelledPair, labelled_pairs, read_records
from .store import CHAT, OUTPUT_STATE, QUESTION, RUBRIC, RUBRIC_PREFIX, Fingerprint

logger = logging.getLogger(__name__)

TEMPLATE_KEYS = {"name", "template", "add_special_tokens", "question_only"}
READING_NAME = re.compile(r"(rubric:)?\w+")  # a shard's file is named by it
VERSIONS = ("torch", "transformers", "tokenizers")  # what features depend on
WEIGHT_SUFFIXES = {".json", ".safetensors", ".bin", ".gguf"}
WINDOW_ROWS = 256  # of a shard
SLOTTED = {CONTEXT: (CONTEXT,), REFERENCE: (REFERENCE,), f"{CONTEXT}_{REFERENCE}": (CONTEXT, REFERENCE)}
PARAGRAPH = "\n\n"
BUILT_IN = (CHAT, QUESTION, RUBRIC, *SLOTTED)


@dataclass(frozen=True)
class ExtractConfig:
    """Settings of the extract stage.

    Attributes:
        pairs: Rows with question and prediction, labelled or not (JSON Lines, CSV, Parquet), or a probing set in the
            published format (JSON).
        output: Folder to write to.
        questions: The dataset's questions (JSON Lines); pairs with other questions are foreign and dropped.
        backbone_id: Hub id, folder, `pypi:` or `gguf:` id.
        backbone_revision: Its revision.
        dtype: Of the backbone's computation. Features are always stored as float32.
        engine: The arithmetic that the judge will serve with: torch, or torch-int8, which is faster on a CPU. Probes
            are fitted on features of the same arithmetic.
        max_length: Upper bound on the tokens of a pair.
        layers: Which states to read, 0 for the embeddings; all where not given.
        poolings: Which poolings: mean, last, response_mean, min, max.
        states: Which kinds of state: raw, rms_normed, final_norm, or output (what the backbone itself gives: raw, but
            final_norm at its last layer).
        readings: How to read pairs, one pass each: chat (the backbone's chat template), question (the same with the
            question alone, up to where the reply begins; rows need no prediction where only such readings are asked
            for), context, reference or context_reference (chat with the context before the question, the reference
            after the reply, or both), rubric (a published probing set's own rubrics, each for the pairs that carry its
            label), or a JSON file with objects of name, template (with {question} and {prediction}, and where rows have
            them {reference} and {context}) and, where wanted, add_special_tokens, and question_only for one with
            {question} alone.
        rubrics: Probing set, or JSON of readings by aspect, whose rubrics `rubric` means, or `own` for those of this
            project; where not given, those of the pairs' own file.
        depth: Layers to load; as many as are read where not given.
        window: Rows of a shard.
    """

    pairs: str
    output: str
    questions: str | None = None
    backbone_id: str = EMBEDDED_BACKBONE_ID
    backbone_revision: str | None = EMBEDDED_BACKBONE_REVISION
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    engine: Literal["torch", "torch-int8"] = "torch"
    max_length: int = 2048
    layers: tuple[int, ...] | None = None
    poolings: tuple[str, ...] = ("response_mean", "last", "mean")
    states: tuple[str, ...] = ("rms_normed",)
    readings: tuple[str, ...] = (CHAT,)
    rubrics: str | None = None
    depth: int | None = None
    window: int = WINDOW_ROWS


def check_settings(config: ExtractConfig) -> None:
    """Refuse settings that no backbone could serve.

    Raises:
        DataFileError: A setting is empty or unknown; the message names it.
    """
    for name, known in (("poolings", POOLINGS), ("states", (*STATE_KINDS, OUTPUT_STATE))):
        asked = getattr(config, name)
        if not asked or set(asked) - set(known):
            raise DataFileError(f"{name} expects one or more of {', '.join(known)}, but got {asked!r}.")
    if config.engine == TORCH_INT8 and config.dtype != "float32":
        raise DataFileError(f"dtype expects float32 beside the engine {TORCH_INT8}, but got {config.dtype}.")
    if config.window < 1:
        raise DataFileError(f"window expects one row or more, but got {config.window}.")
    if not config.readings:
        raise DataFileError(f"readings expects {', '.join(BUILT_IN)} or a file of templates, but got none.")


def read_pairs(config: ExtractConfig) -> tuple[list[LabelledPair], dict[str, PairTemplate], int]:
    """Read the pairs to extract.

    Returns:
        The pairs with a prediction, or all where no reading holds one, in the file's order; the rubrics by aspect,
        where the file is a probing set; and how many pairs were dropped as foreign.

    Raises:
        DataFileError: A file cannot be read, or no pair is left.
        PairError: A text of a pair is blank or no text.
    """
    alone = _question_only(config)
    rubrics: dict[str, PairTemplate] = {}
    if is_probing_set(config.pairs):
        pairs, rubrics = read_probing_set(config.pairs)
    else:
        pairs = labelled_pairs(read_records(config.pairs), unlabelled=True, question_only=alone)
    if config.rubrics:
        rubrics = read_readings(config.rubrics)
    n_foreign = 0
    if config.questions:
        pairs, foreign = drop_foreign(pairs, read_questions(config.questions))
        n_foreign = len(foreign)
        logger.info("Dropped %d of %d pairs: foreign to %s.", n_foreign, len(pairs) + n_foreign, config.questions)
    if not pairs:
        raise DataFileError(f"{config.pairs} expects at least one pair of a known question, but holds none.")
    for i, pair in enumerate(pairs):
        texts = {"question": pair.question, "prediction": pair.prediction}
        check_pair(texts, i, QUESTION_KEYS if alone else PAIR_KEYS)
    return pairs, rubrics, n_foreign


def _question_only(config: ExtractConfig) -> bool:
    """Whether every reading that is asked for holds the question alone."""
    files = [asked for asked in config.readings if asked not in BUILT_IN]
    from_files = [reading for path in files for _, reading in read_templates(path)]
    return not {CHAT, RUBRIC, *SLOTTED} & set(config.readings) and all(reading.question_only for reading in from_files)


def make_readings(
    config: ExtractConfig,
    tokenizer: PreTrainedTokenizerBase,
    rubrics: dict[str, PairTemplate],
    begun: Fingerprint | None,
) -> dict[str, PairTemplate]:
    """Make the readings that are asked for.

    Args:
        config: Settings.
        tokenizer: The backbone's.
        rubrics: A probing set's own, by aspect.
        begun: What the output folder was begun with.

    Returns:
        Name -> reading. A chat template that was frozen in the folder before is kept, as it may write today's date.

    Raises:
        DataFileError: A file of templates is malformed, or a name is doubled or unfit for a file's name.
        ReadingError: A template is malformed.
    """
    backbone_id, _ = named_by_content(config.backbone_id, config.backbone_revision)
    frozen = begun.readings if begun is not None and begun.backbone["id"] == backbone_id else {}
    named: list[tuple[str, PairTemplate]] = []
    for asked in config.readings:
        if asked == CHAT:
            named.append((CHAT, frozen.get(CHAT) or PairTemplate.from_chat_template(tokenizer)))
        elif asked == QUESTION:
            made = frozen.get(QUESTION) or task_reading(QUESTION_MARK, tokenizer, answer="", question_only=True)
            named.append((QUESTION, made))
        elif asked in SLOTTED:
            named.append((asked, frozen.get(asked) or slotted_reading(SLOTTED[asked], tokenizer)))
        elif asked != RUBRIC:
            named += read_templates(asked)
        elif rubrics:
            named += [(f"{RUBRIC_PREFIX}{aspect}", rubric) for aspect, rubric in rubrics.items()]
        else:
            raise DataFileError(
                f"The reading {RUBRIC} expects pairs in the published format, whose prompts hold the rubrics, or "
                f"such a file as rubrics, but got {config.pairs}. Or give a JSON file of templates instead, named "
                f"{RUBRIC_PREFIX}<aspect>."
            )
    names = [name for name, _ in named]
    wrong = [name for name in names if not READING_NAME.fullmatch(name) or names.count(name) > 1]
    if wrong:
        raise DataFileError(
            f"readings expects distinct names of letters, digits and _ (after {RUBRIC_PREFIX}, where it is one "
            f"aspect's), but got {wrong[0]!r}."
        )
    return dict(named)


def slotted_reading(slots: Sequence[str], tokenizer: PreTrainedTokenizerBase) -> PairTemplate:
    """Put what stands beside a pair into user turns: the context before the question, the reference after the reply.

    All that is read of the response can be held against the context; a reference, which is short, is held against the
    whole response in the last token.

    Args:
        slots: context, reference or both.
        tokenizer: The backbone's.

    Raises:
        ReadingError: The chat template changes the texts it is given.
    """
    chat = PairTemplate.from_chat_template(tokenizer)
    before = f"{{{CONTEXT}}}\n\n" if CONTEXT in slots else ""
    after = chat.suffix
    if REFERENCE in slots:
        turns = ChatTurns.of(chat.prefix, chat.middle, chat.suffix, tokenizer)
        after = f"{turns.again if turns else f'{chat.suffix}{PARAGRAPH}'}The right answer is {{{REFERENCE}}}"
    return replace(chat, prefix=chat.prefix + before, suffix=after)


def task_reading(
    task: str, tokenizer: PreTrainedTokenizerBase, answer: str, *, question_only: bool = False
) -> PairTemplate:
    """Make a task the user's turn and begin the reply.

    Args:
        task: Text with `{question}` and `{prediction}`, once each.
        tokenizer: The backbone's.
        answer: What the reply begins with.
        question_only: Whether the task holds `{question}` alone.

    Raises:
        ReadingError: The task lacks a mark, or the chat template changes it.
    """
    if not tokenizer.chat_template:
        return PairTemplate.from_template(f"{task}\n\n{answer}", question_only=question_only)
    turn = [{"role": "user", "content": task}]
    # Templates of models that think out loud write an empty thought by this; others do not know the name.
    text = tokenizer.apply_chat_template(turn, tokenize=False, add_generation_prompt=True, enable_thinking=False)
    return PairTemplate.from_template(f"{text}{answer}", add_special_tokens=False, question_only=question_only)


def read_readings(source: str) -> dict[str, PairTemplate]:
    """Read each aspect's rubric.

    Args:
        source: `own`, a probing set, or JSON of readings by aspect.

    Raises:
        DataFileError: The file is neither.
        ReadingError: A reading is malformed.
    """
    return own_readings() if source == OWN else read_rubrics(source)


def read_templates(path: str) -> list[tuple[str, PairTemplate]]:
    """Read named templates.

    Args:
        path: JSON with one object of `TEMPLATE_KEYS`, or an array of such.

    Raises:
        DataFileError: It is something else.
        ReadingError: A template is malformed.
    """
    data = read_json(path)
    found = []
    for entry in data if isinstance(data, list) else [data]:
        if not isinstance(entry, dict) or not {"name", "template"} <= entry.keys() <= TEMPLATE_KEYS:
            raise DataFileError(
                f"{path} expects objects of {', '.join(sorted(TEMPLATE_KEYS))}, but got {entry!r:.200}."
            )
        options = {key: entry[key] for key in entry.keys() - {"name", "template"}}
        found.append((str(entry["name"]), PairTemplate.from_template(str(entry["template"]), **options)))
    return found


def fingerprint_of(
    config: ExtractConfig,
    inputs: dict[str, str],
    full: PreTrainedConfig,
    readings: dict[str, PairTemplate],
    n_foreign: int,
) -> Fingerprint:
    """Describe the features that are asked for, before anything is read.

    Args:
        config: Settings.
        inputs: File name -> sha256.
        full: Config of the whole backbone.
        readings: Name -> reading.
        n_foreign: Pairs that were dropped.

    Raises:
        BackboneError: The backbone has fewer layers than are asked for, or cannot be cut to these.
        SettingsError: Pairs may be longer than it has positions for.
    """
    text_config = full.get_text_config()
    n_layers = text_config.num_hidden_layers
    depth = n_layers if config.depth is None else config.depth
    layers = tuple(sorted(set(range(depth + 1) if config.layers is None else config.layers)))
    if not layers or layers[0] < 0 or not 1 <= depth <= n_layers or layers[-1] > depth:
        raise BackboneError(
            f"depth expects 1 to {n_layers}, the layers of this backbone, and layers 0 to depth, but got depth "
            f"{config.depth} and layers {config.layers}."
        )
    cut = truncated_config(full, max(1, *layers))
    if (getattr(cut, "max_position_embeddings", None) or config.max_length) < config.max_length:
        with torch.device("meta"):
            limit = position_limit(AutoModel.from_config(cut))
        if limit is not None:
            raise SettingsError(
                f"max_length expects at most {limit}, the positions that {config.backbone_id} has, but got "
                f"{config.max_length}. Give --max_length {limit}."
            )
    backbone_id, revision = named_by_content(config.backbone_id, config.backbone_revision)
    # No revision pins a local backbone, so the hash of its files stands for it.
    weights = [path for path in sorted(Path(config.backbone_id).glob("*")) if path.suffix in WEIGHT_SUFFIXES]
    return Fingerprint(
        inputs=inputs,
        backbone={
            "id": backbone_id,
            "revision": revision,
            "commit": getattr(full, "_commit_hash", None),
            "files": {path.name: file_sha256(path) for path in weights},
            "dtype": config.dtype,
            **({} if config.engine == TORCH else {"engine": config.engine}),
        },
        max_length=config.max_length,
        window=config.window,
        readings=readings,
        layers=layers,
        poolings=config.poolings,
        states=config.states,
        hidden_size=text_config.hidden_size,
        n_layers=n_layers,
        n_foreign=n_foreign,
        versions={name: version(name) for name in VERSIONS},
    )
