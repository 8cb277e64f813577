"""The server among clients that send halves, too much, or go away; all with real HTTP on loopback."""

import json
import logging
import math
import signal
import sys
import threading
import time
from collections import deque
from concurrent.futures import ThreadPoolExecutor

import pytest
from support.hostile import hostile
from support.models import PAIRS, aspect, feature
from support.server import ask, memory_of, request, serving, serving_process, started, told

from inspector_pipeline import load_judge
from inspector_pipeline.devices import token_budget
from inspector_pipeline.errors import SettingsError
from inspector_pipeline.serving import batcher
from inspector_pipeline.serving.gate import Limits
from inspector_pipeline.serving.logs import JsonLines

BODY = json.dumps({"pairs": PAIRS}).encode()


@pytest.fixture(scope="session")
def family():
    return "llama"


@pytest.fixture
def folder(make_judge):
    return make_judge([aspect("a", [feature(1)])], max_length=96)


@pytest.fixture
def judge(folder):
    return load_judge(folder, device="cpu")


@pytest.fixture
def scoring(monkeypatch):
    """Holds every window back until `go` is set; `pairs` are those whose scoring has begun."""

    class Scoring:
        go = threading.Event()
        pairs = []

    def score_window(judge, pairs):
        Scoring.pairs += pairs
        assert Scoring.go.wait(30)
        return whole(judge, pairs)

    whole = batcher.score_window
    monkeypatch.setattr(batcher, "score_window", score_window)
    yield Scoring
    Scoring.go.set()


def until(is_so, seconds=20):
    deadline = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def metric(port, name):
    lines = ask(port, "/metrics")[1].splitlines()
    return float(next((line.rsplit(" ", 1)[1] for line in lines if line.startswith(f"{name} ")), 0))


def test_sigterm_waits_for_no_half_sent_body_and_answers_what_was_accepted(folder):
    pairs = {"pairs": [{"question": "q", "prediction": f"{i} " * 40} for i in range(200)]}
    with serving_process(folder) as (port, server), ThreadPoolExecutor(5) as clients:
        halves = [started(port, request(BODY[:20], 1000)) for _ in range(5)]
        halves += [started(port, b"POST /score HTT") for _ in range(5)]
        asked = [clients.submit(ask, port, "/score", pairs) for _ in range(5)]
        until(lambda: ask(port, "/health")[1]["waiting"] > 0 or asked[0].done())
        began = time.monotonic()
        server.send_signal(signal.SIGTERM)
        halves_told = [told(connection) for connection in halves[:5]]
        assert all(connection.recv(1) == b"" for connection in halves[5:])
        _, error = server.communicate(timeout=10)
        assert time.monotonic() - began < 10
        answers = [one.result() for one in asked]
    assert [status for status, _, _ in answers] == [200] * 5 and "Traceback" not in error
    assert all(status == 503 and "shuts down" in text and "retry-after: 5" in text for status, text in halves_told)
    for connection in halves:
        connection.close()


def test_forty_hostile_connections_keep_no_honest_request_waiting(folder, judge):
    expected = judge(PAIRS)
    with serving_process(folder) as (port, server), ThreadPoolExecutor(8) as clients:
        before = memory_of(server)
        with hostile(port, 40):
            asked = [clients.submit(ask, port, "/score", {"pairs": PAIRS}) for _ in range(60)]
            answers = [one.result(timeout=60) for one in asked]
            assert memory_of(server) - before < 200_000  # KiB: bodies of 64 MB, and what reads them
            late = [clients.submit(ask, port, "/score", {"pairs": PAIRS * 60}) for _ in range(4)]
            until(lambda: ask(port, "/health")[1]["waiting"] >= 180 * sum(not one.done() for one in late))
            began = time.monotonic()
            server.send_signal(signal.SIGTERM)
            _, error = server.communicate(timeout=15)
            assert time.monotonic() - began < 10
            answers += [one.result(timeout=10) for one in late]
    assert [status for status, _, _ in answers] == [200] * 64 and "Traceback" not in error
    for _, answer, _ in answers[:60]:
        assert [one["scores"] for one in answer["results"]] == [one["scores"] for one in expected]


