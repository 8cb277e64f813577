"""Pickles as plain data: what a file says is written down, and nothing that it names is imported, called or made.

A pickle is a program. Here only its words are read: values stay values, and every object becomes a `Record` of its
name, what it was called with and its state, which `estimators` then reads like any other data. What a fitted
classifier has no need of (a global that none holds, a call of anything but numpy's own constructors, a state put on
a class or a function, ...) is refused, although it could do nothing.
"""

import pickletools
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from inspector_pipeline.errors import InspectorError

MAX_BYTES = 512 * 2**20  # of a file, and of all the arrays read from it; published classifiers hold 2 MB
MAX_STEPS = 2_000_000  # of a pickle, and nodes of a .skops; published classifiers take 1,300
MAX_NUMBER_BYTES = 255  # bytes of a whole number

CORES = ("numpy.core", "numpy._core")  # before and from numpy 2
ARRAY_MAKERS = frozenset(f"{core}.multiarray._reconstruct" for core in CORES)
BUFFER_MAKERS = frozenset(f"{core}.numeric._frombuffer" for core in CORES)
SCALAR_MAKERS = frozenset(f"{core}.multiarray.scalar" for core in CORES)
CALLED = {*ARRAY_MAKERS, *BUFFER_MAKERS, *SCALAR_MAKERS, "numpy.dtype", "numpy.ma.core._mareconstruct"}
CALLED |= {"builtins.slice", "collections.OrderedDict"}
CLASSES = {
    *(f"sklearn.calibration.{name}" for name in ("CalibratedClassifierCV", "_CalibratedClassifier")),
    "sklearn.calibration._SigmoidCalibration",
    "sklearn.decomposition._pca.PCA",
    "sklearn.impute._base.SimpleImputer",
    *(f"sklearn.linear_model._ridge.{name}" for name in ("Ridge", "RidgeCV", "RidgeClassifier", "RidgeClassifierCV")),
    "sklearn.linear_model._base.LinearRegression",
    "sklearn.linear_model._coordinate_descent.Lasso",
    "sklearn.linear_model._logistic.LogisticRegression",
    *(f"sklearn.metrics._scorer.{name}" for name in ("_Scorer", "_PredictScorer", "_PassthroughScorer")),
    *(f"sklearn.model_selection._search.{name}" for name in ("GridSearchCV", "RandomizedSearchCV")),
    *(f"sklearn.model_selection._split.{name}" for name in ("StratifiedKFold", "KFold")),
    "sklearn.multiclass.OneVsRestClassifier",
    "sklearn.pipeline.Pipeline",
    *(f"sklearn.preprocessing._label.{name}" for name in ("LabelBinarizer", "LabelEncoder")),
    "sklearn.preprocessing._data.StandardScaler",
    *(f"sklearn.svm._classes.{name}" for name in ("LinearSVC", "SVC")),
}
NAMES = CALLED | CLASSES | {f"numpy.{name}" for name in ("ndarray", "float32", "float64", "int32", "int64")}
NAMES |= {"numpy.ma.MaskedArray", "numpy.ma.core.MaskedArray", "sklearn.metrics._classification.f1_score"}


class UnsafePickleError(InspectorError, ValueError):
    """A file of a fitted classifier holds something else than one needs, or cannot be read as plain data."""


@dataclass(eq=False)  # told apart by identity: comparing or hashing never walks what it holds
class Record:
    """An object of a file, as data.

    Attributes:
        name: Of its class, or of the function that would make it, such as `sklearn.svm._classes.SVC`.
        args: What it would be called with; None where only the name stands.
        state: What would then be put on it.
    """

    name: str
    args: tuple[Any, ...] | None = None
    state: Any = None

    def __repr__(self) -> str:
        """Return its name alone: what it holds may be of any size."""
        return f"<{self.name}>"


def refuse(problem: str) -> NoReturn:
    """Raise an error that says what was found.

    Raises:
        UnsafePickleError: Always.
    """
    raise UnsafePickleError(f"{problem} Nothing of it was run or loaded.")


