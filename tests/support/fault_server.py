"""An OpenAI-compatible server on loopback that answers, or fails, as a test's script says, and counts what it is asked;
and a way to run a stage in a process of its own that can be killed."""

import json
import multiprocessing
import random
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

KILLED = (
    "make_judge",
    "data",
    "collect",
    "label",
    "correctness",
    "corrupt",
    "audit",
    "extract",
    "fit",
    "evaluate",
    "export",
)
PRELOADED = ["pytest", *(f"inspector_training.stages.{stage}" for stage in KILLED)]


@dataclass
class Answer:
    """One answer: a chat completion with this text, unless status or raw say otherwise."""

    text: str | None = None
    finish_reason: str = "stop"
    status: int = 200
    headers: dict = field(default_factory=dict)
    delay: float = 0.0
    raw: bytes | None = None  # instead of the JSON body
    cut: int | None = None  # bytes to send of the body before the connection is closed
    usage: dict | None = field(default_factory=lambda: {"prompt_tokens": 100, "completion_tokens": 10})
    refusal: str | None = None
    error: str = "scripted"

    def body(self):
        if self.raw is not None:
            return self.raw
        if self.status != 200:
            return json.dumps({"error": {"message": self.error, "type": "scripted"}}).encode()
        message = {"role": "assistant", "content": self.text, "refusal": self.refusal}
        choice = {"index": 0, "message": message, "finish_reason": self.finish_reason}
        data = {"id": "x", "object": "chat.completion", "created": 0, "model": "m", "choices": [choice]}
        return json.dumps({**data, **({"usage": self.usage} if self.usage else {})}).encode()


class FaultServer:
    """Serves `script(body, times)`: the request's JSON and how often this very request came before -> Answer."""

    def __init__(self, script):
        self.script = script
        self.requests = []
        self.keys = set()
        self.counts = Counter()
        self.answered = Counter()  # requests that got a whole 200
        self.in_flight = self.most_in_flight = 0
        self.lock = threading.Lock()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def log_message(self, *args):
                pass

            def do_POST(self):
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                outer.keys.add(self.headers.get("Authorization"))
                outer.serve(self, body)

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.server.handle_error = lambda *args: None  # clients that were killed
        self.url = f"http://127.0.0.1:{self.server.server_port}/v1"

    def __enter__(self):
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        return self

    def __exit__(self, *error):
        self.server.shutdown()
        self.server.server_close()

    def serve(self, handler, body):
        name = json.dumps(body, sort_keys=True)
        with self.lock:
            times = self.counts[name]
            self.counts[name] += 1
            self.requests.append(body)
            self.in_flight += 1
            self.most_in_flight = max(self.in_flight, self.most_in_flight)
        answer = self.script(body, times)
        time.sleep(answer.delay)
        with self.lock:
            self.in_flight -= 1
        data = answer.body()
        handler.send_response(answer.status)
        for key, value in {"Content-Type": "application/json", **answer.headers}.items():
            handler.send_header(key, value)
        handler.send_header("Content-Length", str(len(data)))
        handler.end_headers()
        handler.wfile.write(data[: answer.cut])
        if answer.cut is not None:
            handler.close_connection = True
        elif answer.status == 200:
            with self.lock:
                self.answered[name] += 1


def user_text(body):
    """The last user message of a request."""
    return [message["content"] for message in body["messages"] if message["role"] == "user"][-1]


def start(stage, config):
    """Run a stage in a process of its own; the fork server has imported everything already."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    process = context.Process(target=stage, args=(config,))
    process.start()
    return process


def kill_and_resume(stage, config, server, cycles, seed):
    """Kill a stage with SIGKILL after a random number of further requests, again and again; then let it end.

    Returns:
        How many cycles really ended by the kill.
    """
    rng = random.Random(seed)
    killed = 0
    for _ in range(cycles):
        target = len(server.requests) + rng.randint(1, 12)
        process = start(stage, config)
        deadline = time.monotonic() + 120
        while len(server.requests) < target and process.is_alive() and time.monotonic() < deadline:
            time.sleep(0.002)
        time.sleep(rng.uniform(0, 0.03))
        process.kill()
        process.join()
        killed += process.exitcode == -9
    process = start(stage, config)
    process.join(300)
    assert process.exitcode == 0
    return killed
