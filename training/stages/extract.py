"""Read every requested feature of pairs, in one pass per reading, with the code that scores pairs later.

    python -m training extract --pairs labelled.jsonl --output work/features

Pairs are read in windows of rows; each window's features become one shard as soon as they are there, so memory stays
bounded and a run that was stopped, however, goes on where it was. Batches never cross a window's border: the shards are
the same whether or not a run was interrupted. A folder that already holds all that is asked for is used as it is; one
that holds something else is never overwritten.
"""

import json
import logging
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from transformers import AutoConfig, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import logging as hf_logging

from inspector_pipeline.backbone import backbone_location, load_backbone
from inspector_pipeline.configuration_inspector import Feature, norm_eps
from inspector_pipeline.engine import FeatureReader, windows
from inspector_pipeline.errors import BackboneError, DataFileError
from inspector_pipeline.files.disk import json_text, write_atomically
from inspector_pipeline.template import EncodedPair, PairTokenizer
from inspector_pipeline.truncation import take_final_norm

from ..features.plan import ExtractConfig as Config
from ..features.plan import check_settings, describe, make_readings, read_pairs
from ..features.store import (
    FINGERPRINT_FILE,
    PAIRS_FILE,
    STAGE,
    STATS_FILE,
    Fingerprint,
    Shard,
    column_name,
    covered_rows,
    plan_shards,
    shard_digest,
    write_shard,
)
from ..rows.records import LabelledPair, labelled_rows, write_records
from ..runs.manifest import Manifest, manifest_path

logger = logging.getLogger(__name__)


def run(config: Config) -> None:
    """Run the stage: pairs -> a folder of features, which `load_features` opens.

    A folder that already holds every feature asked for, perhaps among others, is used as it is, or completed.

    Raises:
        DataFileError: An input cannot be read, a setting is unknown, or the folder holds something else.
        PairError: A pair has a blank text or fits no context of the maximum length.
        ReadingError: A reading cannot be made or does not fit the tokenizer.
        BackboneError: The backbone cannot be loaded, has fewer layers, or gives states that are not finite.
        OSError: An input is missing.
    """
    check_settings(config)
    folder = Path(config.output)
    manifest = Manifest.of(STAGE, config, (config.pairs, config.questions, config.rubrics))
    pairs, rubrics, n_foreign = read_pairs(config)
    location, pinned = backbone_location(config.backbone_id, config.backbone_revision, None)
    tokenizer = AutoTokenizer.from_pretrained(location, **pinned)
    held = _held(folder)
    readings = make_readings(config, tokenizer, rubrics, held)
    asked = describe(config, manifest.inputs, AutoConfig.from_pretrained(location, **pinned), readings, n_foreign)
    if held is not None:
        asked = _settle(folder, held, asked)
    plan = {name: _plan(folder, name, pairs, asked) for name in asked.readings}
    missing = {name: [part for part in parts if not part.is_done] for name, parts in plan.items()}
    ends = (manifest_path(folder), folder / PAIRS_FILE)
    if not any(missing.values()) and all(path.is_file() for path in ends):
        logger.info("%s holds these features already.", folder)
        return
    folder.mkdir(parents=True, exist_ok=True)
    manifest_path(folder).unlink(missing_ok=True)  # written last, it vouches for the rest
    write_atomically(folder / FINGERPRINT_FILE, asked.text())
    write_records(labelled_rows(pairs), folder / PAIRS_FILE)
    if any(missing.values()):
        backbone, final_norm = _load(location, pinned.get("revision"), asked)
        stats = _read_missing(missing, pairs, asked, tokenizer, backbone, final_norm)
        reused = sum(part.shard.n_rows for parts in plan.values() for part in parts if part.is_done)
        write_atomically(folder / STATS_FILE, json_text({**stats, "rows_reused": reused}))
    shards = [part.shard.path for parts in plan.values() for part in parts]
    files = (folder / FINGERPRINT_FILE, folder / PAIRS_FILE, *shards)
    replace(manifest, settings=_settings(manifest, asked)).write(folder, files)


def _settings(manifest: Manifest, asked: Fingerprint) -> dict[str, Any]:
    """Say what the folder holds, which may be more than this run asked for; readings by name."""
    held = {name: getattr(asked, name) for name in ("backbone", "layers", "poolings", "states", "window")}
    held |= {"depth": max(1, *asked.layers), "readings": list(asked.readings)}
    settings: dict[str, Any] = json.loads(json.dumps({**manifest.settings, **held}))
    return settings


