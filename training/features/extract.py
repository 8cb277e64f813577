"""Read features of pairs into a folder, a shard at a time, with the code that scores pairs later."""

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import AutoConfig, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import logging as hf_logging

from inspector_pipeline.backbone import backbone_location, load_backbone
from inspector_pipeline.configuration_inspector import norm_eps
from inspector_pipeline.encoded import EncodedPair
from inspector_pipeline.engine import FeatureReader
from inspector_pipeline.errors import BackboneError, DataFileError
from inspector_pipeline.features import Feature
from inspector_pipeline.files.disk import json_text, write_atomically
from inspector_pipeline.files.tables import read_json
from inspector_pipeline.int8 import STATE_ERROR, TORCH_INT8, round_linears
from inspector_pipeline.pair_tokenizer import PairTokenizer
from inspector_pipeline.progress import Progress, Tally
from inspector_pipeline.truncation import decoder_layers, take_final_norm

from ..labelling.readings import OWN
from ..rows.records import LabelledPair, json_lines, labelled_rows
from ..runs.manifest import Manifest, manifest_path
from .plan import ExtractConfig, check_settings, fingerprint_of, make_readings, read_pairs
from .store import FINGERPRINT_FILE, PAIRS_FILE, STAGE, Fingerprint, Shard, column_name, plan_shards

logger = logging.getLogger(__name__)

STATS_FILE = "stats.json"

ERROR_PAIRS = 16  # on which another engine is compared with float32

Columns = dict[str, NDArray[np.float32]]  # column -> (rows, width)
ReaderOf = Callable[[PairTokenizer, str, Callable[[int], None]], Callable[[list[EncodedPair]], Columns]]


def extract(config: ExtractConfig) -> None:
    """Read pairs' features into a folder, which `load_features` opens.

    A folder that already holds every feature asked for, perhaps among others, is used as it is, or completed.

    Raises:
        DataFileError: An input cannot be read, a setting is unknown, or the folder holds something else.
        PairError: A pair has a blank text or fits no context of the maximum length.
        ReadingError: A reading cannot be made or does not fit the tokenizer.
        BackboneError: The backbone cannot be loaded, has fewer layers, or gives states that are not finite.
        SettingsError: Pairs may be longer than the backbone has positions for.
        OSError: An input is missing.
    """
    check_settings(config)
    folder = Path(config.output)
    manifest = Manifest.of(
        STAGE, config, (config.pairs, config.questions, None if config.rubrics == OWN else config.rubrics)
    )
    pairs, rubrics, n_foreign = read_pairs(config)
    location, pinned = backbone_location(config.backbone_id, config.backbone_revision, None)
    tokenizer = AutoTokenizer.from_pretrained(location, **pinned)
    begun = _begun(folder)
    readings = make_readings(config, tokenizer, rubrics, begun)
    full = AutoConfig.from_pretrained(location, **pinned)
    wanted = fingerprint_of(config, manifest.inputs, full, readings, n_foreign)
    made_from = begun or wanted  # a folder that was begun may hold more than is asked for now
    if not made_from.covers(wanted):  # features are dear, so they are not overwritten
        different = made_from.differences(wanted) or ["readings, layers, poolings or states"]
        raise DataFileError(
            f"{folder} holds features with other settings (what differs: {', '.join(different)}). Choose another "
            "output, or delete that folder if its features are not needed."
        )
    shards = {name: plan_shards(folder, name, pairs, made_from.window) for name in made_from.readings}
    missing = {name: [one for one in own if not one.is_of(made_from.digest)] for name, own in shards.items()}
    written = json_lines(labelled_rows(pairs))
    if not any(missing.values()) and manifest_path(folder).is_file() and _holds(folder / PAIRS_FILE, written):
        logger.info("%s holds these features already.", folder)
        return
    folder.mkdir(parents=True, exist_ok=True)
    manifest_path(folder).unlink(missing_ok=True)  # written last, it vouches for the rest
    write_atomically(folder / FINGERPRINT_FILE, made_from.text())
    write_atomically(folder / PAIRS_FILE, written)
    if any(missing.values()):
        stats = _read_states(missing, pairs, made_from, tokenizer)
        n_rows = sum(len(one.rows) for own in shards.values() for one in own)
        write_atomically(folder / STATS_FILE, json_text({**stats, "rows_reused": n_rows - stats["rows"]}))
    measured = read_json(folder / STATS_FILE).get(STATE_ERROR) if (folder / STATS_FILE).is_file() else None
    held = {name: getattr(made_from, name) for name in ("backbone", "layers", "poolings", "states", "window")}
    held |= {"depth": max(1, *made_from.layers), "readings": list(made_from.readings)}  # perhaps more than was asked
    held |= {} if measured is None else {STATE_ERROR: measured}
    files = [folder / FINGERPRINT_FILE, folder / PAIRS_FILE, *(one.path for own in shards.values() for one in own)]
    replace(manifest, settings={**manifest.settings, **held}).write(folder, files)


def _holds(path: Path, text: str) -> bool:
    """Whether a file holds a text: pairs read before may lack what is kept of them since."""
    return path.is_file() and path.read_text(encoding="utf-8") == text


def _begun(folder: Path) -> Fingerprint | None:
    """Return what a folder holds or began to hold, None where it is new.

    Raises:
        DataFileError: The folder holds another stage's output.
    """
    if (folder / FINGERPRINT_FILE).is_file():
        return Fingerprint.read(folder)
    if manifest_path(folder).exists():
        raise DataFileError(f"{folder} expects an empty folder or features, but holds something else. Choose another.")
    return None


