"""The metric's Space and a pushed judge in a fresh environment; a check by hand, no part of the tests.

    PYTHONPATH=.:tests python tests/benchmarks/fresh_ends.py work/fresh

Makes a virtual environment of the Space's own requirements file and of nothing else (minutes, some GB), unless it is
there. In it, without this clone, `evaluate.load` of the Space's folder scores two pairs with the embedded judge; and a
judge that `push_to_hub.py` has sent to a stand-in of the Hub on loopback is loaded by its id, by its own code. Both are
compared with what this environment gives. Prints JSON.
"""

import json
import os
import subprocess
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path

import torch
from support.hub_judges import fused_judge
from support.hub_stand_in import TOKEN, running_hub
from support.models import tiny_config
from support.paths import ROOT
from support.paths import TOKENIZER as TOKENIZER_FOLDER
from transformers import AutoModel, AutoTokenizer

from hub_cards.other_repos import stage_metric
from inspector_pipeline import load_judge
from inspector_pipeline.api.mean_scores import mean_scores

PAIRS = [
    {"question": "What is 6 x 7?", "prediction": "6 x 7 = 42. The answer is 42."},
    {"question": "Is nine a prime?", "prediction": "Yes, since it is odd."},
]
TEXTS = {f"{key}s": [pair[key] for pair in PAIRS] for key in PAIRS[0]}
TOLERANCE = 1e-3
SPACE = """
import json, sys, evaluate
found = evaluate.load(sys.argv[1]).compute(**json.loads(sys.argv[2]))
print(json.dumps({name: entry["mean"] for name, entry in found["expected"].items()}))
"""
PULL = """
import json, sys, transformers
judge = transformers.pipeline("inspector-judge", model=sys.argv[1], trust_remote_code=True)
print(json.dumps([result["expected"] for result in judge(json.loads(sys.argv[2]))]))
"""


def fresh_python(work, requirements):
    """Return the interpreter of an environment that holds a requirements file's packages alone."""
    folder = work / "environment"
    if not (folder / "done").is_file():
        subprocess.run([sys.executable, "-m", "venv", "--clear", folder], check=True)
        subprocess.run([folder / "bin" / "python", "-m", "pip", "install", "-q", "-r", requirements], check=True)
        (folder / "done").touch()
    return folder / "bin" / "python"


def answer(python, code, *args, cwd, env=None):
    """Run code in the fresh environment, away from this clone, and read its last line."""
    hidden = {"PYTHONPATH", "VIRTUAL_ENV"}
    inherited = {name: value for name, value in os.environ.items() if name not in hidden}
    command = [python, "-c", code, *map(str, args)]
    done = subprocess.run(
        command, cwd=cwd, env={**inherited, **(env or {})}, stdout=subprocess.PIPE, text=True, check=True
    )
    return json.loads(done.stdout.splitlines()[-1])


def pushed_judge(work, python):
    """Push a tiny judge to a stand-in, load it by its id, and return its scores there and here."""
    tokenizer = AutoTokenizer.from_pretrained(TOKENIZER_FOLDER)
    torch.manual_seed(0)
    AutoModel.from_config(tiny_config("qwen3")).save_pretrained(work / "backbone")
    tokenizer.save_pretrained(work / "backbone")
    judge = fused_judge(work / "judge", work / "backbone", tokenizer)
    (work / "LICENSE").write_text("The licence's text.\n")
    with running_hub() as hub:
        push = [sys.executable, str(ROOT / "push_to_hub.py"), str(judge), "org/judge", "--backbone-license", "mit"]
        push += ["--backbone-license-file", str(work / "LICENSE")]
        subprocess.run(push, env={**os.environ, **hub.env(work / "home", TOKEN)}, check=True)
        there = answer(python, PULL, "org/judge", json.dumps(PAIRS), cwd=work, env=hub.env(work / "other"))
    here = [result["expected"] for result in load_judge(judge, device="cpu")(PAIRS)]
    return there, here


def main(folder):
    """Run both ends and print what they gave."""
    work = Path(folder).resolve()
    work.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=work) as scratch:
        space = stage_metric(Path(scratch, "inspector_score"))
        python = fresh_python(work, space / "requirements.txt")
        means = answer(python, SPACE, space, json.dumps(TEXTS), cwd=space)
        pushed, ours = pushed_judge(Path(scratch), python)
    expected = {name: entry["mean"] for name, entry in mean_scores(**TEXTS)["expected"].items()}
    assert means.keys() == expected.keys()
    apart = max(abs(means[name] - expected[name]) for name in means)
    apart_pushed = max(abs(a[name] - b[name]) for a, b in zip(pushed, ours, strict=True) for name in b)
    listed = subprocess.run([python, "-I", "-m", "pip", "list", "--format", "json"], stdout=subprocess.PIPE, check=True)
    there = {one["name"]: one["version"] for one in json.loads(listed.stdout)}
    names = ("torch", "transformers", "evaluate", "gradio")
    told = {"space": means, "apart": apart, "pushed": pushed, "apart_pushed": apart_pushed}
    told |= {"packages": len(there), "there": {name: there[name] for name in names}, "torch_here": version("torch")}
    sys.stdout.write(json.dumps(told, indent=1) + "\n")
    assert max(apart, apart_pushed) < TOLERANCE and "inspector-pipeline" not in there


if __name__ == "__main__":
    main(*sys.argv[1:])