def require(right: bool, problem: str) -> None:
    """Raise where something is not as expected.

    Raises:
        UnsafePickleError: It is not.
    """
    if not right:
        refuse(problem)


def shown(value: Any) -> str:
    """Name a value of a file in few and printable characters, however large it is."""
    if value is None or isinstance(value, (bool, int, float)):
        return str(value)[:80]
    if isinstance(value, (str, bytes)):
        return ascii(value if len(value) <= 80 else value[:80]) + ("..." if len(value) > 80 else "")
    return value.name if isinstance(value, Record) else type(value).__name__


def read_once(path: Path) -> bytes:
    """Read a regular file of bounded size, once.

    Raises:
        UnsafePickleError: It is no regular file, or too large.
    """
    require(path.is_file(), f"{path} expects a regular file, but is none.")
    with path.open("rb") as file:
        data = file.read(MAX_BYTES + 1)
    require(len(data) <= MAX_BYTES, f"{path} expects at most {MAX_BYTES:,} bytes, but holds more.")
    return data


def known(name: str, where: str) -> Record:
    """Write down a global's name.

    Raises:
        UnsafePickleError: No fitted classifier holds it.
    """
    problem = f"{where} names {shown(name)}, which is not on the list of what a classifier needs."
    require(name in NAMES, problem)
    return Record(name)


def read_pickle(data: bytes, where: str) -> Any:
    """Read a pickle as plain data.

    Args:
        data: Its bytes.
        where: The file, for messages.

    Returns:
        None, numbers, text, bytes, tuples, lists and dicts; everything else is a `Record`.

    Raises:
        UnsafePickleError: It holds something that a fitted classifier has no need of, or is no well-formed pickle.
    """
    reader = _Reader(where)
    end, steps = 0, 0
    try:
        for opcode, argument, position in pickletools.genops(data):
            end, steps = (position or 0) + 1, steps + 1
            require(steps <= MAX_STEPS, f"{where} expects at most {MAX_STEPS:,} steps, but takes more.")
            reader.step(opcode.name, argument)
        (value,) = reader.stack
    except UnsafePickleError:
        raise
    except (ValueError, LookupError, TypeError, OverflowError, EOFError, struct.error) as error:
        problem = f"{where} is no well-formed pickle: {shown(str(error))}."
        raise UnsafePickleError(f"{problem} Nothing of it was run or loaded.") from error
    require(end == len(data) and not reader.marks, f"{where} holds more than one pickle.")
    return value


