"""Sentence embeddings with logistic regression: what people would do who have a few labels and no judge.

Question and response are embedded apart and stand side by side; the penalty is chosen by an inner cross-validation by
question. Two kinds of embeddings are known by the files of their folders: static ones of model2vec, and transformers
whose last states are averaged over a text's tokens, as the MiniLM models of sentence-transformers do.
"""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from sklearn.model_selection import GridSearchCV, StratifiedGroupKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from inspector_pipeline.errors import BackboneError
from inspector_pipeline.files.tables import read_json

from ...probing.table import Array, Labels, TooFewLabelsError
from ...rows.records import LabelledPair, is_good
from ..metrics import Predictions
from .base import Fold, Method, Predicted

INVERSE_PENALTIES = (0.001, 0.01, 0.1, 1.0)
INNER_FOLDS = 5
BATCH = 64
STATIC = "model2vec"  # the kind that a folder's config.json names; older ones name none


def embed(folder: str, texts: Sequence[str]) -> NDArray[np.float32]:
    """Embed texts, each different one once.

    Args:
        folder: Of a model, on this machine.
        texts: The texts; a blank one is all zeros.

    Returns:
        float32 (texts, width).

    Raises:
        BackboneError: The folder holds no such model.
    """
    if not (Path(folder) / "config.json").is_file():
        raise BackboneError(f"An embedding model expects a folder with a config.json, but got {folder!r}.")
    different = sorted({text for text in texts if text.strip()}, key=len)
    kind = read_json(Path(folder) / "config.json").get("model_type", STATIC)
    vectors = (_static if kind == STATIC else _averaged)(folder, different)
    place = {text: i for i, text in enumerate(different)}
    blank = np.zeros(vectors.shape[1], dtype=np.float32)
    return np.stack([vectors[place[text]] if text in place else blank for text in texts])


def _static(folder: str, texts: Sequence[str]) -> NDArray[np.float32]:
    from model2vec import StaticModel

    return np.asarray(StaticModel.from_pretrained(folder).encode(list(texts)), dtype=np.float32)


def _averaged(folder: str, texts: Sequence[str]) -> NDArray[np.float32]:
    """Average a transformer's last states over the tokens of each text, and scale them to length 1."""
    from transformers import AutoModel, AutoTokenizer

    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder).eval()
    longest = min(model.config.max_position_embeddings, tokenizer.model_max_length)
    parts = []
    for start in range(0, len(texts), BATCH):
        batch = list(texts[start : start + BATCH])
        encoded = tokenizer(batch, padding=True, truncation=True, max_length=longest, return_tensors="pt")
        with torch.inference_mode():
            states = model(**encoded).last_hidden_state
        mask = encoded["attention_mask"][..., None].to(states.dtype)
        mean = (states * mask).sum(dim=1) / mask.sum(dim=1)
        parts.append(torch.nn.functional.normalize(mean, dim=1).float().numpy())
    return np.concatenate(parts)


def _score(model: Any, x: Array, good: NDArray[np.bool_]) -> float:
    return -float(log_loss(good, model.predict_proba(x)[:, 1], labels=[False, True]))


class EmbeddedMethod(Method):
    """Embeddings of question and response with a logistic regression of good labels.

    Args:
        name: Its name in the table.
        pairs: All pairs.
        vectors: (texts of a pair x pairs, width): of all questions, then of all responses, then of what stands beside.
    """

    budget = f"{len(INVERSE_PENALTIES)} penalties in {INNER_FOLDS} inner folds"

    def __init__(self, name: str, pairs: Sequence[LabelledPair], vectors: NDArray[np.float32]) -> None:
        """Put a pair's embeddings side by side."""
        self.name, self.description = name, f"logistic regression on {name} embeddings of question and response"
        self.x = np.hstack(np.split(vectors, max(1, len(vectors) // len(pairs)))).astype(np.float64)

    def fit(self, fold: Fold) -> Callable[[Labels], Predicted]:
        """Fit on the training rows that are not auxiliary, each aspect by itself."""
        train = fold.train.take(np.flatnonzero(~fold.train.auxiliary))
        return partial(self._predict, {a: self._fitted(train, a) for a in np.unique(train.aspect).tolist()})

    def _fitted(self, train: Labels, aspect: int) -> Any:
        own = train.take(np.flatnonzero(train.aspect == aspect))
        good = is_good(own.score, own.classes[aspect])
        if len(np.unique(good)) < 2:
            raise TooFewLabelsError(f"{self.name} expects good and other labels to fit on, but all are of one kind.")
        model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000))
        folds = min(INNER_FOLDS, *(len(np.unique(own.question[good == kind])) for kind in (False, True)))
        divided = StratifiedGroupKFold(folds) if folds > 1 else None
        parts = list(divided.split(good, good, own.question)) if divided else []
        if not parts or any(len(np.unique(good[rows])) < 2 for rows, _ in parts):  # too few to choose by
            return model.set_params(logisticregression__C=INVERSE_PENALTIES[1]).fit(self.x[own.pair], good)
        grid = {"logisticregression__C": list(INVERSE_PENALTIES)}
        return GridSearchCV(model, grid, scoring=_score, cv=parts).fit(self.x[own.pair], good)

    def _predict(self, models: dict[int, Any], rows: Labels) -> Predicted:
        for a, model in models.items():
            own = np.flatnonzero(rows.aspect == a)
            if len(own):
                good: Array = model.predict_proba(self.x[rows.pair[own]])[:, 1]
                classes = np.array(rows.classes[a])
                is_high = is_good(classes, rows.classes[a])
                means = np.array([classes[~is_high].mean(), classes[is_high].mean()])
                score = np.where(good > 0.5, classes[is_high].min(), classes[~is_high].max())
                yield rows.row[own], Predictions(means[0] + good * (means[1] - means[0]), good, good, score)
