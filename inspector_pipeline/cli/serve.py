"""`inspector serve`: a judge behind HTTP."""

import argparse
import gc
import os

from .arguments import JUDGE, add_judge_options, positive
from .judge import check_judge_options, load

API_KEY = "INSPECTOR_API_KEY"  # an option would show it to whoever lists processes
LIMITS = (  # option, name in Limits, which takes seconds to import, default, unit, what it is
    ("--max-body", "body_bytes", 8_000_000, "BYTES", "of a request"),
    ("--max-pairs", "pairs", 256, "N", "of a request"),
    ("--max-queue", "queue", 2048, "N", "pairs that may wait"),
    ("--max-queue-bytes", "queue_bytes", 64_000_000, "BYTES", "of all requests that arrive, wait or are being scored"),
    ("--max-connections", "connections", 512, "N", "that may be open at a time"),
    ("--read-timeout", "read_s", 30, "S", "seconds for a request's head to arrive, and then for its body"),
    ("--request-timeout", "request_s", 600, "S", "seconds from there to the answer"),
    ("--keep-alive", "keep_alive_s", 5, "S", "seconds that a connection may idle after an answer"),
    ("--shutdown-timeout", "shutdown_s", 8, "S", "seconds to answer what was accepted, once SIGTERM has come"),
)


def serve(parser: argparse.ArgumentParser) -> None:
    """Serve a judge over HTTP: POST /score, GET /health, /metrics and /docs. SIGTERM finishes what was accepted."""
    parser.set_defaults(command=_serve)
    parser.epilog = (
        f"Where the environment variable {API_KEY} is set, requests must bring it as Authorization: Bearer KEY."
    )
    parser.add_argument("judge", nargs="?", metavar="JUDGE", help=JUDGE)
    add_judge_options(parser)
    parser.add_argument("--host", default="127.0.0.1", help="address to listen at (127.0.0.1)")
    parser.add_argument("--port", type=int, default=8000, help="port to listen at (8000)")
    parser.add_argument(
        "--access-log",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="a JSON line for each request on stderr, without texts (default)",
    )
    for option, name, default, unit, described in LIMITS:
        parser.add_argument(
            option, dest=name, type=positive, default=default, metavar=unit, help=f"{described} ({default})"
        )


def _serve(args: argparse.Namespace) -> None:
    import uvicorn

    from inspector_pipeline.serving.app import make_config
    from inspector_pipeline.serving.gate import Limits
    from inspector_pipeline.serving.logs import log_json_lines

    check_judge_options(args)
    limits = Limits(**{name: getattr(args, name) for _, name, *_ in LIMITS})
    key = _api_key()
    log_json_lines()
    config = make_config(load(args), limits, host=args.host, port=args.port, access_log=args.access_log, api_key=key)
    gc.collect()
    gc.freeze()  # what was loaded stays: to look through it for garbage would stop all requests for a third of a second
    uvicorn.Server(config).run()


def _api_key() -> str | None:
    """Return the key that requests must bring; None where none is set.

    Raises:
        ValueError: It is set, but blank, which would let nobody in, or everybody.
    """
    key = os.environ.get(API_KEY)
    if key is not None and (not key.strip() or not key.isascii()):
        raise ValueError(f"{API_KEY} expects a key of ASCII characters, but is blank or holds others. Set or unset it.")
    return key
