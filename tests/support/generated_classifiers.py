"""Classifiers in the published layout for the folders that are not at hand, fitted on noise of the backbone's width."""

import pickle

import numpy as np
from inspector_training.stages.publish_family import BACKBONE
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler

HIDDEN = 2048


def write_clfs(folder, names):
    """Write classifiers of some aspects, fitted on noise, into a folder that is named as the published ones are."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    kind = "binary" if "binary" in folder.name else "multi"
    for i, name in enumerate(names or ("semantic_consistency",)):
        layers = [20, 27][: 1 + i % 2]
        steps = [("scaler", StandardScaler()), ("clf", LogisticRegression(max_iter=300))]
        x, y = rng.normal(size=(20, HIDDEN * len(layers))), np.arange(20) % 2 + (0 if kind == "binary" else 3)
        search = GridSearchCV(Pipeline(steps), {"clf__C": [0.01]}, cv=2, scoring="f1_macro").fit(x, y)
        metadata = {"llm": BACKBONE, "dimension": name, "classification": kind, "layers": layers}
        package = {"model": search, "metadata": {**metadata, "pool": "mean", "use_attn": False}}
        (folder / f"{name}.pkl").write_bytes(pickle.dumps(package))
