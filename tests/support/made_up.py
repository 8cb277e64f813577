"""Made-up labels and features in real folders of the extract stage, so that fits can be held against plain formulas."""

import numpy as np
from inspector_training.evaluation.metrics import bootstrap
from inspector_training.features.store import PAIRS_FILE, Fingerprint, load_features, plan_shards
from inspector_training.rows.records import LabelledPair, labelled_rows, write_records
from inspector_training.runs.manifest import Manifest

from inspector_pipeline.template import PairTemplate

HIDDEN = 6
TEMPLATE = "Question: {question}\nResponse: {prediction}\nJudge it.\n"


def make_pairs(n=60, seed=0, *, samples=2, aspects=("logic", "fluency", "correctness"), auxiliary=0):
    """Pairs of n questions, some with two responses; some labels each; auxiliary rows; one without labels."""
    rng = np.random.default_rng(seed)
    pairs = []
    for i in range(n):
        for sample in range(samples if i % 3 == 0 else 1):
            scores = {a: int(rng.integers(0, 2) if a == "correctness" else rng.integers(2, 6)) for a in aspects}
            kept = {a: s for a, s in scores.items() if a == "logic" or (i + len(a)) % 4}
            weights = {a: 0.5 + rng.random() for a in kept if i % 2}
            text = " ".join(["so"] * int(rng.integers(1, 30)))
            pairs.append(LabelledPair(f"q{i}", f"What is {i}?", text, kept, weights, sample))
    for i in range(auxiliary):  # half of them damage a question that is labelled, half stand alone
        name = f"q{i}" if i % 2 else f"x{i}"
        pairs.append(LabelledPair(name, f"What is {name}?", "damaged", {"logic": 1 + i % 5}, sample=9, auxiliary=True))
    return [*pairs, LabelledPair("none", "What is not labelled?", "nothing")]


def make_features(folder, pairs, *, signal=0.0, seed=0, layers=(0, 1, 2, 3, 4), poolings=("response_mean", "last")):
    """Write random features of pairs to a folder and open it; a signal puts the labels into layers from 2 on."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    names = dict.fromkeys(a for pair in pairs for a in pair.scores)
    reading = PairTemplate.from_template(TEMPLATE)
    found = Fingerprint(
        inputs={},
        backbone={"id": "made-up"},
        max_length=64,
        window=1000,
        readings={"chat": reading, **{f"rubric:{a}": reading for a in names}},
        layers=tuple(layers),
        poolings=tuple(poolings),
        states=("rms_normed",),
        hidden_size=HIDDEN,
        n_layers=max(layers),
        n_foreign=0,
        versions={},
    )
    direction = rng.normal(size=(len(names), HIDDEN))
    for name in found.readings:
        (shard,) = plan_shards(folder, name, pairs, 1000)
        rows = shard.rows
        scores = np.array([[pairs[i].scores.get(a, 3) for a in names] for i in rows]) - 3.0
        values = {}
        for layer, pooling, state in found.columns:
            x = rng.normal(size=(len(rows), HIDDEN)) * np.linspace(0.5, 3, HIDDEN) + 2
            x += signal * (layer >= 2) * scores @ direction
            values[f"{pooling}.{layer}.{state}"] = x.astype(np.float32)
        shard.write(values, found.digest)
    write_records(labelled_rows(pairs), folder / PAIRS_FILE)
    (folder / "fingerprint.json").write_text(found.text())
    settings = {"backbone": "made-up", "max_length": 64}
    files = [folder / PAIRS_FILE, folder / "fingerprint.json"]
    Manifest("extract", {}, settings).write(folder, files)
    return load_features(folder)


def measure(truth, classes, predictions):
    """Compute every metric on the rows as they are, the mean over repeats."""
    sample = bootstrap(truth, classes, predictions, np.ones((1, len(truth))))
    return {name: float(values[0]) for name, values in sample.items()}


def planted(folder, pairs, values):
    """Features whose first dimension is a value of each pair; the others are noise."""
    features = make_features(folder, pairs, layers=(0, 1, 2, 3, 4), poolings=("last",))
    read = features.matrix

    def matrix(feature):
        return np.concatenate([np.asarray(values, np.float32)[:, None], read(feature)[:, 1:]], axis=1)

    features.__dict__["matrix"] = matrix
    return features
