"""The server over real HTTP on loopback."""

import ast
import http.client
import json
import random
import shlex
import shutil
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from huggingface_hub import InferenceClient
from huggingface_hub.errors import HfHubHTTPError
from inspector_cli.main import main
from jsonschema import Draft202012Validator
from support.models import PAIRS, aspect, feature
from support.paths import ROOT
from support.server import ask, serving

from inspector_pipeline import PairTemplate, load_judge
from inspector_pipeline.errors import SettingsError
from inspector_pipeline.serving.app import Metrics
from inspector_pipeline.serving.gate import Limits


@pytest.fixture(scope="session")
def family():
    return "llama"


@pytest.fixture
def folder(make_judge):
    return make_judge([aspect("a", [feature(1)]), aspect("b", [feature(1, "last")])], max_length=96)


@pytest.fixture
def judge(folder):
    return load_judge(folder, device="cpu")


def as_json(results):
    return json.loads(json.dumps(results))


def same(found, expected):
    assert [one["scores"] for one in found] == [one["scores"] for one in expected]
    for one, other in zip(found, expected, strict=True):
        assert one["expected"] == pytest.approx(other["expected"], abs=1e-4)
        assert one["total_score"] == other["total_score"] and one["truncated"] == other["truncated"]
    return True


def test_a_request_gets_the_judge_s_results(judge):
    expected = as_json(judge(PAIRS))
    with serving(judge) as (port, _):
        status, answer, _ = ask(port, "/score", {"pairs": PAIRS})
        assert status == 200 and list(answer) == ["results"] and same(answer["results"], expected)
        assert answer["results"][0]["probabilities"].keys() == {"a", "b"}


def test_concurrent_requests_each_get_their_own_answer(judge):
    chance = random.Random(0)
    requests = [
        [
            {"question": f"What is {i}?", "prediction": "no " * chance.randint(1, 30)}
            for _ in range(chance.randint(1, 9))
        ]
        for i in range(120)
    ]
    expected = [as_json(judge(pairs)) for pairs in requests]
    with serving(judge) as (port, _):
        with ThreadPoolExecutor(16) as clients:
            answers = list(clients.map(lambda pairs: ask(port, "/score", {"pairs": pairs}), requests))
        _, metrics, _ = ask(port, "/metrics")
    assert all(status == 200 for status, _, _ in answers)
    assert all(same(answer["results"], one) for (_, answer, _), one in zip(answers, expected, strict=True))
    lines = dict(line.rsplit(" ", 1) for line in metrics.splitlines() if not line.startswith("#"))
    assert float(lines["inspector_pairs_total"]) == sum(map(len, requests))
    assert float(lines['inspector_requests_total{code="200"}']) == 120
    assert float(lines["inspector_window_pairs_count"]) < 120  # they were joined
    assert float(lines["inspector_waiting_pairs"]) == 0 and float(lines["inspector_tokens_total"]) > 1000


def test_a_judge_of_questions_is_served_questions_alone(make_judge):
    reading = PairTemplate.from_template("Read: {question} Known?", question_only=True).to_dict()
    known = aspect("known", [feature(2, "last", "raw", "alone")], classes=(0, 1))
    judge = load_judge(make_judge([known], {"alone": reading}), device="cpu")
    questions = [{"question": pair["question"]} for pair in PAIRS]
    expected = as_json(judge(questions))
    with serving(judge) as (port, _):
        asked = [[one["question"]] for one in questions]
        status, answer, _ = ask(port, "/predict", {"inputs": asked, "raw_scores": True})
        assert status == 200 and [one[0]["score"] for one in answer] == pytest.approx(
            [one["expected"]["known"] for one in expected], abs=1e-4
        )
        for pairs in (questions, PAIRS, [{**one, "prediction": None} for one in questions]):
            status, answer, _ = ask(port, "/score", {"pairs": pairs})
            assert status == 200 and same(answer["results"], expected)
        status, answer, _ = ask(port, "/score", {"pairs": [{"prediction": "p"}]})
        assert status == 422 and "body.pairs.0.question: Field required" in answer["detail"]
        schemas = ask(port, "/openapi.json")[1]["components"]["schemas"]
    assert schemas["Question"]["required"] == ["question"] and "Pair" not in schemas