def _read_states(
    missing: Mapping[str, Sequence[Shard]],
    pairs: Sequence[LabelledPair],
    made_from: Fingerprint,
    tokenizer: PreTrainedTokenizerBase,
) -> dict[str, Any]:
    """Read pooled states into the shards that are missing, and say how fast it went and where."""
    backbone = load_layers(made_from)
    reader_of = _reader_maker(backbone, made_from, tokenizer)
    stats = fill_shards(missing, pairs, made_from, tokenizer, reader_of, label=STAGE)
    if made_from.backbone.get("engine") == TORCH_INT8:
        name, shard = next((name, shard) for name, shards in missing.items() for shard in shards)
        encoder = PairTokenizer(made_from.readings[name], tokenizer, made_from.max_length)
        encoded = [encoder(**pairs[row].texts) for row in shard.rows[:ERROR_PAIRS]]
        plain = {key: value for key, value in made_from.backbone.items() if key != "engine"}
        exact = _reader_maker(load_layers(replace(made_from, backbone=plain)), made_from, tokenizer)
        both = (make(encoder, name, lambda _: None)(encoded) for make in (reader_of, exact))
        stats[STATE_ERROR] = _relative_error(*both)
    return {**stats, "device": str(backbone.device)}


def _reader_maker(backbone: PreTrainedModel, made_from: Fingerprint, tokenizer: PreTrainedTokenizerBase) -> ReaderOf:
    """Return what makes, for a reading, what turns encoded pairs into columns."""
    final_norm = take_final_norm(backbone)

    def reader_of(
        encoder: PairTokenizer, name: str, on_pass: Callable[[int], None]
    ) -> Callable[[list[EncodedPair]], Columns]:
        features = [Feature(name, *column) for column in made_from.columns]
        eps, pad_id = norm_eps(backbone.config), tokenizer.pad_token_id or 0
        reader = FeatureReader(backbone, final_norm, features, {name: encoder}, rms_norm_eps=eps, pad_id=pad_id)
        reader.on_pass = on_pass
        return partial(_read_window, reader, name)

    return reader_of


def _relative_error(found: Columns, exact: Columns) -> float:
    """Return how far columns are from others: the mean over columns and rows of the difference's share of the norm."""
    apart = [np.linalg.norm(found[name] - own, axis=1) / np.linalg.norm(own, axis=1) for name, own in exact.items()]
    return float(np.mean(apart))


def load_layers(made_from: Fingerprint, **options: Any) -> PreTrainedModel:
    """Load the layers of a backbone that features are read from, onto a GPU where there is one and it may be there.

    Args:
        made_from: Names backbone, dtype, engine and layers.
        **options: For `load_backbone`.

    Raises:
        BackboneError: It cannot be loaded.
    """
    location, pinned = backbone_location(made_from.backbone["id"], made_from.backbone["revision"], None)
    dtype, depth = getattr(torch, made_from.backbone["dtype"]), max(1, *made_from.layers)
    backbone = load_backbone(location, pinned.get("revision"), depth, dtype=dtype, **options)
    if made_from.backbone.get("engine") == TORCH_INT8:
        round_linears(decoder_layers(backbone))
        return backbone
    return backbone.to("cuda") if torch.cuda.is_available() else backbone


def fill_shards(
    missing: Mapping[str, Sequence[Shard]],
    pairs: Sequence[LabelledPair],
    made_from: Fingerprint,
    tokenizer: PreTrainedTokenizerBase,
    reader_of: ReaderOf,
    *,
    label: str,
) -> dict[str, Any]:
    """Write shards, each as soon as its pairs are read, so that memory stays bounded and a stopped run goes on.

    Args:
        missing: Reading -> shards to write.
        pairs: All pairs of the folder.
        made_from: The folder's fingerprint.
        tokenizer: The backbone's.
        reader_of: Of a reading, given its tokenizer, its name and what is told of each pass's tokens, makes what turns
            encoded pairs into columns.
        label: Of the progress bar.

    Returns:
        How many rows and tokens were read, in how many seconds, and tokens per second.
    """
    rows = [row for shards in missing.values() for shard in shards for row in shard.rows]
    n_rows, n_tokens, start = len(rows), 0, time.monotonic()
    sizes = [sum(len(text) for text in pairs[row].texts.values() if isinstance(text, str)) for row in rows]
    is_silent = not hf_logging.is_progress_bar_enabled()
    with Progress(label, Tally(n_rows, sizes), disable=is_silent) as bar:
        for name, shards in missing.items():
            encoder = PairTokenizer(made_from.readings[name], tokenizer, made_from.max_length)
            read = reader_of(encoder, name, bar.passed)
            for shard in shards:
                encoded = [encoder(**pairs[row].texts) for row in shard.rows]
                tokens = sum(len(pair.input_ids) for pair in encoded)
                bar.begin(len(encoded), tokens)
                shard.write(read(encoded), made_from.digest)
                bar.end()
                n_tokens += tokens
    seconds = time.monotonic() - start
    logger.info("Read %d pairs, %d tokens, %.0f tokens/s.", n_rows, n_tokens, n_tokens / seconds)
    speed = round(n_tokens / seconds, 1)
    return {"rows": n_rows, "tokens": n_tokens, "seconds": round(seconds, 3), "tokens_per_second": speed}


def _read_window(reader: FeatureReader, reading: str, encoded: list[EncodedPair]) -> Columns:
    """Read a window of pairs under one reading.

    Raises:
        BackboneError: A state is not finite.
    """
    with torch.inference_mode():
        read = reader([{reading: pair} for pair in encoded])
        values = torch.stack(list(read.values())).cpu().numpy()  # one copy to the host a window
    if not np.isfinite(values).all():
        raise BackboneError(
            f"Features expect finite states, but got NaN or infinite ones in {reader.backbone.dtype}. Use bfloat16 or "
            "float32."
        )
    return {column_name(feature): own for feature, own in zip(read, values, strict=True)}
