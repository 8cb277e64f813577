"""Files made to run code, to crash or to fill the memory: each is refused, and nothing of it runs."""

import io
import json
import os
import pickle
import pickletools
import random
import struct
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
import skops.io
from inspector_training.judges import inert, skops_files
from inspector_training.judges.classifiers import load_classifiers
from inspector_training.judges.inert import UnsafePickleError, read_pickle
from inspector_training.judges.port import port
from inspector_training.judges.skops_files import read_skops
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from inspector_pipeline.errors import InspectorError

METADATA = {
    **{"llm": "org/model", "dimension": "x", "classification": "binary", "layers": [0]},
    **{"pool": "mean", "use_attn": False},
}
COMMAND = "touch RAN"
P3 = b"\x80\x03"


def plain(value):
    return pickletools.optimize(pickle.dumps(value, 3))[2:-1]


def g(module, name):
    return b"c" + f"{module}\n{name}\n".encode()


def call(module, name, args):
    return g(module, name) + args + b"R"


def fields(**values):
    return b"}(" + b"".join(plain(name) + value for name, value in values.items()) + b"u"


def made(module, name, **state):
    return g(module, name) + b")\x81" + fields(**state) + b"b"


def dtype(code, state=b""):
    return call("numpy", "dtype", plain((code, False, True))) + state


def array(values=None, *, kind=None, shape=None, raw=None):
    values = np.asarray([] if values is None else values, np.float64)
    start = call("numpy._core.multiarray", "_reconstruct", g("numpy", "ndarray") + plain((0,)) + plain(b"b") + b"\x87")
    state = plain(1) + (plain(values.shape) if shape is None else shape) + (kind or dtype("f8")) + plain(False)
    return start + b"(" + state + (plain(values.tobytes()) if raw is None else raw) + b"tb"


def lr(**changes):
    state = {"n_features_in_": plain(2), "classes_": array([0, 1]), "coef_": array([[1, 2]]), "intercept_": array([0])}
    return made("sklearn.linear_model._logistic", "LogisticRegression", **{**state, **changes})


def scaler(**changes):
    state = {"n_features_in_": plain(2), "mean_": array([1, 2]), "scale_": array([1, 2])}
    return made("sklearn.preprocessing._data", "StandardScaler", **{**state, **changes})


def svc(**changes):
    state = {
        **{"n_features_in_": plain(2), "classes_": array([0, 1]), "kernel": plain("linear"), "_sparse": plain(False)},
        **{"_gamma": plain(1.0), "support_": array([0, 1, 2]), "support_vectors_": array(np.eye(3, 2))},
        **{"_n_support": array([1, 2]), "dual_coef_": array([[1, 2, 3]]), "_dual_coef_": array([[1, 2, 3]])},
        **{"intercept_": array([0]), "_intercept_": array([0]), "_probA": array([]), "_probB": array([])},
    }
    return made("sklearn.svm._classes", "SVC", **{**state, **changes})


def steps(*parts, **state):
    pairs = b"](" + b"".join(plain(f"s{i}") + part + b"\x86" for i, part in enumerate(parts)) + b"e"
    return made("sklearn.pipeline", "Pipeline", steps=pairs, **state)


def calibrated(inner, calibrator):
    one = made(
        "sklearn.calibration",
        "_CalibratedClassifier",
        **{"estimator": inner, "classes": array([0, 1]), "calibrators": b"](" + calibrator + b"e"},
    )
    state = {"classes_": array([0, 1]), "calibrated_classifiers_": b"](" + one + b"e"}
    return made("sklearn.calibration", "CalibratedClassifierCV", **state)


def searches(depth):
    start = g("sklearn.model_selection._search", "GridSearchCV") + b")\x81}(" + plain("best_estimator_")
    return start * depth + lr() + b"ub" * depth


def put(place):
    return b"r" + struct.pack("<I", 10_000 + place)


def get(place):
    return b"j" + struct.pack("<I", 10_000 + place)


