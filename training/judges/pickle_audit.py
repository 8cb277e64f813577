"""Read which globals a pickle would import, without loading it, and load only what is on a list.

Unpickling runs code. A pickle is loaded here only after every global in it was found on the list below; and while it
loads, an unpickler that knows nothing but that list resolves them, so that a pickle which fools the reading still
cannot reach anything else.
"""

import io
import pickle
import pickletools
import struct
from pathlib import Path
from typing import Any

from inspector_pipeline.errors import InspectorError

from .port import PORTABLE

ALLOWED_GLOBALS = frozenset(
    {
        ("builtins", "slice"),
        ("collections", "OrderedDict"),
        ("numpy", "dtype"),
        ("numpy", "ndarray"),
        ("numpy", "float32"),
        ("numpy", "float64"),
        ("numpy", "int32"),
        ("numpy", "int64"),
        *((f"numpy.{core}.multiarray", name) for core in ("core", "_core") for name in ("_reconstruct", "scalar")),
        *((f"numpy.{core}.numeric", "_frombuffer") for core in ("core", "_core")),
        ("numpy.ma", "MaskedArray"),
        ("numpy.ma.core", "MaskedArray"),
        ("numpy.ma.core", "_mareconstruct"),
        ("sklearn.calibration", "CalibratedClassifierCV"),
        ("sklearn.calibration", "_CalibratedClassifier"),
        ("sklearn.calibration", "_SigmoidCalibration"),
        ("sklearn.decomposition._pca", "PCA"),
        ("sklearn.impute._base", "SimpleImputer"),
        *(
            ("sklearn.linear_model._ridge", name)
            for name in ("Ridge", "RidgeCV", "RidgeClassifier", "RidgeClassifierCV")
        ),
        ("sklearn.linear_model._base", "LinearRegression"),
        ("sklearn.linear_model._logistic", "LogisticRegression"),
        ("sklearn.metrics._classification", "f1_score"),
        ("sklearn.metrics._scorer", "_Scorer"),
        ("sklearn.metrics._scorer", "_PredictScorer"),
        ("sklearn.model_selection._search", "GridSearchCV"),
        ("sklearn.model_selection._search", "RandomizedSearchCV"),
        ("sklearn.model_selection._split", "StratifiedKFold"),
        ("sklearn.model_selection._split", "KFold"),
        ("sklearn.multiclass", "OneVsRestClassifier"),
        ("sklearn.pipeline", "Pipeline"),
        ("sklearn.preprocessing._data", "StandardScaler"),
        ("sklearn.preprocessing._label", "LabelBinarizer"),
        ("sklearn.preprocessing._label", "LabelEncoder"),
        ("sklearn.svm._classes", "LinearSVC"),
        ("sklearn.svm._classes", "SVC"),
    }
)


class UnsafePickleError(InspectorError, ValueError):
    """A pickle names something that is not on the list, or cannot be read without running it."""


def pickle_globals(data: bytes) -> set[tuple[str, str]]:
    """Return the (module, name) pairs that a pickle would import; nothing of it is run.

    Args:
        data: The pickle's bytes.

    Returns:
        Every global, by GLOBAL, INST or STACK_GLOBAL.

    Raises:
        UnsafePickleError: The pickle is malformed, uses extension codes, or computes a name.
    """
    reader = _GlobalReader()
    try:
        for opcode, argument, _ in pickletools.genops(data):
            reader.read(opcode.name, argument)
    except UnsafePickleError:
        raise
    except (ValueError, IndexError, OverflowError, EOFError, struct.error) as error:
        raise UnsafePickleError(f"The file is no well-formed pickle: {error}. It was not loaded.") from error
    return reader.found


class _GlobalReader:
    """Follows just enough of a pickle's opcodes to tell the names of its globals."""

    def __init__(self) -> None:
        self.found: set[tuple[str, str]] = set()
        self.pushed: list[str | None] = []  # what each opcode left on the stack: a string, or None for anything else
        self.memo: dict[Any, str | None] = {}

    def read(self, opcode: str, argument: Any) -> None:
        """Take one opcode and its argument."""
        if opcode in ("PROTO", "FRAME", "MARK", "STOP"):
            return
        if opcode == "MEMOIZE" or opcode.endswith("PUT"):
            self.memo[len(self.memo) if opcode == "MEMOIZE" else argument] = self.pushed[-1] if self.pushed else None
            return
        if opcode.startswith("EXT"):
            raise UnsafePickleError("The pickle uses extension codes, which cannot be read. It was not loaded.")
        value = None
        if opcode in ("GLOBAL", "INST"):
            module, _, name = str(argument).partition(" ")
            self.found.add((module, name))
        elif opcode == "STACK_GLOBAL":
            self.found.add(_two_strings(self.pushed))
        elif opcode.endswith("GET"):
            value = self.memo.get(argument)
        elif "UNICODE" in opcode:
            value = str(argument)
        self.pushed.append(value)


def _two_strings(pushed: list[str | None]) -> tuple[str, str]:
    module, name = pushed[-2:] if len(pushed) > 1 else (None, None)
    if module is None or name is None:
        raise UnsafePickleError("The pickle computes the name of a global, which cannot be read. It was not loaded.")
    return module, name


def load_audited(path: Path) -> Any:
    """Load a pickle whose globals are all on the list.

    Args:
        path: The file.

    Returns:
        The object.

    Raises:
        UnsafePickleError: A global is not on the list; nothing was run.
    """
    data = path.read_bytes()
    foreign = sorted(pickle_globals(data) - ALLOWED_GLOBALS)
    if foreign:
        names = ", ".join(".".join(item) for item in foreign)
        raise UnsafePickleError(
            f"{path} names {names}, which is not on the list of what a classifier needs. It was not loaded. "
            f"What can be ported: {PORTABLE}."
        )
    return _ListedUnpickler(io.BytesIO(data)).load()


class _ListedUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        """Resolve a global on the list; anything else stops the loading."""
        if (module, name) not in ALLOWED_GLOBALS:
            raise UnsafePickleError(
                f"The pickle reached for {module}.{name}, which is not on the list. Loading was stopped."
            )
        return super().find_class(module, name)
