import json
import os
import shutil
import socket
import subprocess
import sys
import textwrap
import time
import urllib.error
import urllib.request

import pytest
from support.models import PAIRS, aspect, feature

from inspector_pipeline import PairError, load_judge
from inspector_pipeline.handler import EndpointHandler

# What the inference toolkit of Hugging Face does: the repo's handler.py is loaded by its path, outside any package, and
# called with a request's JSON; an error is a 400 with its message.
TOOLKIT = """
    import importlib.util, os, sys
    sys.modules["inspector_pipeline"] = None  # an endpoint has transformers, not our package
    import uvicorn
    from fastapi import FastAPI, Request
    from fastapi.responses import JSONResponse

    folder, port = sys.argv[1], int(sys.argv[2])
    spec = importlib.util.spec_from_file_location("handler", os.path.join(folder, "handler.py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    handler = module.EndpointHandler(folder, task="custom")
    app = FastAPI()

    @app.post("/")
    async def predict(request: Request):
        try:
            return JSONResponse(handler(await request.json()))
        except Exception as error:
            return JSONResponse({"error": str(error)}, status_code=400)

    uvicorn.run(app, port=port, log_level="error")
"""


@pytest.fixture
def judge_dir(make_judge, tmp_path):
    source = make_judge([aspect("a", [feature(3, "last", "rms_normed")]), aspect("b", [feature(2)], classes=(0, 1))])
    load_judge(source, device="cpu").save_pretrained(tmp_path / "fused")
    return tmp_path / "fused"


@pytest.fixture
def endpoint(judge_dir, tmp_path):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    env = {**os.environ, "HF_MODULES_CACHE": str(tmp_path / "modules"), "CUDA_VISIBLE_DEVICES": ""}
    repo = tmp_path / "repository"
    shutil.copytree(judge_dir, repo)
    command = [sys.executable, "-c", textwrap.dedent(TOOLKIT), str(repo), str(port)]
    server = subprocess.Popen(command, env=env, cwd=tmp_path, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE)
    url = f"http://127.0.0.1:{port}/"
    try:
        wait_for(url, server)
        yield url
    finally:
        server.terminate()
        server.communicate()


def wait_for(url, server, seconds=180):
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        assert server.poll() is None, server.stderr.read().decode()
        try:
            post(url, {"inputs": []})
            return
        except urllib.error.URLError:
            time.sleep(0.2)
    raise TimeoutError(url)


def post(url, body):
    request = urllib.request.Request(url, json.dumps(body).encode(), {"Content-Type": "application/json"})
    with urllib.request.urlopen(request) as answer:
        return json.load(answer)


def refused(url, body):
    with pytest.raises(urllib.error.HTTPError, match="400") as caught:
        post(url, body)
    with caught.value as answer:
        return json.load(answer)["error"]


@pytest.mark.parametrize("family", ["llama"], indirect=True)
def test_an_endpoint_serves_a_judges_repo_as_it_is(endpoint, judge_dir):
    expected = json.loads(json.dumps(load_judge(judge_dir, device="cpu")(PAIRS, batch_size=2)))
    assert post(endpoint, {"inputs": PAIRS, "parameters": {"batch_size": 2}}) == expected
    (alone,) = post(endpoint, {"inputs": PAIRS[0]})
    assert alone["scores"] == expected[0]["scores"]
    assert post(endpoint, {"inputs": []}) == []
    assert "Pair 1 expects text for 'prediction', but got a blank string" in refused(
        endpoint, {"inputs": [PAIRS[0], {"question": "q", "prediction": " "}]}
    )
    assert 'expects {"inputs": ...}' in refused(endpoint, {"question": "q"})


def test_requests_of_another_form_are_errors(judge_dir):
    handler = EndpointHandler(str(judge_dir))
    assert handler({"inputs": PAIRS[0], "parameters": None})[0]["scores"]
    with pytest.raises(ValueError, match="a pair or a list of pairs, but got str"):
        handler({"inputs": "text"})
    with pytest.raises(ValueError, match="parameters knows batch_size, columns, strict, but got top_k"):
        handler({"inputs": PAIRS[0], "parameters": {"top_k": 1}})
    with pytest.raises(ValueError, match="but got no inputs"):
        handler([PAIRS[0]])
    with pytest.raises(PairError, match="Pair 0 expects the keys question and prediction"):
        handler({"inputs": [{"question": "q"}]})