def nested(place, count):
    return b"}(" + plain("steps") + b"](" + (plain("a") + get(place) + b"\x86") * count + b"eub"


def wide(depth):
    """Make pipelines of 8 pipelines each, of a few bytes each: the same one stands in all 8 places."""
    within = lr() + put(0)
    for level in range(1, depth + 1):
        within = (
            g("sklearn.pipeline", "Pipeline")
            + b")\x81"
            + fields(x=within, steps=b"](" + (plain("a") + get(level - 1) + b"\x86") * 8 + b"e")
            + b"b"
            + put(level)
        )
    return within


def package(model, head=b"", **extra):
    return P3 + head + fields(model=model, metadata=plain(METADATA), **extra) + b"."


SHELL = call("posix", "system", plain((COMMAND,)))
SCORER = made("sklearn.metrics._scorer", "_Scorer", _score_func=g("sklearn.metrics._classification", "f1_score"))
BOMB = plain("x") + b"\x85" + b"".join(put(place) + get(place) + b"\x86" for place in range(60))
FIELD_OBJECT = b"(" + plain(3) + plain("|") + b"N" + plain(("a",)) + fields(a=dtype("O8") + plain(0) + b"\x86")
V8 = dtype("V8", FIELD_OBJECT + plain(8) + plain(1) + plain(0) + b"tb")
WIDE = dtype("f8", b"(" + plain(3) + plain("<") + b"NNN" + plain(4096) + plain(1) + plain(0) + b"tb")

