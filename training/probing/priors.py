"""Directions of a released judge, towards which a judge of few labels may be drawn."""

import numpy as np
from safetensors import safe_open

from inspector_pipeline.api.load import judge_name
from inspector_pipeline.configuration_inspector import InspectorConfig
from inspector_pipeline.errors import DataFileError
from inspector_pipeline.features import Feature
from inspector_pipeline.heads import probe_key

from ..features.store import FeatureSet
from .kernels import Design
from .settings import SearchConfig
from .table import Array, Labels


def design_of(features: FeatureSet, labels: Labels, search: SearchConfig) -> Design:
    """Open features for a search, with a released judge's directions where it names one.

    Raises:
        DataFileError: The judge runs another backbone, or holds no probe in its folder.
    """
    directions = None if search.prior_judge is None else load_directions(search.prior_judge, features)
    return Design(features, labels, directions=directions)


def load_directions(judge: str, features: FeatureSet) -> dict[Feature, Array]:
    """Read the probes of a judge as directions of unit length, one for each aspect and decision value.

    Args:
        judge: Its folder or name.
        features: What they are to be directions of.

    Returns:
        Feature -> float64 (hidden, directions); 0 where an aspect does not read the feature.

    Raises:
        DataFileError: It runs another backbone, or holds no probe in its folder.
    """
    place = judge_name(judge)
    config = InspectorConfig.from_pretrained(place)
    if config.backbone_id != features.backbone["id"]:
        raise DataFileError(
            f"prior_judge expects a judge on the backbone of the features, {features.backbone['id']}, but {judge} runs "
            f"{config.backbone_id}."
        )
    found: list[dict[Feature, Array]] = []
    try:
        with safe_open(f"{place}/model.safetensors", framework="numpy") as file:
            for aspect in config.parsed_aspects:
                if aspect.probe_features:
                    weights = file.get_tensor(f"probes.{probe_key(aspect.name)}.weight").astype(np.float64)
                    for weight in weights / np.linalg.norm(weights, axis=(1, 2), keepdims=True):
                        found.append(dict(zip(aspect.probe_features, weight, strict=True)))
    except OSError as error:
        raise DataFileError(f"prior_judge expects a judge's folder, but {judge} could not be read: {error}.") from error
    none = np.zeros(features.hidden_size)
    read = dict.fromkeys(feature for own in found for feature in own)
    return {feature: np.stack([own.get(feature, none) for own in found], axis=1) for feature in read}
