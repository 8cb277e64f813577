"""A server's log on standard error: one JSON object a line, for requests and for all else."""

import json
import logging
import sys
from datetime import UTC, datetime
from typing import Any


def written(record: dict[str, Any]) -> str:
    """Return a line of the log, which begins with the time."""
    return json.dumps({"time": datetime.now(UTC).isoformat(timespec="milliseconds"), **record}, default=str)


class JsonLines(logging.Formatter):
    """Writes a message as a JSON object, with its traceback, where it has one, as `exception`."""

    def format(self, record: logging.LogRecord) -> str:
        """Write a message."""
        told = {"level": record.levelname.lower(), "logger": record.name, "message": record.getMessage()}
        if record.exc_info:
            told["exception"] = self.formatException(record.exc_info)
        return written(told)


def log_json_lines() -> None:
    """Have everything that reaches the root's handlers, warnings too, written as JSON objects."""
    logging.captureWarnings(True)
    for handler in logging.getLogger().handlers:
        handler.setFormatter(JsonLines())


def access_log() -> logging.Logger:
    """Return the log of requests, whose messages are lines of JSON already."""
    logger = logging.getLogger("inspector_pipeline.access")
    logger.setLevel(logging.INFO)
    logger.propagate = False
    logger.handlers = [logging.StreamHandler(sys.stderr)]
    return logger