PICKLES = {
    "a call of os.system": (package(SHELL), "names 'posix.system'"),
    "a call behind the model": (package(lr(), x=SHELL), "names 'posix.system'"),
    "eval by its old name": (P3 + call("__builtin__", "eval", plain(("1",))) + b".", "names '__builtin__.eval'"),
    "exec": (P3 + call("builtins", "exec", plain((COMMAND,))) + b".", "names 'builtins.exec'"),
    "getattr": (P3 + call("builtins", "getattr", plain(("a", "b"))) + b".", "names 'builtins.getattr'"),
    "INST": (b"(S'" + COMMAND.encode() + b"'\niposix\nsystem\n.", "opcode STRING"),
    "INST alone": (b"(iposix\nsystem\n.", "opcode INST"),
    "OBJ": (P3 + b"(" + g("numpy", "dtype") + b"o.", "opcode OBJ"),
    "a name through the memo": (b"\x80\x04\x8c\x05posix\x94\x8c\x06system\x94h\x00h\x01\x93.", "names 'posix.system'"),
    "a name behind others": (b"\x80\x04\x8c\x05posix\x8c\x06system\x8c\x05numpy0\x8c\x05dtype0\x93.", "opcode POP"),
    "a name that is none": (b"\x80\x04\x8c\x05posixK\x01\x93.", "computes the name"),
    "a method by a dotted name": (P3 + g("numpy", "ndarray.tofile") + b".", "names 'numpy.ndarray.tofile'"),
    "a dunder by a dotted name": (b"\x80\x04\x8c\x05numpy\x8c\x0edtype.__init__\x93.", "names 'numpy.dtype.__init__'"),
    "an extension code": (b"\x80\x02\x82\x01.", "opcode EXT1"),
    "a persistent id": (b"Pabc\n.", "opcode PERSID"),
    "a persistent id from the stack": (P3 + b"K\x01Q.", "opcode BINPERSID"),
    "an outside buffer": (b"\x80\x05\x97.", "opcode NEXT_BUFFER"),
    "NEWOBJ_EX": (b"\x80\x04" + g("sklearn.svm._classes", "SVC") + b")}\x92.", "opcode NEWOBJ_EX"),
    "a doubled top": (P3 + b"K\x012.", "opcode DUP"),
    "a set": (b"\x80\x04\x8f.", "opcode EMPTY_SET"),
    "a second pickle": (package(lr()) + SHELL + b".", "more than one pickle"),
    "a mark left open": (P3 + b"(N.", "more than one pickle|no well-formed"),
    "no end": (package(lr())[:-1], "no well-formed pickle"),
    "cut short": (package(lr())[:200], "no well-formed pickle"),
    "nothing": (b"", "no well-formed pickle"),
    "text": (b"not a pickle", "no well-formed pickle|opcode"),
    "compressed": (zlib.compress(package(lr())), "no well-formed pickle|opcode|takes more"),
    "a protocol of the future": (b"\x80\x63K\x01.", "protocol up to 5"),
    "an empty stack": (P3 + b"R.", "no well-formed pickle"),
    "a memo never written": (P3 + b"h\x07.", "no well-formed pickle"),
    "a memo written twice": (P3 + b"Nq\x00q\x00.", "twice to one place"),
    "bytes of a length beyond the file": (b"\x80\x04\x8e" + struct.pack("<Q", 2**40) + b"x.", "no well-formed pickle"),
    "a number of a megabyte": (P3 + b"\x8b" + struct.pack("<i", 2**20) + b"1" * 2**20 + b".", "whole number of more"),
    "a number of many digits": (b"L" + b"9" * 10_000 + b"L\n.", "no well-formed pickle"),
    "an array by its class": (P3 + g("numpy", "ndarray") + plain((2**40,)) + b"\x85R.", "calls numpy.ndarray"),
    "an instance by a function": (P3 + g("numpy", "dtype") + b")\x81.", "calls numpy.dtype"),
    "a call with a list": (P3 + g("numpy", "dtype") + b"]R.", "with list, not with a tuple"),
    "a call of an instance": (package(lr(), x=SCORER + plain(("a",)) + b"R"), "calls sklearn.metrics._scorer._Scorer"),
    "a call of text": (P3 + plain("posix.system") + b")R.", "calls 'posix.system'"),
    "a state on a class": (
        package(lr(), head=g("sklearn.model_selection._split", "StratifiedKFold") + fields(a=b"N") + b"b0"),
        "puts a state on sklearn.model_selection._split.StratifiedKFold",
    ),
    "a state on a function": (
        P3 + g("sklearn.metrics._classification", "f1_score") + fields(__sklearn_tags__=b"N") + b"b.",
        "puts a state on sklearn.metrics._classification.f1_score",
    ),
    "two states": (P3 + scaler() + fields(mean_=b"N") + b"b.", "puts a state on"),
    "a state on a list": (P3 + b"]}b.", "puts a state on list"),
    "items for a tuple": (P3 + b")Na.", "fills tuple"),
    "a key that takes for ever to hash": (P3 + b"}" + BOMB + b"Ns.", "tuple as the key"),
    "a value of 2**60 parts": (package(lr(coef_=BOMB)), "coef_ expects numbers, but got tuple"),
    "metadata of 2**60 parts": (P3 + fields(model=lr(), metadata=fields(llm=BOMB)) + b".", "metadata needs"),
    "a deep tuple": (P3 + b"(" * 100_000 + b"t" * 100_000 + b".", "holds tuple|expects"),
    "a deep list": (P3 + b"]" * 100_000 + b"a" * 99_999 + b".", "holds list"),
    "searches in searches": (package(searches(5000)), "at most 1000 estimators, 8 in each other"),
    "a pipeline in itself": (
        package(g("sklearn.pipeline", "Pipeline") + b")\x81" + put(0) + nested(0, 1)),
        "in each other",
    ),
    "a pipeline of 8 ** 7 parts": (package(wide(7)), "at most 1000 estimators"),
    "a cache beside the pipeline": (package(steps(lr(), memory=plain("cache"))), "memory expects one of"),
    "a memory of its own class": (package(steps(lr(), memory=SCORER)), "memory expects one of"),
    "a further key": (package(lr(), x=b"N"), "expects {'model', 'metadata'}, but holds"),
    "an object array": (package(lr(coef_=array(kind=dtype("O8"), raw=plain([1, 2])))), "expects numbers, not 'O8'"),
    "an object scalar": (
        package(lr(intercept_=call("numpy._core.multiarray", "scalar", dtype("O8") + plain(b"A" * 8) + b"\x86"))),
        "expects numbers, not 'O8'",
    ),
    "a dtype with objects in it": (package(lr(coef_=array(kind=V8, raw=plain(b"A" * 8)))), "expects numbers, not 'V8'"),
    "a dtype of 4,096 bytes": (
        package(lr(coef_=array(kind=WIDE, raw=plain(b"A" * 16)))),
        "for its shape|expects the shape",
    ),
    "a list for bytes": (package(lr(coef_=array(raw=plain([1.0, 2.0])))), "expects the bytes of numbers, but got list"),
    "bytes that are too few": (package(lr(coef_=array([[1, 2]], raw=plain(b"A" * 15)))), "expects 16 bytes"),
    "bytes that are too many": (package(lr(coef_=array([[1, 2]], raw=plain(b"A" * 24)))), "expects 16 bytes"),
    "a huge shape": (package(lr(coef_=array(shape=plain((2**40, 2**40))))), "expects a shape"),
    "a huge shape of nothing": (package(lr(coef_=array(shape=plain((0, 2**29))))), "expects the shape"),
    "a negative shape": (package(lr(coef_=array([[1, 2]], shape=plain((-1, 2))))), "expects a shape"),
    "many dimensions": (package(lr(coef_=array([1], shape=plain((1,) * 60)))), "expects a shape"),
    "an array of a subclass": (
        package(lr(coef_=array([[1, 2]]).replace(b"cnumpy\nndarray\n", g("numpy.ma", "MaskedArray")))),
        "expects a plain array",
    ),
    "joblib's wrapper": (P3 + g("joblib.numpy_pickle", "NumpyArrayWrapper") + b")\x81.", "names 'joblib.numpy_pickle"),
    "bytes by a codec": (P3 + call("_codecs", "encode", plain(("a", "latin1"))) + b".", "names '_codecs.encode'"),
    "a forest": (P3 + g("sklearn.ensemble._forest", "RandomForestClassifier") + b")\x81.", "RandomForestClassifier"),
    "not a number": (package(lr(coef_=array([[1, np.nan]]))), "expects finite numbers"),
    "infinity": (package(lr(intercept_=array([np.inf]))), "expects finite numbers"),
    "no spread": (package(steps(scaler(scale_=array([1, 0])), lr())), "scale_ expects no number under"),
    "a million million features": (package(lr(n_features_in_=plain(2**40))), "whole number from 1 to 1,048,576"),
    "features that the array has not": (package(lr(n_features_in_=plain(3))), "coef_ expects the shape 'k n'"),
    "numbers that overflow": (
        package(steps(scaler(scale_=array([5e-324, 1])), lr())),
        "numbers that float32 can hold",
    ),
    "coefficients beyond float32": (package(lr(coef_=array([[1e300, 1]]))), "numbers that float32 can hold"),
    "a class of three hundred digits": (package(lr(classes_=array([0, 1e300]))), "too large"),
    "one class": (package(lr(classes_=array([1]))), "2 to 1000 ascending classes"),
    "a class twice": (package(lr(classes_=array([1, 1]))), "ascending classes|in disorder"),
    "coefficients of other classes": (package(lr(classes_=array([0, 1, 2]))), "coef_ expects the shape"),
    "a solver that turns the terminal red": (
        package(lr(solver=plain("\x1b[31m"))),
        r"solver expects a word.*'\\x1b\[31m'",
    ),
    "a kernel that is called": (package(svc(kernel=SCORER)), "kernel expects a word"),
    "support vectors that are not there": (package(svc(_n_support=array([1, 200]))), "expects 3 support vectors"),
    "support vectors less than none": (package(svc(_n_support=array([-1, 4]))), "no number under 0"),
    "support vectors of other features": (package(svc(support_vectors_=array(np.eye(3)))), "expects the shape 's n'"),
    "too few coefficients for its vectors": (
        package(svc(_dual_coef_=array([[1, 2]]))),
        "_dual_coef_ expects the shape",
    ),
    "intercepts of other pairs": (package(svc(_intercept_=array([0, 0]))), "_intercept_ expects the shape 'p'"),
    "one half of Platt's numbers": (package(svc(_probA=array([1]))), "_probA and _probB of one length"),
    "steps that do not fit": (
        package(steps(scaler(), lr(n_features_in_=plain(1), coef_=array([[1]])))),
        "expects 1 features",
    ),
    "no steps": (package(steps()), "expects .name, estimator. pairs|expects an estimator"),
    "a calibration around numbers": (package(calibrated(plain(1), plain(2))), "expects a fitted estimator, but got 1"),
    "a calibration by a classifier": (package(calibrated(lr(), lr())), "expects only _SigmoidCalibration"),
    "not fitted": (package(g("sklearn.svm._classes", "LinearSVC") + b")\x81"), "expects a fitted LinearSVC"),
}