def test_what_cannot_be_scored_before_the_end_is_told_so(judge, scoring):
    with serving(judge, shutdown_s=1) as (port, server), ThreadPoolExecutor(3) as clients:
        asked = [clients.submit(ask, port, "/score", {"pairs": PAIRS}) for _ in range(3)]
        until(lambda: ask(port, "/health")[1]["waiting"] == 3 * len(PAIRS))
        server.should_exit = True
        for status, answer, headers in (one.result(timeout=9) for one in asked):
            assert status == 503 and "shuts down" in answer["detail"] and headers["Retry-After"] == "5"


def test_requests_whose_client_has_gone_are_not_scored(judge, scoring):
    with serving(judge, queue=10, pairs=3) as (port, _), ThreadPoolExecutor(2) as clients:
        first = clients.submit(ask, port, "/score", {"pairs": PAIRS})
        until(lambda: len(scoring.pairs) == 3)
        for number in range(8):  # more than the queue holds, were they kept
            gone = started(
                port, request(json.dumps({"pairs": [{"question": f"g{number}", "prediction": "p"}] * 3}).encode())
            )
            until(lambda: ask(port, "/health")[1]["waiting"] == 6)
            gone.close()
            until(lambda: ask(port, "/health")[1]["waiting"] == 3)
        assert 0 < metric(port, "inspector_held_bytes") < 1000
        last = clients.submit(ask, port, "/score", {"pairs": PAIRS})
        until(lambda: ask(port, "/health")[1]["waiting"] == 6)
        scoring.go.set()
        assert first.result()[0] == last.result()[0] == 200
        assert scoring.pairs == PAIRS * 2
        assert metric(port, 'inspector_requests_total{code="499"}') == 8 and metric(port, "inspector_held_bytes") == 0


def test_requests_take_turns_and_a_window_is_a_few_passes(judge, scoring, monkeypatch):
    many = {"pairs": [{"question": f"m{i}", "prediction": "p"} for i in range(200)]}
    few = {"pairs": [{"question": "few", "prediction": "p"}] * 2}
    with serving(judge) as (port, _), ThreadPoolExecutor(3) as clients:
        first = clients.submit(ask, port, "/score", {"pairs": PAIRS})
        until(lambda: len(scoring.pairs) == 3)
        large = clients.submit(ask, port, "/score", many)
        until(lambda: ask(port, "/health")[1]["waiting"] == 203)
        small = clients.submit(ask, port, "/score", few)
        until(lambda: ask(port, "/health")[1]["waiting"] == 205)
        monkeypatch.setattr(batcher, "WINDOW_ROWS", 20)
        scoring.go.set()
        assert [one.result()[0] for one in (first, small, large)] == [200] * 3
    asked = [pair["question"] for pair in scoring.pairs]
    assert asked[3 + batcher.TURN : 5 + batcher.TURN] == ["few"] * 2
    assert [one for one in asked[3:] if one != "few"] == [pair["question"] for pair in many["pairs"]]


def test_a_window_is_as_long_as_a_few_passes(judge):
    own = batcher.Batcher(judge, 999, lambda *_: None)
    long = {"question": "q", "prediction": "a " * 999}
    passes = batcher.WINDOW_PASSES * token_budget(judge.device) / judge.model.config.max_length
    own._queue.append(deque((long, None) for _ in range(200)))
    own._fill_window()
    assert len(own._window) == math.ceil(passes) and len(own._queue[0]) == 200 - len(own._window)


def test_what_waits_is_bounded_in_bytes_and_large_halves_make_room_for_small_wholes(judge, scoring):
    large = json.dumps({"pairs": [{"question": "q", "prediction": "p" * 90_000}]}).encode()
    limits = {"body_bytes": 100_000, "queue_bytes": 250_000}
    with serving(judge, **limits) as (port, _), ThreadPoolExecutor(4) as clients:
        waiting = [clients.submit(ask, port, "/score", large) for _ in range(2)]
        until(lambda: ask(port, "/health")[1]["waiting"] == 2)
        half = started(port, request(large[:60_000], 90_000))
        until(lambda: metric(port, "inspector_held_bytes") > 240_000)
        small = json.dumps({"pairs": [{"question": "q", "prediction": "p" * 20_000}]}).encode()
        waiting.append(clients.submit(ask, port, "/score", small))
        until(lambda: ask(port, "/health")[1]["waiting"] == 3)
        assert metric(port, "inspector_held_bytes") < 210_000  # the half was let go, and is answered once it has come
        half.sendall(large[60_000:90_000])
        status, text = told(half)
        assert status == 429 and "retry-after: 1" in text and "Come again" in text
        status, answer, headers = ask(port, "/score", large)
        assert status == 429 and int(headers["Retry-After"]) >= 1
        scoring.go.set()
        assert [one.result()[0] for one in waiting] == [200] * 3
        assert ask(port, "/score", large)[0] == 200  # and there is room again


