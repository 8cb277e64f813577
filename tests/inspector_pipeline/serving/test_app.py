"""Collect and label against a real OpenAI-compatible server, `transformers serve`, with the real 135M backbone."""

import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request

import pytest
from inspector_training.labelling.endpoint import EndpointConfig
from inspector_training.labelling.generate import LocalConfig
from inspector_training.rows.records import read_records, write_records
from inspector_training.stages.collect import Config as CollectConfig
from inspector_training.stages.collect import run as collect
from inspector_training.stages.label import Config as LabelConfig
from inspector_training.stages.label import run as label

from inspector_pipeline.wheel_backbone import EMBEDDED_BACKBONE_ID, local_backbone

STARTED_WITHIN = 120  # seconds

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def causal_lm(tmp_path_factory):
    """The backbone's folder, presented as what it was trained as; the server builds the class that the config names."""
    backbone = local_backbone(EMBEDDED_BACKBONE_ID)
    folder = tmp_path_factory.mktemp("serve") / "smollm2"
    folder.mkdir()
    for file in backbone.iterdir():
        (folder / file.name).symlink_to(file)
    config = json.loads((backbone / "config.json").read_text())
    (folder / "config.json").unlink()
    (folder / "config.json").write_text(json.dumps({**config, "architectures": ["LlamaForCausalLM"]}))
    return folder


@pytest.fixture(scope="module")
def served(causal_lm, tmp_path_factory):
    """Base URL of a server on loopback."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "transformers.cli.transformers", "serve", str(causal_lm), "--device", "cpu"]
    command += ["--dtype", "float32"]  # CPUs without a unit for bfloat16 take several times as long in it
    log = tmp_path_factory.mktemp("log") / "serve.log"
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    with log.open("wb") as output:
        server = subprocess.Popen(
            [*command, "--host", "127.0.0.1", "--port", str(port)], env=environment, stdout=output, stderr=output
        )
    try:
        deadline = time.monotonic() + STARTED_WITHIN
        while not healthy(port):
            assert server.poll() is None and time.monotonic() < deadline, log.read_text()[-3000:]
            time.sleep(0.2)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        server.kill()
        server.wait()


def healthy(port):
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5) as answer:
            return answer.status == 200
    except (urllib.error.URLError, ConnectionError):
        return False


def test_a_real_server_answers_and_grades(served, causal_lm, tmp_path):
    questions = tmp_path / "questions.jsonl"
    texts = ["What is the capital of France?", "What is 2 + 3?"]
    questions.write_text("".join(json.dumps({"id": i, "question": text}) + "\n" for i, text in enumerate(texts)))
    endpoint = EndpointConfig(served, concurrency=2)
    responses = tmp_path / "responses.jsonl"
    collect(CollectConfig(str(questions), str(responses), str(causal_lm), endpoint, max_tokens=16))
    rows = read_records(responses)
    assert [row["question"] for row in rows] == texts and all(row["error"] is None for row in rows)
    assert "Paris" in rows[0]["prediction"]
    for row in rows:
        assert row["finish_reason"] in ("stop", "length") and row["generator"] == "smollm2"
        assert row["usage"]["prompt_tokens"] > 10 and 0 < row["usage"]["completion_tokens"] <= 16

    labelled = tmp_path / "labelled.jsonl"
    responses.with_name("responses.jsonl.manifest.json").unlink()
    write_records(rows[:1], responses)
    label(LabelConfig(str(responses), str(labelled), str(causal_lm), endpoint, aspects=("factuality",), max_tokens=24))
    for row in read_records(labelled):  # a teacher this small may give nothing that can be parsed: that is null
        score = row["scores"]["factuality"]
        assert score in (1, 2, 3, 4, 5) if score is not None else row["reasons"]["factuality"]
        assert row["teacher_usage"]["calls"] in (1, 2) and row["teacher_usage"]["prompt_tokens"] > 200
        assert row["prediction"] and row["teacher"] == "smollm2"


def test_local_generation_says_what_the_server_says(served, causal_lm, tmp_path):
    questions = tmp_path / "questions.jsonl"
    questions.write_text('{"id": 0, "question": "What is the capital of France?"}\n')
    remote, local = tmp_path / "remote.jsonl", tmp_path / "local.jsonl"
    collect(CollectConfig(str(questions), str(remote), str(causal_lm), EndpointConfig(served), max_tokens=8))
    own = LocalConfig(dtype="float32", device="cpu")
    collect(CollectConfig(str(questions), str(local), EMBEDDED_BACKBONE_ID, local=own, max_tokens=8))
    assert read_records(local)[0]["prediction"].strip() == read_records(remote)[0]["prediction"].strip()