def load(folder, data, suffix=".pkl"):
    (folder / f"x{suffix}").write_bytes(data)
    (folder / "x.json").write_text(json.dumps(METADATA))
    return load_classifiers(folder, allow_pickle=True)["x"]


def test_the_parts_of_the_attacks_make_a_classifier_that_is_read(tmp_path):
    for model in (lr(), svc(), steps(scaler(), lr()), steps(scaler(), svc(), memory=b"N"), searches(3)):
        read = load(tmp_path, package(model)).estimator
        assert set(read.predict(np.eye(2))) <= {0, 1} and len(port(read).center) == 2


@pytest.mark.parametrize("attack", PICKLES)
def test_a_hostile_pickle_is_refused_and_nothing_runs(tmp_path, monkeypatch, attack):
    monkeypatch.chdir(tmp_path)
    data, message = PICKLES[attack]
    with pytest.raises(InspectorError, match=message) as refusal:
        port(load(tmp_path, data).estimator)
    assert sorted(os.listdir(tmp_path)) == ["x.json", "x.pkl"]
    assert len(str(refusal.value)) < 1500 + len(str(tmp_path)) and str(refusal.value).isprintable()


def node(loader, module="builtins", name="dict", **more):
    return {"__loader__": loader, "__module__": module, "__class__": name, **more}