def test_a_server_that_has_failed_leaves_nobody_waiting_and_says_so(judge, monkeypatch, caplog):
    def fail(*_):
        raise RuntimeError("no room for metrics")

    monkeypatch.setattr(Metrics, "on_window", fail)
    pairs = {"pairs": [{"question": "q", "prediction": f"{i} " * 40} for i in range(200)]}
    with serving(judge) as (port, _):
        assert ask(port, "/health")[0] == 200
        with ThreadPoolExecutor(4) as clients:
            answers = list(clients.map(lambda _: ask(port, "/score", pairs), range(8)))
        assert {status for status, _, _ in answers} == {500}
        assert "The server has stopped scoring" in answers[0][1]["detail"]
        assert "must be started again" in ask(port, "/score", pairs)[1]["detail"]
        assert ask(port, "/health")[0] == 503 and ask(port, "/health")[1]["status"] == "failed"
        assert 'inspector_requests_total{code="500"} 9.0' in ask(port, "/metrics")[1]
    assert "no room for metrics" in caplog.text


POLICY = "content-security-policy"
BAD = {
    "no JSON": (b"{", 422, "JSON"),
    "no UTF-8": (b'{"pairs": [{"question": "\xff", "prediction": "p"}]}', 400, ""),
    "deep": (b"[" * 100_000, 400, ""),
    "no pairs": ({"pairs": []}, 422, "at least 1 item"),
    "no list": ({"pairs": {"question": "q", "prediction": "p"}}, 422, "body.pairs"),
    "no prediction": ({"pairs": [{"question": "q"}]}, 422, "body.pairs.0.prediction: Field required"),
    "null": ({"pairs": [{"question": "q", "prediction": None}]}, 422, "valid string"),
    "number": ({"pairs": [{"question": "q", "prediction": 5}]}, 422, "valid string"),
    "blank": ({"pairs": [*PAIRS, {"question": "q", "prediction": " "}]}, 422, "Pair 3 expects text for 'prediction'"),
    "surrogate": (b'{"pairs": [{"question": "q", "prediction": "\\ud800"}]}', 422, ""),
    "NaN": (b'{"pairs": [{"question": NaN, "prediction": "p"}]}', 400, "NaN, which is no JSON"),
    "NaN beside": (
        b'{"pairs": [{"question": "q", "prediction": "p", "x": [-Infinity]}]}',
        400,
        "-Infinity, which is no",
    ),
    "invisible": ({"pairs": [{"question": "\u200b", "prediction": "p"}]}, 422, "Pair 0 expects text for 'question'"),
    "bomb": (b'{"pairs": [' + b"[]," * 60_000 + b"[]]}", 413, "at most 100000 parts"),
    "strings": (b'{"pairs": [' + b'"",' * 60_000, 413, "at most 100000 parts"),
    "endless string": (b'"' + b'\\"' * 90_000, 422, ""),
    "surrogate key": (b'{"pairs": [{"\\ud800": 1, "question": 3, "prediction": "p"}]}', 422, "valid string"),
    "UTF-16": (b"\xff\xfe" + '{"pairs": []}'.encode("utf-16-le"), 400, "in UTF-8"),
    "parts behind quotes": ("\ufeff[\u2200".encode("utf-16-le") + b"[\0,\0" * 40_000, 400, "in UTF-8"),
    "many pairs": ({"pairs": PAIRS * 4}, 413, "at most 8 pairs, but got 12"),
    "large": ({"pairs": [{"question": "q", "prediction": "p" * 200_001}]}, 413, "at most 200000 bytes"),
}


def test_bad_input_is_refused_with_what_is_wrong(judge):
    with serving(judge, body_bytes=200_000, pairs=8, queue=8) as (port, _):
        for case, (body, code, words) in BAD.items():
            status, answer, _ = ask(port, "/score", body)
            assert status == code and words in answer["detail"], (case, status, answer)
        chunks = iter([b" " * 150_000] * 2)  # no Content-Length tells its size
        assert ask_in_chunks(port, chunks) == 413
        status, answer, _ = ask(port, "/score", b" " * 30_000_000)  # more than the sockets' buffers hold
        assert status == 413 and "at most 200000 bytes" in answer["detail"]
        codes = [code for _, code, _ in BAD.values()]
        counts = {"413": codes.count(413) + 2, "422": codes.count(422)}
        metrics = ask(port, "/metrics")[1].splitlines()
        assert all(f'inspector_requests_total{{code="{code}"}} {n}.0' in metrics for code, n in counts.items())
        assert ask(port, "/score")[0] == 405 and ask(port, "/nowhere")[0] == 404
        assert [head(port, path) for path in ("/health", "/ready", "/score")] == [(200, b""), (200, b""), (405, b"")]
        assert ask(port, "/score/", {"pairs": []})[0] == 404  # no redirect to whatever host a client names
        assert ask(port, "/score", {"pairs": PAIRS})[0] == 200
        assert ask(port, "/score", {"pairs": [{"question": "q", "prediction": " [{," * 40_000}]})[0] == 200  # no parts


