"""The published protocol on the same labels and backbone, for comparison beside a judge's own evidence.

    python -m training.reference_protocol --probing-set probing.json --questions train.jsonl --output reference.json

One pass per aspect in that aspect's rubric, no chat template; the mean over all tokens of every decoder output (the
last one after the final norm). The layer is ranked by PCA to 50 dimensions and logistic regression, 5-fold, on all
rows; the probe is a standardised, balanced logistic regression whose C is searched by 5-fold macro F1 on 80 % of the
rows, and tested once on the other 20 %. The layer is chosen with the test rows in sight and there is but one split,
as published; so these numbers are optimistic, and a judge's own evidence is not to be read against them alone.
"""

import argparse
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, StratifiedKFold, cross_val_score, train_test_split
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from transformers import AutoTokenizer
from transformers.utils import logging as hf_logging

from inspector_pipeline.backbone import backbone_location, load_backbone, read_features
from inspector_pipeline.batching import collate, plan_batches
from inspector_pipeline.configuration_inspector import Feature, norm_eps
from inspector_pipeline.reading import ReadingEncoder
from inspector_pipeline.truncation import take_final_norm
from training.evaluate import METRICS, Array, Index, OutOfFold, interval, measure
from training.extract import ExtractConfig
from training.probing_set import drop_foreign, read_probing_set, read_questions
from training.records import LabelledPair, json_text
from training.stage import run

logger = logging.getLogger(__name__)

RANKING_SEED = 42
SPLIT_SEED = 731
PCA_DIMENSIONS = 50
C_GRID = (0.001, 0.01, 0.1, 1.0)
BOOTSTRAPS = 1000


def reference_protocol(config: ExtractConfig) -> dict[str, Any]:
    """Run the published protocol on every aspect.

    Args:
        config: Labels, questions and backbone; readings and poolings are the protocol's own.

    Returns:
        Aspect -> layer (decoder outputs from 0, as published), number of test rows, cross-validated macro F1 and the
        test split's metrics with intervals over its rows.
    """
    pairs, readings = read_probing_set(config.probing_set)
    if config.questions:
        pairs, _ = drop_foreign(pairs, read_questions(config.questions))
    location, pinned = backbone_location(config.backbone_id, config.backbone_revision, None)
    tokenizer = AutoTokenizer.from_pretrained(location, **pinned)
    backbone = load_backbone(
        config.backbone_id, config.backbone_revision, dtype=getattr(torch, config.dtype), attn_implementation="sdpa"
    )
    final_norm = take_final_norm(backbone)
    results = {}
    for name, reading in readings.items():
        own = [pair for pair in pairs if name in pair.scores]
        states = _states(backbone, final_norm, ReadingEncoder(reading, tokenizer, config.max_length), own, name)
        results[name] = fit_and_test(states, np.array([pair.scores[name] for pair in own]))
        logger.info("%s: %s", name, results[name])
    return results


def _states(
    backbone: Any, final_norm: torch.nn.Module, encoder: ReadingEncoder, pairs: list[LabelledPair], name: str
) -> dict[int, Array]:
    """Mean-pool every decoder output, counted from 0: layer -> (pairs, hidden)."""
    n_layers = backbone.config.num_hidden_layers
    features = [Feature("", n, "mean", "final_norm" if n == n_layers else "raw") for n in range(1, n_layers + 1)]
    encoded = [encoder(pair.question, pair.prediction) for pair in pairs]
    states = {n: np.empty((len(pairs), backbone.config.hidden_size)) for n in range(n_layers)}
    with torch.inference_mode():
        batches = plan_batches([len(pair.input_ids) for pair in encoded])
        for batch in hf_logging.tqdm(batches, desc=name, unit="batch"):
            inputs = {k: v.to(backbone.device) for k, v in collate([encoded[i] for i in batch], 0).items()}
            read = read_features(backbone, final_norm, features, rms_norm_eps=norm_eps(backbone.config), **inputs)
            for feature, values in read.items():
                states[feature.layer - 1][batch] = values.cpu().numpy()
    return states


def fit_and_test(states: Mapping[int, Array], scores: Index) -> dict[str, Any]:
    """Choose a layer, fit and test one aspect as published.

    Args:
        states: Layer -> (rows, hidden).
        scores: (rows,) labels.
    """
    ranking = {layer: _rank(x, scores) for layer, x in states.items()}
    layer = max(ranking, key=lambda key: ranking[key])
    split = train_test_split(np.arange(len(scores)), test_size=0.2, stratify=scores, random_state=SPLIT_SEED)
    train, test = (np.asarray(rows) for rows in split)
    steps = [("scaler", StandardScaler()), ("clf", LogisticRegression(max_iter=2000, class_weight="balanced"))]
    search = GridSearchCV(Pipeline(steps), {"clf__C": list(C_GRID)}, cv=5, scoring="f1_macro")
    search.fit(states[layer][train], scores[train])
    classes = [int(c) for c in search.classes_]
    expected = search.predict_proba(states[layer][test]) @ np.array(classes, dtype=float)
    predicted = OutOfFold(expected[None], expected[None], search.predict(states[layer][test])[None])
    rng = np.random.default_rng(SPLIT_SEED)
    draws = [np.arange(len(test)), *(rng.integers(0, len(test), len(test)) for _ in range(BOOTSTRAPS))]
    measured = [measure(scores[test][take], classes, predicted.take(take)) for take in draws]
    return {
        "layer": layer,
        "n_test": len(test),
        "cv_macro_f1": round(float(search.best_score_), 4),
        **{name: interval(np.array([values[name] for values in measured])) for name in METRICS},
    }


def _rank(x: Array, scores: Index) -> float:
    """Macro F1 of logistic regression on the first principal components, 5-fold; PCA sees all rows, as published."""
    smallest = int(np.bincount(scores)[np.unique(scores)].min())
    folds = StratifiedKFold(min(5, smallest), shuffle=True, random_state=RANKING_SEED)
    n = min(PCA_DIMENSIONS, *x.shape)
    reduced = make_pipeline(StandardScaler(), PCA(n, random_state=RANKING_SEED)).fit_transform(x)
    model = LogisticRegression(max_iter=2000, class_weight="balanced")
    return float(cross_val_score(model, reduced, scores, cv=folds, scoring="f1_macro").mean())


def main() -> None:
    """Parse arguments and run the protocol."""
    parser = argparse.ArgumentParser(prog="python -m training.reference_protocol", description=__doc__)
    parser.add_argument("--probing-set", required=True, help="labelled pairs, JSON in the published format")
    parser.add_argument(
        "--questions", help="the dataset's questions, JSON Lines; pairs with other questions are dropped"
    )
    parser.add_argument("--output", required=True, help="JSON to write")
    parser.add_argument("--dtype", default="float32", choices=("float32", "bfloat16", "float16"))
    args = parser.parse_args()
    results = reference_protocol(ExtractConfig(args.probing_set, "", args.questions, dtype=args.dtype))
    Path(args.output).write_text(json_text(results), encoding="utf-8")


if __name__ == "__main__":
    run(main)