def zipped(schema, files=(), method=zipfile.ZIP_STORED):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        archive.writestr("schema.json", schema if isinstance(schema, (str, bytes)) else json.dumps(schema))
        for name, data in files:
            archive.writestr(name, data)
    return buffer.getvalue()


def npy(header, data=b"", version=1):
    text = header.encode() + b"\n"
    return b"\x93NUMPY" + bytes([version, 0]) + struct.pack("<H" if version == 1 else "<I", len(text)) + text + data


def skops_lr(coef, files=()):
    numbers = {"n_features_in_": 2, "classes_": np.array([0, 1]), "intercept_": np.array([0.0])}
    content, members = {}, [("coef.npy", coef), *files]
    for name, value in numbers.items():
        buffer = io.BytesIO()
        np.save(buffer, value)
        members.append((f"{name}.npy", buffer.getvalue()))
        content[name] = node("NdArrayNode", "numpy", "ndarray", type="numpy", file=f"{name}.npy")
    content["coef_"] = node("NdArrayNode", "numpy", "ndarray", type="numpy", file="coef.npy")
    state = node("DictNode", content=content)
    return zipped(node("ObjectNode", "sklearn.linear_model._logistic", "LogisticRegression", content=state), members)


def flagged(data):
    """Say of each member that it is encrypted."""
    return data.replace(b"PK\x01\x02\x14\x03\x14\x00\x00", b"PK\x01\x02\x14\x03\x14\x00\x01")


