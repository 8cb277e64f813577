"""Every exception of the project, in one place.

    InspectorError
    ├── JudgeConfigError (ValueError)     a judge's config has a wrong, missing or unknown field
    ├── PairError (ValueError)            a pair to score is not what a judge accepts
    ├── ReadingError (ValueError)         a reading cannot be made or does not fit the tokenizer
    ├── BackboneError (RuntimeError)      a backbone cannot be loaded, truncated or shared
    ├── DataFileError (ValueError)        a file to read or write is not as expected
    ├── SettingsError (ValueError)        settings of a stage contradict each other
    └── EndpointError (RuntimeError)      a model's endpoint cannot be used any further

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


class SettingsError(InspectorError, ValueError):
    """Settings of a stage are out of range or contradict each other; the message names them."""


class EndpointError(InspectorError, RuntimeError):
    """A model's endpoint refuses, cannot be reached, or would cost more than allowed; what was answered is kept."""
