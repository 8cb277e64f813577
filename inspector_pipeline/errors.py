"""Every exception of the project, in one place.

    InspectorError
    ├── JudgeConfigError (ValueError)     a judge's config has a wrong, missing or unknown field
    ├── PairError (ValueError)            a pair to score is not what a judge accepts
    ├── ReadingError (ValueError)         a reading cannot be made or does not fit the tokenizer
    ├── BackboneError (RuntimeError)      a backbone cannot be loaded, truncated or shared
    └── DataFileError (ValueError)        a file to read or write is not as expected

Each is also the builtin that a caller would expect, so `except ValueError` works.
"""


class InspectorError(Exception):
    """Base class of everything this project raises on purpose."""


class JudgeConfigError(InspectorError, ValueError):
    """A judge's config has a wrong, missing or unknown field; the message names it."""


class PairError(InspectorError, ValueError):
    """A (question, prediction) pair is not what a judge accepts."""


class ReadingError(InspectorError, ValueError):
    """A reading cannot be made, or leaves no room for the pair."""


class BackboneError(InspectorError, RuntimeError):
    """A backbone cannot be fetched, verified, loaded, truncated or shared."""


class DataFileError(InspectorError, ValueError):
    """A file of pairs or labels cannot be read or written."""