GOOD_NPY = npy("{'descr': '<f8', 'fortran_order': False, 'shape': (1, 2), }", np.array([1.0, 2.0]).tobytes())
ARGS = node("TupleNode", content=[node("JsonNode", content=json.dumps(COMMAND))])
SKOPS = {
    "Popen by a node": (
        zipped(node("ConstructorFromReduceNode", "subprocess", "Popen", content=ARGS)),
        "'ConstructorF",
    ),
    "Popen as an object": (zipped(node("ObjectNode", "subprocess", "Popen", content=ARGS)), "names 'subprocess.Popen'"),
    "a function": (zipped(node("FunctionNode", "posix", "system", content="system")), "names 'posix.system'"),
    "a type": (zipped(node("TypeNode", "os", "_wrap_close")), "names 'os._wrap_close'"),
    "a method": (zipped(node("MethodNode", "builtins", "eval", content={})), "uses 'MethodNode'"),
    "a partial": (zipped(node("PartialNode", "functools", "partial", content={})), "uses 'PartialNode'"),
    "an operator": (zipped(node("OperatorFuncNode", "operator", "methodcaller", attrs={})), "uses 'OperatorFuncNode'"),
    "a reduce": (zipped(node("TreeNode", "sklearn.tree._tree", "Tree", __reduce__={})), "uses 'TreeNode'"),
    "a node of no kind": (zipped({}), "no well-formed .skops: \"'__loader__'\""),
    "a node that is a list": (zipped([]), "expects nodes, but its schema holds list"),
    "a kind that is a list": (zipped(node(["DictNode"])), "uses list|no well-formed"),
    "a cycle": (zipped(node("ListNode", content=[node("CachedNode", __id__=7)], __id__=7)), "uses 'CachedNode'"),
    "a deep tree": (
        zipped('{"__loader__":"ListNode","__module__":"","__class__":"","content":[' * 100 + "]}" * 100),
        "64 levels",
    ),
    "a tree deeper than JSON can be read": (zipped("[" * 100_000 + "]" * 100_000), "no well-formed .skops"),
    "a list as a plain value": (zipped(node("JsonNode", content="[" * 9 + "]" * 9)), "expects a plain value"),
    "text that is too deep": (zipped(node("JsonNode", content="[" * 100_000)), "no well-formed .skops"),
    "no schema": (zipped("{}").replace(b"schema.json", b"schema.jsen"), "expects a schema.json"),
    "two schemas": (zipped("{}", [("schema.jsoX", "{}")]).replace(b"jsoX", b"json"), "two members of one name"),
    "two arrays of one name": (
        skops_lr(GOOD_NPY, [("coef.npX", GOOD_NPY)]).replace(b"npX", b"npy"),
        "two members of one name",
    ),
    "a method that unpacks without bound": (zipped("{}", method=zipfile.ZIP_LZMA), "stored or deflated"),
    "an encrypted member": (flagged(zipped("{}")), "no well-formed .skops.*is encry"),
    "too many members": (zipped("{}", [(str(i), "") for i in range(10_001)]), "at most 10,000 members"),
    "cut short": (skops_lr(GOOD_NPY)[:-40], "no well-formed .skops"),
    "no zip": (b"PK", "no well-formed .skops"),
    "damaged": (skops_lr(GOOD_NPY).replace(np.array([1.0]).tobytes(), np.array([9.0]).tobytes()), "Bad CRC"),
    "an array that is not there": (
        skops_lr(GOOD_NPY).replace(b'"file": "coef.npy"', b'"file": "toef.npy"'),
        "Bad CRC|toef",
    ),
    "an array of pickles": (
        skops_lr(npy("{'descr': '|O', 'fortran_order': False, 'shape': (2,), }", SHELL)),
        "its header is",
    ),
    "a header that is run": (skops_lr(npy(f"__import__('os').system('{COMMAND}')")), "its header is"),
    "a header as deep as can be": (skops_lr(npy("(" * 60_000)), "its header is"),
    "a header of another version": (skops_lr(b"\x93NUMPY\x09\x00" + GOOD_NPY[8:]), "its header is"),
    "an array of too few bytes": (skops_lr(GOOD_NPY[:-1]), "expects 16 bytes"),
    "an array of a huge shape": (
        skops_lr(GOOD_NPY.replace(b"(1, 2)", b"(9" + b"9" * 30 + b",)")),
        "its header|expects a shape",
    ),
    "a field of another type": (
        zipped(node("ObjectNode", "sklearn.svm._classes", "SVC", content=ARGS)),
        "fields of a SVC",
    ),
}