def test_a_request_that_takes_too_long_is_told_so(judge, scoring):
    with serving(judge, request_s=1) as (port, _):
        status, answer, headers = ask(port, "/score", {"pairs": PAIRS})
        assert status == 504 and "within 1 s" in answer["detail"] and int(headers["Retry-After"]) >= 1
        scoring.go.set()
        assert ask(port, "/score", {"pairs": PAIRS})[0] == 200


def test_the_command_writes_a_line_of_json_for_each_request_without_texts_and_ends_well_on_sigterm(folder):
    pairs = {"pairs": [{"question": "SECRET", "prediction": "SECRET " * 9}] * 2}
    with serving_process(folder, "--access-log", "--max-pairs", 2, "--max-queue", 2) as (port, server):
        assert ask(port, "/score", pairs)[0] == 200
        assert ask(port, "/score?q=SECRET", {"pairs": pairs["pairs"] * 2})[0] == 413
        assert ask(port, "/SECRET%0A%1B", pairs)[0] == 404
        assert ask(port, "/score", {"pairs": [{"question": "SECRET", "prediction": {"SECRET": 1}}]})[0] == 422
        started(port, request(b'{"pairs": "SECRET', 5000)).close()
        until(lambda: metric(port, 'inspector_requests_total{code="499"}') == 1)
        server.send_signal(signal.SIGTERM)
        _, error = server.communicate(timeout=10)
    everything = [json.loads(line) for line in error.splitlines()]  # all that is written is JSON
    told = [one["message"] for one in everything if "message" in one]
    assert any("running on http://127.0.0.1" in line for line in told) and "Shutting down" in told
    lines = [one for one in everything if "method" in one]
    found = [(one["path"], one["status"], one["pairs"]) for one in lines if one["method"] == "POST"]
    score = "/score"
    assert found == [(score, 200, 2), (score, 413, 4), (None, 404, None), (score, 422, None), (score, 499, None)]
    assert lines[0].keys() == {"time", "client", "method", "path", "status", "bytes", "pairs", "seconds"}
    assert "SECRET" not in error and "\x1b" not in error and server.returncode in (0, -signal.SIGTERM)


@pytest.mark.parametrize("limits", [{"queue_bytes": 10}, {"connections": 0}, {"read_s": 0}])
def test_limits_that_let_nothing_in(limits):
    with pytest.raises(SettingsError, match="queue_bytes >= body_bytes"):
        Limits(**limits)


def test_errors_are_lines_of_json_with_their_tracebacks():
    try:
        raise ValueError("no room")
    except ValueError:
        record = logging.LogRecord("a", logging.ERROR, "f", 1, "A window of %d pairs\nfailed.", (3,), sys.exc_info())
    line = JsonLines().format(record)
    found = json.loads(line)
    assert "\n" not in line and found["level"] == "error" and found["message"] == "A window of 3 pairs\nfailed."
    assert found["exception"].endswith("ValueError: no room") and found["time"].endswith("+00:00")


def test_a_connection_too_many_is_told_to_come_again(judge):
    with serving(judge, connections=2) as (port, _):
        held = [started(port, b"POST /score HTT") for _ in range(2)]
        until(lambda: told(started(port, b""))[0] == 429)
        _, text = told(started(port, b""))
        head, _, body = text.partition("\r\n\r\n")
        assert "Retry-After: 5" in head and json.loads(body)["error_type"] == "Overloaded"
        assert f"Content-Length: {len(body)}" in head
        for connection in held:
            connection.close()
