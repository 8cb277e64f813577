"""Load `inspector serve` over loopback, and hold it against the offline engine; a benchmark, no part of the tests.

    INSPECTOR_DATA=... PYTHONPATH=.:tests python tests/benchmarks/bench_serve.py --judge embedded --pairs 1000
    PYTHONPATH=.:tests python tests/benchmarks/bench_serve.py --input pairs.jsonl --pairs 2000  # a tiny random judge
    PYTHONPATH=.:tests python tests/benchmarks/bench_serve.py --input pairs.jsonl --hostile 200

The pairs are the labelled GSM8K ones of INSPECTOR_DATA, or those of --input. The offline engine scores the first half
of them before and the second half after the server scores all, in this process; between, this process is the client,
with --clients connections that each send --per-request pairs and wait for the answer. The server is a process of its
own, on the same cores. Checked are every answer (1e-4 of the offline one, none lost), the speed (at least 80 % of the
offline engine's), what becomes of bad requests (a 4xx that says why), and that a full queue says 429 with Retry-After,
after which every request is answered yet. It prints JSON, and ends with exit code 1 where a check failed.

With --hostile it measures something else: the 99th percentile of the seconds that honest requests wait, without and
with so many connections that send halves, too much, too slowly or no JSON, or go away (it should at most double); the
server's peak memory and CPU; and, once SIGTERM comes among them, the seconds to its end (at most 10), with every
request answered. With --apart the server has the last core for itself, and the client and the attackers have the
others: on the same core they slow the server down by what they do themselves.
"""

import argparse
import gc
import http.client
import json
import os
import queue
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from statistics import median

import torch
from bench_jobs import judge_folder
from inspector_training.rows.probing_set import drop_foreign, read_probing_set, read_questions
from support.hostile import hostile
from support.server import memory_of, serving_process

from inspector_pipeline import load_judge
from inspector_pipeline.api.load import EMBEDDED_JUDGE
from inspector_pipeline.files.tables import read_rows

PROBING_SET = "reference/Meta-Llama-3-8B-Instruct_gsm8k_roscoe5dim_probing.json"
QUESTIONS = "gsm8k_train.jsonl"
TOLERANCE = 1e-4  # of expected scores
STARTED_WITHIN = 300  # seconds
ANSWERED_WITHIN = 3600
LEAST_SHARE = 0.8  # of the offline engine's pairs a second
MOST_RATIO = 2.0  # of waits with hostile connections to those without
MOST_END_S = 10
LATE_S = 0.1  # in which requests arrive, before SIGTERM comes
SMALL_QUEUE = 2  # requests that fit into the queue of the test of a full one
BAD = {
    "no JSON": (b"{", 422),
    "no UTF-8": (b'{"pairs": [{"question": "\xff", "prediction": "p"}]}', 400),
    "no pairs": (b'{"pairs": []}', 422),
    "a number": (b'{"pairs": [{"question": "q", "prediction": 5}]}', 422),
    "null": (b'{"pairs": [{"question": null, "prediction": "p"}]}', 422),
    "NaN": (b'{"pairs": [{"question": NaN, "prediction": "p"}]}', 400),
    "a blank text": (b'{"pairs": [{"question": "q", "prediction": " "}]}', 422),
    "a lone surrogate": (b'{"pairs": [{"question": "q", "prediction": "\\ud800"}]}', 422),
    "many pairs": (json.dumps({"pairs": [{"question": "q", "prediction": "p"}] * 1000}).encode(), 413),
    "a large body": (b'{"pairs": [{"question": "q", "prediction": "' + b"p" * 9_000_000 + b'"}]}', 413),
}


class Client:
    """One connection that is kept open."""

    def __init__(self, port):
        self.connection = http.client.HTTPConnection("127.0.0.1", port, timeout=ANSWERED_WITHIN)

    def ask(self, path, body=None):
        """Return status, body and headers; a connection that the server has closed is opened again."""
        method = "GET" if body is None else "POST"
        self.connection.request(method, path, body, {"Content-Type": "application/json"})
        answer = self.connection.getresponse()
        return answer.status, answer.read(), answer.headers


@contextmanager
def serving(judge, *options, threads):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "inspector_cli.main", "serve", str(judge), "--device", "cpu"]
    command += ["--no-access-log", "--port", str(port), *map(str, options)]
    server = subprocess.Popen(command, env={**os.environ, "OMP_NUM_THREADS": str(threads)})
    try:
        deadline = time.monotonic() + STARTED_WITHIN
        while True:
            try:
                if Client(port).ask("/health")[0] == 200:
                    break
            except ConnectionError:
                if server.poll() is not None or time.monotonic() > deadline:
                    raise
                time.sleep(0.1)
        yield port
        server.send_signal(signal.SIGTERM)
        server.wait(ANSWERED_WITHIN)
    finally:
        server.kill()
        server.wait()