@pytest.mark.parametrize("attack", SKOPS)
def test_a_hostile_skops_is_refused_and_nothing_runs(tmp_path, monkeypatch, attack):
    monkeypatch.chdir(tmp_path)
    data, message = SKOPS[attack]
    with pytest.raises(InspectorError, match=message) as refusal:
        load(tmp_path, data, ".skops")
    assert sorted(os.listdir(tmp_path)) == ["x.json", "x.skops"]
    assert len(str(refusal.value)) < 1500 + len(str(tmp_path)) and str(refusal.value).isprintable()


def test_sizes_are_bounded(tmp_path, monkeypatch):
    monkeypatch.setattr(inert, "MAX_STEPS", 1000)
    with pytest.raises(UnsafePickleError, match="at most 1,000 steps"):
        read_pickle(P3 + b"]" * 1001 + b".", "x")
    monkeypatch.setattr(skops_files, "MAX_BYTES", 10_000)
    bomb = zipped("{}", [("a.npy", b"\0" * 100_000)], zipfile.ZIP_DEFLATED)
    with pytest.raises(UnsafePickleError, match="at most 10,000 bytes unpacked, but says 100,002"):
        read_skops(bomb, "x")
    sizes = struct.pack("<I", 100_000)
    with pytest.raises(UnsafePickleError, match="no well-formed .skops"):  # it says that it is small
        read_skops(bomb.replace(sizes, struct.pack("<I", 100)), "x")
    monkeypatch.setattr(inert, "MAX_BYTES", 100)
    with pytest.raises(UnsafePickleError, match="at most 100 bytes"):
        load(tmp_path, package(lr()))
    (tmp_path / "x.pkl").unlink()
    os.mkfifo(tmp_path / "x.pkl")
    with pytest.raises(UnsafePickleError, match="expects a regular file"):  # and does not wait for ever
        load_classifiers(tmp_path, allow_pickle=True)


@pytest.mark.parametrize("suffix", [".pkl", ".skops"])
def test_each_file_is_read_once_so_that_what_is_checked_is_what_is_loaded(tmp_path, monkeypatch, suffix):
    opened, once = [], Path.open
    monkeypatch.setattr(Path, "open", lambda path, *a, **k: opened.append(path.suffix) or once(path, *a, **k))
    load(tmp_path, package(lr()) if suffix == ".pkl" else skops_lr(GOOD_NPY), suffix)
    assert opened.count(suffix) == 2  # the test writes it, and it is read


@pytest.mark.parametrize("suffix", [".pkl", ".skops"])
def test_a_damaged_file_gives_a_clear_error_or_a_classifier(tmp_path, suffix):
    x = np.arange(24.0).reshape(12, 2) % 7
    model = make_pipeline(StandardScaler(), LogisticRegression()).fit(x, np.arange(12) % 3)
    whole = pickle.dumps({"model": model, "metadata": METADATA}) if suffix == ".pkl" else skops.io.dumps(model)
    rng = random.Random(0)
    refused = 0
    for _ in range(300):
        data = bytearray(whole)
        for _ in range(rng.randrange(1, 4)):
            data[rng.randrange(len(data))] = rng.randrange(256)
        try:
            port(load(tmp_path, bytes(data), suffix).estimator)
        except InspectorError:
            refused += 1
    assert 50 < refused < 300
