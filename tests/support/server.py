"""A server on loopback, in a thread of this process or in one of its own, and what asks it."""

import http.client
import json
import os
import socket
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import uvicorn

from inspector_pipeline.serving.app import make_config
from inspector_pipeline.serving.gate import Limits

STARTED_WITHIN = 60  # seconds


@contextmanager
def serving(judge, api_key=None, **limits):
    """Serve from a thread; gives the port and the server."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        server = uvicorn.Server(make_config(judge, Limits(**limits), api_key=api_key))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        deadline = time.monotonic() + STARTED_WITHIN
        while not server.started:
            assert thread.is_alive() and time.monotonic() < deadline
            time.sleep(0.01)
        try:
            yield listener.getsockname()[1], server
        finally:
            server.should_exit = True
            thread.join()


def ask(port, path, body=None, headers=None):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        data = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
        connection.request(
            "GET" if body is None else "POST", path, data, {"Content-Type": "application/json", **(headers or {})}
        )
        answer = connection.getresponse()
        text = answer.read().decode()
        is_json = answer.headers["content-type"].startswith("application/json")
        return answer.status, json.loads(text) if is_json else text, answer.headers
    finally:
        connection.close()


@contextmanager
def serving_process(folder, *options, environment=None):
    """Serve a judge's folder with the command; gives the port and the process, whose stderr is a pipe."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "inspector_cli.main", "serve", str(folder), "--device", "cpu", "--port", str(port)]
    command += ["--no-access-log"]  # nobody reads the pipe until the end, unless the options say otherwise
    environment = {**os.environ, "OMP_NUM_THREADS": "1", **(environment or {})}
    server = subprocess.Popen([*command, *map(str, options)], env=environment, stderr=subprocess.PIPE, text=True)
    try:
        deadline = time.monotonic() + STARTED_WITHIN
        while True:
            try:
                assert ask(port, "/health")[0] == 200
                break
            except ConnectionError:
                assert server.poll() is None and time.monotonic() < deadline
                time.sleep(0.05)
        yield port, server
    finally:
        server.kill()
        server.communicate()


def started(port, sent):
    """Open a connection and send some bytes of a request."""
    connection = socket.create_connection(("127.0.0.1", port), timeout=30)
    connection.sendall(sent)
    return connection


def request(body, length=None, path="/score"):
    """Return the bytes of a request, whose body may be shorter than it says."""
    head = f"POST {path} HTTP/1.1\r\nHost: h\r\nContent-Type: application/json\r\n"
    return f"{head}Content-Length: {len(body) if length is None else length}\r\n\r\n".encode() + body


def told(connection):
    """Return the code of the answer and the rest of it, read until the connection is closed."""
    with connection:
        answer = b"".join(iter(lambda: connection.recv(65536), b""))
    return int(answer.split(b" ")[1]), answer.decode()


def memory_of(process):
    """The most memory that a process has held, in KiB."""
    status = Path(f"/proc/{process.pid}/status").read_text()
    return int(next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM")))
