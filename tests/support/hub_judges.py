"""Tiny judges to publish, with evidence, and clients in processes of their own."""

import json
import os
import textwrap

from inspector_pipeline import InspectorModel
from inspector_pipeline.backbone import load_backbone
from inspector_pipeline.pipeline_inspector import TASK, InspectorPipeline
from support.fresh import run_fresh
from support.models import aspect, chat_reading, config_of, feature, random_probes
from support.paths import ROOT

BACKBONE_ID = "org/tiny-backbone"


def interval(value):
    return {"value": value, "low": round(value - 0.05, 4), "high": round(value + 0.05, 4)}


def evidence(aspects, gain=0.1):
    metrics = {name: interval(0.7) for name in ("auroc", "macro_f1", "spearman")}
    compared = {
        **metrics,
        "surface": {name: interval(0.7 - gain) for name in metrics},
        "gain_over_surface": {name: interval(gain) for name in metrics},
    }
    entries = {
        name: {"classes": classes, "n": 10 * len(classes), "class_counts": {str(c): 10 for c in classes}, **compared}
        for name, classes in aspects.items()
    }
    protocol = {"cross_validation": "5 folds, by question id", "intervals": "95 %, percentile, 1000 resamples"}
    return {"aspects": entries, "mean": compared, "protocol": protocol, "candidates_tried": 3}


def fused_judge(folder, backbone_dir, tokenizer, *, seed=0, results=True, backbone_id=BACKBONE_ID):
    """Write a fused judge whose backbone has a Hub id; its files hold no path."""
    aspects = [
        aspect("correctness", [feature(3, "response_mean", "rms_normed"), feature(1, "last")], "ordinal"),
        aspect("fluency", [feature(2, "mean")], "votes", classes=(3, 4, 5)),
        aspect("extra", [feature(3, "last", "final_norm")], classes=(0, 1), counts=False),
    ]
    config = config_of(backbone_dir, aspects, {"chat": chat_reading(tokenizer)}, backbone_id=backbone_id)
    model = random_probes(InspectorModel(config), seed)
    model.set_backbone(load_backbone(str(backbone_dir), None, config.depth))
    InspectorPipeline(model=model.eval(), tokenizer=tokenizer, task=TASK, device="cpu").save_pretrained(folder)
    if results:
        data = evidence({a["name"]: a["classes"] for a in aspects})
        (folder / "results.json").write_text(json.dumps(data, indent=1) + "\n")
    return folder


def run_python(code, *args, env, cwd, with_package=False):
    """Run code in a process of its own, with our package or as where it is not installed; return what it prints."""
    block = "" if with_package else "import sys; sys.modules['inspector_pipeline'] = None\n"
    environment = {**os.environ, **env, "TOKENIZERS_PARALLELISM": "false", "HF_MODULES_CACHE": str(cwd / "modules")}
    environment["PYTHONPATH"] = str(ROOT) if with_package else ""
    done = run_fresh(block + textwrap.dedent(code), *args, env=environment, cwd=cwd)
    assert done.returncode == 0, done.stderr
    return done.stdout