class _Reader:
    """Follows a pickle's steps: the stack, the marks on it and the memo."""

    def __init__(self, where: str) -> None:
        self.where = where
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: dict[int, Any] = {}
        self.steps: dict[str, Callable[[Any], object]] = {
            "PROTO": lambda number: require(
                number <= 5, f"{self.where} expects a protocol up to 5, but names {number}."
            ),
            **dict.fromkeys(("FRAME", "STOP"), lambda _: None),
            "NONE": lambda _: self.stack.append(None),
            "NEWTRUE": lambda _: self.stack.append(True),
            "NEWFALSE": lambda _: self.stack.append(False),
            **dict.fromkeys(("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4"), self._whole_number),
            **dict.fromkeys(("FLOAT", "BINFLOAT"), self.stack.append),
            **dict.fromkeys(("UNICODE", "SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8"), self.stack.append),
            **dict.fromkeys(("SHORT_BINBYTES", "BINBYTES", "BINBYTES8"), self.stack.append),
            "BYTEARRAY8": lambda data: self.stack.append(bytes(data)),
            **dict.fromkeys(("PUT", "BINPUT", "LONG_BINPUT"), self._put),
            "MEMOIZE": lambda _: self._put(len(self.memo)),
            **dict.fromkeys(("GET", "BINGET", "LONG_BINGET"), lambda index: self.stack.append(self.memo[index])),
            "MARK": lambda _: self.marks.append(len(self.stack)),
            "EMPTY_TUPLE": lambda _: self.stack.append(()),
            "TUPLE1": lambda _: self.stack.append(tuple(self._pop(1))),
            "TUPLE2": lambda _: self.stack.append(tuple(self._pop(2))),
            "TUPLE3": lambda _: self.stack.append(tuple(self._pop(3))),
            "TUPLE": lambda _: self.stack.append(tuple(self._marked())),
            "EMPTY_LIST": lambda _: self.stack.append([]),
            "LIST": lambda _: self.stack.append(self._marked()),
            "APPEND": lambda _: self._extend(self._pop(1)),
            "APPENDS": lambda _: self._extend(self._marked()),
            "EMPTY_DICT": lambda _: self.stack.append({}),
            "DICT": self._new_dict,
            "SETITEM": lambda _: self._fill(self._pop(2)),
            "SETITEMS": lambda _: self._fill(self._marked()),
            "GLOBAL": lambda name: self.stack.append(known(".".join(name.split(" ", 1)), self.where)),
            "STACK_GLOBAL": self._stack_global,
            "REDUCE": lambda _: self._make(CALLED),
            "NEWOBJ": lambda _: self._make(CLASSES),
            "BUILD": self._build,
        }

    def step(self, name: str, argument: Any) -> None:
        """Follow one opcode."""
        if name not in self.steps:
            refuse(f"{self.where} uses the opcode {name}, which no pickle of a classifier holds.")
        self.steps[name](argument)

    def _pop(self, count: int) -> list[Any]:
        start = len(self.stack) - count
        if start < (self.marks[-1] if self.marks else 0):
            raise ValueError("it takes more from its stack than there is")
        taken = self.stack[start:]
        del self.stack[start:]
        return taken

    def _marked(self) -> list[Any]:
        return self._pop(len(self.stack) - self.marks.pop())

    def _whole_number(self, number: int) -> None:
        small = number.bit_length() <= 8 * MAX_NUMBER_BYTES
        require(small, f"{self.where} holds a whole number of more than {MAX_NUMBER_BYTES} bytes.")
        self.stack.append(number)

    def _put(self, index: int) -> None:
        require(index not in self.memo, f"{self.where} writes twice to one place of its memo.")
        self.memo[index] = self.stack[-1]

    def _top(self, kind: type[Any]) -> Any:
        found = self.stack[-1]
        require(type(found) is kind, f"{self.where} fills {shown(found)}, which is no {kind.__name__}.")
        return found

    def _extend(self, items: list[Any]) -> None:
        self._top(list).extend(items)

    def _new_dict(self, _: Any) -> None:
        items = self._marked()
        self.stack.append({})
        self._fill(items)

    def _fill(self, items: list[Any]) -> None:
        filled = self._top(dict)
        for key, value in zip(items[::2], items[1::2], strict=True):
            plain = key is None or isinstance(key, (str, bytes, int, float, Record))  # hashed without a walk
            require(plain, f"{self.where} has a {type(key).__name__} as the key of a dict.")
            filled[key] = value

    def _stack_global(self, _: Any) -> None:
        names = self._pop(2)
        require(all(type(part) is str for part in names), f"{self.where} computes the name of a global.")
        self.stack.append(known(".".join(names), self.where))

    def _make(self, callable_names: set[str]) -> None:
        called, args = self._pop(2)
        right = isinstance(called, Record) and called.args is None and called.name in callable_names
        require(right, f"{self.where} calls {shown(called)}, which no pickle of a classifier calls.")
        require(type(args) is tuple, f"{self.where} calls {called.name} with {shown(args)}, not with a tuple.")
        self.stack.append({} if (called.name, args) == ("collections.OrderedDict", ()) else Record(called.name, args))

    def _build(self, _: Any) -> None:
        (state,) = self._pop(1)
        made = self.stack[-1]
        fresh = isinstance(made, Record) and made.args is not None and made.state is None
        require(fresh, f"{self.where} puts a state on {shown(made)}, which takes none there.")
        made.state = state
