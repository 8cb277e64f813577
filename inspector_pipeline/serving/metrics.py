"""What Prometheus is told of a server."""

from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from ..jobs.window import Outcome

WINDOW_SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256)


class Metrics:
    """Counts, times and gauges.

    Args:
        paths: Those whose requests are counted.
    """

    def __init__(self, paths: tuple[str, ...]) -> None:
        """Start at zero."""
        self.paths = paths
        self.registry = CollectorRegistry()
        own: dict[str, Any] = {"registry": self.registry}
        self.requests = Counter("inspector_requests", "Requests for scores", ["code"], **own)
        self.seconds = Histogram("inspector_request_seconds", "Time from request to answer", **own)
        self.pairs = Counter("inspector_pairs", "Pairs scored", **own)
        self.tokens = Counter("inspector_tokens", "Tokens read", **own)
        self.truncated = Counter("inspector_truncated_pairs", "Pairs that were cut to the judge's limit", **own)
        self.window = Histogram("inspector_window_pairs", "Pairs scored at a time", buckets=WINDOW_SIZES, **own)
        self.window_seconds = Histogram("inspector_window_seconds", "Time of such a window", **own)
        self.waiting = Gauge("inspector_waiting_pairs", "Pairs that wait or are being scored", **own)
        self.held = Gauge("inspector_held_bytes", "Bodies of requests without an answer yet", **own)

    def on_answer(self, path: str, code: int) -> None:
        """Count an answer."""
        if path in self.paths:
            self.requests.labels(str(code)).inc()

    def on_window(self, outcomes: list[Outcome], seconds: float) -> None:
        """Count a window."""
        results = [outcome.result for outcome in outcomes if outcome.result is not None]
        self.pairs.inc(len(results))
        self.tokens.inc(sum(outcome.tokens for outcome in outcomes))
        self.truncated.inc(sum(result["truncated"] for result in results))
        self.window.observe(len(outcomes))
        self.window_seconds.observe(seconds)