def head(port, path):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    connection.request("HEAD", path)
    answer = connection.getresponse()
    found = answer.status, answer.read()
    connection.close()
    return found


def ask_in_chunks(port, chunks):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    connection.request("POST", "/score", chunks, {"Content-Type": "application/json"}, encode_chunked=True)
    status = connection.getresponse().status
    connection.close()
    return status


def test_a_full_queue_says_when_to_come_again(judge):
    with serving(judge, pairs=64, queue=64) as (port, _):
        pairs = {"pairs": [{"question": "q", "prediction": f"{i} " * 40} for i in range(64)]}
        with ThreadPoolExecutor(12) as clients:
            answers = list(clients.map(lambda _: ask(port, "/score", pairs), range(24)))
        codes = [status for status, _, _ in answers]
        assert set(codes) == {200, 429}
        for status, answer, headers in answers:
            if status == 429:
                assert int(headers["Retry-After"]) >= 1 and "Come again" in answer["detail"]
                assert answer["error"] == answer["detail"] and answer["error_type"] == "Overloaded"
            else:
                assert len(answer["results"]) == 64
        assert ask(port, "/score", pairs)[0] == 200  # and there is room again


def test_shutting_down_finishes_what_was_accepted(judge):
    pairs = {"pairs": [{"question": "q", "prediction": f"{i} " * 40} for i in range(200)]}
    with serving(judge) as (port, server), ThreadPoolExecutor(6) as clients:
        asked = [clients.submit(ask, port, "/score", pairs) for _ in range(6)]
        while ask(port, "/health")[1]["waiting"] < 6 * 200 and not any(one.done() for one in asked):
            time.sleep(0.005)
        server.should_exit = True
        answers = [one.result() for one in asked]
    assert [status for status, _, _ in answers] == [200] * 6
    assert all(len(answer["results"]) == 200 for _, answer, _ in answers)


def of_api(description, schema):
    return Draft202012Validator({**schema, "components": description["components"]})


