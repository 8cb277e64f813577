"""A chain of stages on made-up rows."""

import json

import yaml
from inspector_training.stages.make_judge import Config as MakeJudgeConfig

from support.made_up import make_pairs


def write_chain(folder, backbone, readings=("chat",), **search):
    rows = [
        {
            "id": p.id,
            "question": p.question,
            "prediction": f"{p.prediction} {i}\n2 + 2 = {4 + (i % 4 == 0)}",
            "scores": p.scores,
            "sample": p.sample,
        }
        for i, p in enumerate(make_pairs(40))
        if p.scores
    ]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    search = {"poolings": [["last"]], "depths": [2], "sharings": [1.0], "heads": [], "inner_folds": 3} | search
    folds = {"folds": 3, "repeats": 1, "bootstraps": 10, "learning_curve": []}
    steps = [
        {"stage": "audit", "rows": "${work}/rows.jsonl", "output": "${work}/audit", "drop": "${work}/kept.jsonl"},
        {
            "stage": "extract",
            "pairs": "${work}/rows.jsonl",
            "output": "${work}/features",
            "backbone_id": str(backbone),
            "backbone_revision": None,
            "max_length": 256,
            "poolings": ["last"],
            "readings": list(readings),
        },
        {"stage": "fit", "features": ["${work}/features"], "output": "${work}/fit", "search": search},
        {"stage": "evaluate", "features": ["${work}/features"], "output": "${work}/r.json", "search": search, **folds},
        {"stage": "export", "fit": "${work}/fit", "results": "${work}/r.json", "output": "${work}/judge"},
    ]
    (folder / "steps.yaml").write_text(yaml.safe_dump(steps))
    return MakeJudgeConfig(str(folder / "steps.yaml"), {"work": str(folder)})