@dataclass(frozen=True)
class _Part:
    """A window of a reading's rows, its shard, and whether that is there."""

    shard: Shard
    rows: list[int]
    is_done: bool


def _plan(folder: Path, reading: str, pairs: list[LabelledPair], asked: Fingerprint) -> list[_Part]:
    rows = covered_rows(reading, pairs).tolist()
    shards = plan_shards(folder, reading, len(rows), asked.window)
    parts = zip(shards, windows(rows, asked.window), strict=True)
    return [_Part(shard, window, shard_digest(shard) == asked.digest) for shard, window in parts]


def _read_missing(
    missing: dict[str, list[_Part]],
    pairs: list[LabelledPair],
    asked: Fingerprint,
    tokenizer: PreTrainedTokenizerBase,
    backbone: PreTrainedModel,
    final_norm: nn.Module,
) -> dict[str, Any]:
    """Read what is missing, a shard at a time, and return how fast it went."""
    n_rows = sum(len(part.rows) for parts in missing.values() for part in parts)
    n_tokens, start = 0, time.monotonic()
    with hf_logging.tqdm(total=n_rows, desc=STAGE, unit="pair") as bar:
        for name, parts in missing.items():
            encoder = PairTokenizer(asked.readings[name], tokenizer, asked.max_length)
            reader = FeatureReader(
                backbone,
                final_norm,
                [Feature(name, *column) for column in asked.columns],
                {name: encoder},
                rms_norm_eps=norm_eps(backbone.config),
                pad_id=tokenizer.pad_token_id or 0,
            )
            for part in parts:
                encoded = [encoder(pairs[row].question, pairs[row].prediction) for row in part.rows]
                write_shard(part.shard, _read_window(reader, name, encoded), asked)
                n_tokens += sum(len(pair.input_ids) for pair in encoded)
                bar.update(len(encoded))
                bar.set_postfix_str(f"{n_tokens / (time.monotonic() - start):.0f} tokens/s")
    seconds = time.monotonic() - start
    logger.info("Read %d pairs, %d tokens, %.0f tokens/s.", n_rows, n_tokens, n_tokens / seconds)
    stats = {"rows": n_rows, "tokens": n_tokens, "seconds": round(seconds, 3)}
    return {**stats, "tokens_per_second": round(n_tokens / seconds, 1), "device": str(backbone.device)}


def _load(location: str, revision: str | None, asked: Fingerprint) -> tuple[PreTrainedModel, nn.Module]:
    """Load the layers that are needed, onto a GPU where there is one, and take the final norm off."""
    backbone = load_backbone(location, revision, max(1, *asked.layers), dtype=getattr(torch, asked.backbone["dtype"]))
    if torch.cuda.is_available():
        backbone = backbone.to("cuda")
    return backbone, take_final_norm(backbone)


def _read_window(reader: FeatureReader, reading: str, encoded: list[EncodedPair]) -> dict[str, NDArray[np.float32]]:
    """Read a window of pairs under one reading.

    Returns:
        Column -> float32 (rows, hidden).

    Raises:
        BackboneError: A state is not finite.
    """
    with torch.inference_mode():
        read = reader([{reading: pair} for pair in encoded])
        features = list(read)
        values = torch.stack([read[feature] for feature in features]).cpu().numpy()  # one copy to the host a window
    if not np.isfinite(values).all():
        raise BackboneError(
            f"Features expect finite states, but got NaN or infinite ones in {reader.backbone.dtype}. Use bfloat16 or "
            "float32."
        )
    return {column_name(feature): values[i] for i, feature in enumerate(features)}


def _held(folder: Path) -> Fingerprint | None:
    """Return what a folder holds or began to hold, None where it is new.

    Raises:
        DataFileError: The folder holds another stage's output.
    """
    if (folder / FINGERPRINT_FILE).is_file():
        return Fingerprint.read(folder)
    if manifest_path(folder).exists():
        raise DataFileError(f"{folder} expects an empty folder or features, but holds something else. Choose another.")
    return None


def _settle(folder: Path, held: Fingerprint, asked: Fingerprint) -> Fingerprint:
    """Return the fingerprint to go on with: the folder's own, where it covers what is asked.

    Raises:
        DataFileError: It does not; features are dear, so they are not overwritten.
    """
    if held.covers(asked):
        return held
    different = held.differences(asked) or ["readings, layers, poolings or states"]
    raise DataFileError(
        f"{folder} holds features with other settings (what differs: {', '.join(different)}). Choose another output, "
        "or delete that folder if its features are not needed."
    )
