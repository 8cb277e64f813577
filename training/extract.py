"""Read every requested feature of every labelled pair in one pass each, with the code that scores pairs later.

python -m training.extract --probing-set probing.json --questions gsm8k_train.jsonl --output work/features
"""

import argparse
import logging
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoTokenizer
from transformers.utils import logging as hf_logging

from inspector_pipeline.backbone import backbone_location, load_backbone, read_features
from inspector_pipeline.batching import collate, plan_batches
from inspector_pipeline.configuration_inspector import Feature, norm_eps
from inspector_pipeline.errors import DataFileError
from inspector_pipeline.reading import Reading, ReadingEncoder
from inspector_pipeline.truncation import take_final_norm
from inspector_pipeline.wheel_backbone import EMBEDDED_BACKBONE_ID, EMBEDDED_BACKBONE_REVISION
from training.manifest import Manifest
from training.probing_set import drop_foreign, read_probing_set, read_questions
from training.records import LabelledPair, json_text, read_json
from training.stage import run

logger = logging.getLogger(__name__)

READING_NAME = "chat"


@dataclass(frozen=True)
class ExtractConfig:
    """Settings of the extract stage.

    Attributes:
        probing_set: Labelled pairs (JSON).
        output: Folder to write to.
        questions: The dataset's questions (JSON Lines); pairs with other questions are filler and dropped.
        backbone_id: Hub id, folder or `pypi:` id.
        backbone_revision: Its revision.
        dtype: Of the backbone's computation.
        max_length: Upper bound on the tokens of a pair.
        poolings: Which poolings to read, at every layer.
        state: Which state kind to read.
    """

    probing_set: str
    output: str
    questions: str | None = None
    backbone_id: str = EMBEDDED_BACKBONE_ID
    backbone_revision: str | None = EMBEDDED_BACKBONE_REVISION
    dtype: str = "float32"
    max_length: int = 2048
    poolings: tuple[str, ...] = ("response_mean", "last", "mean")
    state: str = "rms_normed"


@dataclass(frozen=True)
class FeatureSet:
    """Features of labelled pairs.

    Attributes:
        pairs: The pairs; row i of every tensor is pair i.
        reading: How they were read.
        values: (pooling, layer) -> float32 (pairs, hidden).
        manifest: Where they come from.
        n_foreign: Pairs dropped since their question is not in the dataset.
    """

    pairs: list[LabelledPair]
    reading: Reading
    values: dict[tuple[str, int], Tensor]
    manifest: Manifest
    n_foreign: int


def extract(config: ExtractConfig) -> None:
    """Run the stage: pairs -> features.safetensors, pairs.json, manifest.json.

    Raises:
        DataFileError: An input cannot be read.
        OSError: An input is missing.
        BackboneError: The backbone cannot be loaded.
    """
    folder = Path(config.output)
    manifest = Manifest.of("extract", config, (config.probing_set, config.questions))
    if manifest.vouches_for(folder):
        logger.info("%s holds these features already.", folder)
        return
    pairs, _ = read_probing_set(config.probing_set)
    foreign: list[LabelledPair] = []
    if config.questions:
        pairs, foreign = drop_foreign(pairs, read_questions(config.questions))
        logger.info(
            "Kept %d pairs; dropped %d whose question is not in %s.", len(pairs), len(foreign), config.questions
        )
    location, pinned = backbone_location(config.backbone_id, config.backbone_revision, None)
    tokenizer = AutoTokenizer.from_pretrained(location, **pinned)
    reading = Reading.from_chat_template(tokenizer)
    encoder = ReadingEncoder(reading, tokenizer, config.max_length)
    columns: dict[str, list[Tensor]] = {}
    for order, batch in _features(config, encoder, pairs):
        for feature, values in batch.items():
            name = f"{feature.pooling}.{feature.layer}"
            columns.setdefault(name, [torch.empty(0)] * len(pairs))
            for row, value in zip(order, values.cpu(), strict=True):
                columns[name][row] = value
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "manifest.json").unlink(missing_ok=True)  # the manifest is written last and vouches for the rest
    save_file({name: torch.stack(rows) for name, rows in columns.items()}, folder / "features.safetensors")
    described = {"reading": reading.to_dict(), "n_foreign": len(foreign), "pairs": [asdict(pair) for pair in pairs]}
    (folder / "pairs.json").write_text(json_text(described), encoding="utf-8")
    manifest.write(folder, (folder / "features.safetensors", folder / "pairs.json"))


def load_features(folder: str | Path) -> FeatureSet:
    """Read what the extract stage wrote.

    Raises:
        DataFileError: The folder does not hold its output.
    """
    folder = Path(folder)
    manifest = Manifest.read(folder, "extract")
    described = read_json(folder / "pairs.json")
    pairs = [LabelledPair(**pair) for pair in described["pairs"]]
    values = {}
    for name, tensor in load_file(folder / "features.safetensors").items():
        pooling, layer = name.split(".")
        values[pooling, int(layer)] = tensor
    if any(len(tensor) != len(pairs) for tensor in values.values()):
        raise DataFileError(f"{folder} expects as many rows of features as pairs ({len(pairs)}). Run the stage again.")
    return FeatureSet(pairs, Reading.from_dict(described["reading"]), values, manifest, described["n_foreign"])


def _features(
    config: ExtractConfig, encoder: ReadingEncoder, pairs: list[LabelledPair]
) -> Iterator[tuple[list[int], dict[Feature, Tensor]]]:
    """Yield the pairs' positions and features, batch by batch."""
    backbone = load_backbone(config.backbone_id, config.backbone_revision, dtype=getattr(torch, config.dtype))
    if torch.cuda.is_available():
        backbone = backbone.to("cuda")
    n_layers = backbone.config.num_hidden_layers
    eps = norm_eps(backbone.config)
    final_norm = take_final_norm(backbone)
    features = [
        Feature(READING_NAME, layer, pooling, config.state)
        for layer in range(n_layers + 1)
        for pooling in config.poolings
    ]
    encoded = [encoder(pair.question, pair.prediction) for pair in pairs]
    pad_id = encoder.tokenizer.pad_token_id or 0
    batches = plan_batches([len(pair.input_ids) for pair in encoded])
    with torch.inference_mode():
        for batch in hf_logging.tqdm(batches, desc="extract", unit="batch"):
            inputs = {k: v.to(backbone.device) for k, v in collate([encoded[i] for i in batch], pad_id).items()}
            yield batch, read_features(backbone, final_norm, features, rms_norm_eps=eps, **inputs)


def main() -> None:
    """Parse arguments and run the stage."""
    defaults = ExtractConfig("", "")
    parser = argparse.ArgumentParser(prog="python -m training.extract", description=__doc__)
    parser.add_argument("--probing-set", required=True, help="labelled pairs, JSON in the published format")
    parser.add_argument("--output", required=True, help="folder to write to")
    parser.add_argument(
        "--questions", help="the dataset's questions, JSON Lines; pairs with other questions are dropped"
    )
    parser.add_argument("--backbone-id", default=defaults.backbone_id, help="Hub id, folder or pypi: id (%(default)s)")
    parser.add_argument("--backbone-revision", default=defaults.backbone_revision, help="its revision (%(default)s)")
    parser.add_argument("--dtype", default=defaults.dtype, choices=("float32", "bfloat16", "float16"))
    parser.add_argument("--max-length", type=int, default=defaults.max_length, help="tokens of a pair (%(default)s)")
    parser.add_argument("--state", default=defaults.state, choices=("raw", "rms_normed", "final_norm"))
    extract(ExtractConfig(**vars(parser.parse_args())))


if __name__ == "__main__":
    run(main)