def test_the_api_describes_itself_as_it_is(judge):
    with serving(judge, pairs=2, api_key="k") as (port, _):
        key = {"Authorization": "Bearer k"}
        _, description, _ = ask(port, "/openapi.json")
        assert description["openapi"].startswith("3.1")
        for path in ("/score", "/predict", "/"):
            (operation,) = description["paths"][path].values()
            answers = operation["responses"]
            assert {"200", "400", "401", "413", "422", "429", "503", "504"} <= answers.keys()
            assert "Retry-After" in answers["429"]["headers"] and operation["security"] == [{"ApiKey": []}]
            body = operation["requestBody"]["content"]["application/json"]["schema"]
            schema = description["components"]["schemas"][body["$ref"].rpartition("/")[2]]
            for example in schema["examples"]:  # is valid, and gets a valid answer
                of_api(description, body).validate(example)
                status, answer, _ = ask(port, path, example, key)
                assert status == 200, (path, example, answer)
                of_api(description, answers["200"]["content"]["application/json"]["schema"]).validate(answer)
        rows = {"pairs": [{"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]}]}
        of_api(description, {"$ref": "#/components/schemas/ScoreRequest"}).validate(rows)
        assert ask(port, "/score", rows, key)[0] == 200
        for status, answer, _ in (
            ask(port, "/score", b"{", key),
            ask(port, "/score", rows),
            ask(port, "/no", None, key),
        ):
            assert status in (422, 401, 404)
            of_api(description, {"$ref": "#/components/schemas/Problem"}).validate(answer)
        status, page, headers = ask(port, "/docs")
        assert status == 200 and "<script" not in page and "default-src 'none'" in headers[POLICY]
        assert all(f"<h2>POST {path}</h2>" in page for path in ("/score", "/predict", "/"))


PREDICT = {
    "pair": (lambda a, b: a, lambda found: [found[0]]),
    "text_pair": (lambda a, b: {"text": a[0], "text_pair": a[1]}, lambda found: [found[0]]),
    "pairs": (lambda a, b: [a, b], lambda found: found),
    "text_pairs": (lambda a, b: [{"text": one, "text_pair": other} for one, other in (a, b)], lambda found: found),
}


def test_clients_of_classifiers_are_answered_in_their_shape(judge):
    pairs = [[pair["question"], pair["prediction"]] for pair in PAIRS[:2]]
    expected = as_json(judge(PAIRS[:2]))
    with serving(judge) as (port, _):
        for case, (write, wanted) in PREDICT.items():
            body = {"inputs": write(*pairs), "raw_scores": True, "truncate": True}
            status, answer, _ = ask(port, "/predict", body)
            assert status == 200, (case, answer)
            answers = answer if case.endswith("s") else [answer]
            for labels, result in zip(answers, wanted(expected), strict=True):
                assert {one["label"]: one["score"] for one in labels} == pytest.approx(result["expected"], abs=1e-4)
                assert [one["score"] for one in labels] == sorted((one["score"] for one in labels), reverse=True)
        _, (labels, *_), _ = ask(port, "/predict", {"inputs": pairs})
        assert all(0 <= one["score"] <= 1 for one in labels)
        for inputs in ("alone", ["a", "b", "c"], [["a"]], [["a"], ["b"]], [{"text": "a"}], []):
            status, answer, _ = ask(port, "/predict", {"inputs": inputs})
            assert status == 422 and answer["error"] == answer["detail"], (inputs, answer)
            assert not inputs or "a pair. This judge reads a question and its response" in answer["error"]
        long = [["q", "a " * 200], pairs[0]]
        assert ask(port, "/predict", {"inputs": long, "truncate": True})[0] == 200
        status, answer, _ = ask(port, "/predict", {"inputs": long, "truncate": False})
        assert status == 413 and "at most 96 tokens, but pair 0 is longer" in answer["error"]


def readme(mark, language):
    """Return the block that follows a mark of the README."""
    _, _, rest = (ROOT / "README.md").read_text(encoding="utf-8").partition(f"<!-- {mark} -->\n```{language}\n")
    block, fence, _ = rest.partition("```")
    assert fence
    return block


def test_the_lines_of_the_readme_ask_a_server(judge, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)  # as tests are; the server is on loopback
    pair = {"question": "6 times 7?", "prediction": "It is 42."}
    result = as_json(judge(pair))
    shares = {name: (value - 1) / 4 for name, value in result["expected"].items()}
    with serving(judge) as (port, _):
        place = f"localhost:{port}"
        for client in ("curl",) if shutil.which("curl") else ():
            words = shlex.split(readme("serve", "bash").replace("localhost:8000", place))
            assert words[0] == client
            done = subprocess.run(words, capture_output=True, text=True, check=True)
            assert same(json.loads(done.stdout)["results"], [result])
        (line,) = ast.parse(readme("client", "python").replace("localhost:8000", place)).body[1:]
        labels = asked_by_hub_client(line)
        assert {one.label: one.score for one in labels} == pytest.approx(shares, abs=1e-4)
        client = InferenceClient(f"http://{place}")
        (best,) = client.text_classification({"text": pair["question"], "text_pair": pair["prediction"]}, top_k=1)
        assert best.label == labels[0].label
        raw = client.text_classification([pair["question"], pair["prediction"]], function_to_apply="none")
        assert {one.label: one.score for one in raw} == pytest.approx(result["expected"], abs=1e-4)
        with pytest.raises(HfHubHTTPError, match="422"):
            client.text_classification("no response")


def asked_by_hub_client(line):
    """Evaluate the README's line that asks by the Hub's client."""
    code = compile(ast.Expression(line.value), "README.md", "eval")
    return eval(code, {"InferenceClient": InferenceClient})


def test_where_a_key_is_set_it_is_wanted_before_a_body_is_read(judge):
    with serving(judge, api_key="s3cret") as (port, _):
        for headers in (None, {"Authorization": "Bearer wrong"}, {"Authorization": "s3cre"}):
            status, answer, told = ask(port, "/score", {"pairs": PAIRS}, headers)
            assert status == 401 and "Bearer KEY" in answer["detail"] and told["WWW-Authenticate"] == "Bearer"
        assert ask(port, "/metrics")[0] == 401
        assert ask(port, "/score", {"pairs": PAIRS}, {"Authorization": "Bearer s3cret"})[0] == 200
        assert ask(port, "/health")[0] == ask(port, "/openapi.json")[0] == 200
        assert ask(port, "/ready")[:2] == (200, {"ready": True})


def test_a_blank_key_is_refused(folder, monkeypatch, capsys):
    monkeypatch.setenv("INSPECTOR_API_KEY", " ")
    assert main(["serve", str(folder)]) == 1
    assert "INSPECTOR_API_KEY expects a key" in capsys.readouterr().err


def test_limits_that_contradict_each_other():
    with pytest.raises(SettingsError, match="queue >= pairs"):
        Limits(pairs=10, queue=9)
