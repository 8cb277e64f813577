"""`inspector serve`: a judge behind HTTP."""

import argparse

from .arguments import JUDGE, add_judge_options, positive
from .judge import check_judge_options, load


def serve(parser: argparse.ArgumentParser) -> None:
    """Serve a judge over HTTP: POST /score, GET /health, /metrics and /docs. SIGTERM finishes what was accepted."""
    parser.set_defaults(command=_serve)
    parser.add_argument("judge", nargs="?", metavar="JUDGE", help=JUDGE)
    add_judge_options(parser)
    parser.add_argument("--host", default="127.0.0.1", help="address to listen at (127.0.0.1)")
    parser.add_argument("--port", type=int, default=8000, help="port to listen at (8000)")
    parser.add_argument("--max-body", type=positive, metavar="BYTES", default=8_000_000, help="of a request (8000000)")
    parser.add_argument("--max-pairs", type=positive, metavar="N", default=256, help="of a request (256)")
    parser.add_argument("--max-queue", type=positive, metavar="N", default=2048, help="pairs that may wait (2048)")


def _serve(args: argparse.Namespace) -> None:
    import uvicorn

    from inspector_pipeline.serving.app import Limits, make_app

    check_judge_options(args)
    limits = Limits(args.max_body, args.max_pairs, args.max_queue)
    uvicorn.run(make_app(load(args), limits), host=args.host, port=args.port, log_level="warning")