def real_pairs(args):
    if args.input:
        rows = read_rows(args.input)
    else:
        data = Path(os.environ["INSPECTOR_DATA"])
        rows, _ = drop_foreign(read_probing_set(data / PROBING_SET)[0], read_questions(data / QUESTIONS))
        rows = [{"question": row.question, "prediction": row.prediction} for row in rows]
    pairs = [{key: row[key] for key in ("question", "prediction")} for row in rows]
    return (pairs * -(-args.pairs // len(pairs)))[: args.pairs]


def offline(judge, pairs):
    """Score as `inspector score` does; returns results and seconds."""
    judge(pairs[:8])
    started = time.perf_counter()
    results = judge(pairs)
    return results, time.perf_counter() - started


def load(port, requests, clients):
    """Send all requests; returns the answers in order, and the seconds in all and of each, until it was answered."""
    waiting = queue.SimpleQueue()
    for number, body in enumerate(requests):
        waiting.put((number, body))
    answers, seconds = [None] * len(requests), [0.0] * len(requests)
    refused = []

    def work():
        client = Client(port)
        while True:
            try:
                number, body = waiting.get_nowait()
            except queue.Empty:
                return
            began = time.perf_counter()
            status, text, headers = client.ask("/score", body)
            while status == 429:
                refused.append(int(headers["Retry-After"]))
                time.sleep(refused[-1])
                status, text, headers = client.ask("/score", body)
            seconds[number] = time.perf_counter() - began
            answers[number] = json.loads(text)["results"] if status == 200 else text.decode()

    threads = [threading.Thread(target=work) for _ in range(clients)]
    started = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return answers, time.perf_counter() - started, seconds, refused


def apart(answers, expected):
    """Compare answers with the offline results: how many are lost or wrong, and the largest difference."""
    found = [result for answer in answers if isinstance(answer, list) for result in answer]
    lost = len(expected) - len(found)
    if lost:
        return {"lost": lost}
    gaps = [
        max(abs(one["expected"][name] - other["expected"][name]) for name in other["expected"])
        for one, other in zip(found, expected, strict=True)
    ]
    flipped = sum(one["scores"] != other["scores"] for one, other in zip(found, expected, strict=True))
    return {"lost": 0, "wrong": sum(gap > TOLERANCE for gap in gaps), "largest": max(gaps), "other_scores": flipped}


def bodies(pairs, size):
    return [json.dumps({"pairs": pairs[at : at + size]}).encode() for at in range(0, len(pairs), size)]


def metric(port, name):
    lines = Client(port).ask("/metrics")[1].decode().splitlines()
    return next(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(f"{name} "))


def bad_requests(port):
    """Return what was answered otherwise than it should be."""
    wrong = {}
    for case, (body, code) in BAD.items():
        status, text, _ = Client(port).ask("/score", body)
        if status != code or not json.loads(text)["detail"] and code != 400:
            wrong[case] = [status, text.decode()[:200]]
    return wrong


def percentile(seconds, share):
    return sorted(seconds)[min(len(seconds) - 1, int(share * len(seconds)))]


def cpu_seconds(process):
    """Return the seconds of CPU that a process has used."""
    fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@contextmanager
def divided(is_wanted):
    """Have what is started here run on the last core; gives what moves this process to the others."""
    cores = sorted(os.sched_getaffinity(0))
    own = {False: cores, True: cores[:-1] or cores}[is_wanted]
    os.sched_setaffinity(0, cores[-1:] if is_wanted else cores)
    try:
        yield lambda: os.sched_setaffinity(0, own)
    finally:
        os.sched_setaffinity(0, cores)


def under_attack(folder, requests, args):
    """Measure honest requests without and with hostile connections, and the end among them."""
    environment = {"OMP_NUM_THREADS": str(args.threads)}
    with divided(args.apart) as go_elsewhere, serving_process(folder, environment=environment) as (port, server):
        go_elsewhere()
        gc.freeze()  # a search for garbage in this process would be taken for waits
        load(port, requests, args.clients)  # warms it up, windows of any size among them
        used = [cpu_seconds(server)]
        before, memory = load(port, requests, args.clients), [memory_of(server)]
        used.append(cpu_seconds(server))
        with hostile(port, args.hostile):
            used.append(cpu_seconds(server))
            during = load(port, requests, args.clients)
            used.append(cpu_seconds(server))
            memory.append(memory_of(server))
            with ThreadPoolExecutor(args.clients) as clients:
                late = [clients.submit(Client(port).ask, "/score", body) for body in requests[: args.clients]]
                time.sleep(LATE_S)
                began = time.perf_counter()
                server.send_signal(signal.SIGTERM)
                server.wait(ANSWERED_WITHIN)
                ended = time.perf_counter() - began
                codes = [one.result()[0] for one in late]
    waits = [percentile(seconds, 0.99) for _, _, seconds, _ in (before, during)]
    answered = sum(isinstance(answer, list) for answers, *_ in (before, during) for answer in answers)
    passed = waits[1] <= MOST_RATIO * waits[0] and ended <= MOST_END_S and set(codes) == {200}
    return {
        "judge": args.judge,
        "hostile_connections": args.hostile,
        "honest_requests": len(requests),
        "clients": args.clients,
        "answered": [answered, 2 * len(requests)],
        "p99_s": {"without": round(waits[0], 4), "with": round(waits[1], 4), "ratio": round(waits[1] / waits[0], 2)},
        "requests_per_second": {
            "without": round(len(requests) / before[1], 1),
            "with": round(len(requests) / during[1], 1),
        },
        "cpu_ms_of_a_request": {
            "without": round(1000 * (used[1] - used[0]) / len(requests), 2),
            "with": round(1000 * (used[3] - used[2]) / len(requests), 2),
        },
        "peak_mib": {"without": round(memory[0] / 1024), "with": round(memory[1] / 1024)},
        "sigterm": {"seconds": round(ended, 2), "requests": len(codes), "answered": codes.count(200)},
        "passed": passed and answered == 2 * len(requests),
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--judge", default="tiny", help="tiny (random, made here), embedded, or a folder or Hub id")
    parser.add_argument("--pairs", type=int, default=256, help="how many (256)")
    parser.add_argument("--input", help="rows with question and prediction (default: those of INSPECTOR_DATA)")
    parser.add_argument("--clients", type=int, default=16, help="connections (16)")
    parser.add_argument("--per-request", type=int, default=1, help="pairs of a request (1)")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="of torch, offline and served (all cores)")
    parser.add_argument("--hostile", type=int, metavar="N", help="measure among N hostile connections instead")
    parser.add_argument("--apart", action="store_true", help="the server on the last core, all else on the others")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    pairs = real_pairs(args)
    requests = bodies(pairs, args.per_request)
    with tempfile.TemporaryDirectory() as name:
        folder = judge_folder(args.judge, Path(name)) or EMBEDDED_JUDGE
        if args.hostile:
            found = under_attack(folder, requests, args)
            sys.stdout.write(json.dumps(found, indent=1) + "\n")
            return 0 if found["passed"] else 1
        judge = load_judge(folder, device="cpu")
        half = len(pairs) // 2
        expected, before = offline(judge, pairs[:half])
        with serving(folder, threads=args.threads) as port:
            load(port, requests[: args.clients], args.clients)  # warms it up
            windows = metric(port, "inspector_window_pairs_count")
            scored = metric(port, "inspector_pairs_total")
            answers, seconds, each, _ = load(port, requests, args.clients)
            windows = metric(port, "inspector_window_pairs_count") - windows
            scored = metric(port, "inspector_pairs_total") - scored
            wrong = bad_requests(port)
        late_results, after = offline(judge, pairs[half:])
        expected += late_results
        few = requests[: 4 * SMALL_QUEUE]
        limits = ("--max-pairs", args.per_request, "--max-queue", SMALL_QUEUE * args.per_request)
        with serving(folder, *limits, threads=args.threads) as port:
            late, _, _, refused = load(port, few, len(few))
    served = len(pairs) / seconds
    compared, full = apart(answers, expected), apart(late, expected[: len(few) * args.per_request])
    failed = wrong or not refused or min(refused) < 1
    share = (before + after) / seconds
    failed = failed or share < LEAST_SHARE or any(one["lost"] or one["wrong"] for one in (compared, full))
    found = {
        "judge": args.judge,
        "dtype": str(judge.model.dtype),
        "threads": args.threads,
        "pairs": len(pairs),
        "clients": args.clients,
        "pairs_of_a_request": args.per_request,
        "offline_pairs_per_second": [round(half / before, 2), round((len(pairs) - half) / after, 2)],
        "served_pairs_per_second": round(served, 2),
        "served_share": round(share, 3),
        "pairs_of_a_window": round(scored / windows, 1),
        "seconds_of_a_request": {
            "median": round(median(each), 3),
            "p99": round(percentile(each, 0.99), 3),
            "largest": round(max(each), 3),
        },
        "answers": compared,
        "bad_requests_answered_otherwise": wrong,
        "full_queue": {"requests": len(few), "refused": len(refused), "retry_after_s": sorted(set(refused)), **full},
        "passed": not failed,
    }
    sys.stdout.write(json.dumps(found, indent=1) + "\n")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
