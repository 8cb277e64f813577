"""Put small faults into the code, one at a time, and see whether the tests notice; takes half an hour, and is no test.

    python tests/benchmarks/mutate.py --sample 300 --results mutants.jsonl --minutes 5
    python tests/benchmarks/mutate.py --only inspector_pipeline/features.py --sample 6 --results features.jsonl

A mutant is one change of one expression or statement: a comparison, a sign, an operator, a number, a condition that is
turned round, a keyword or a call that is left out, an `abs` that is a square. A sample of them, drawn by a seed over
probing, evaluation, pooling, decisions, jobs and files, is tried in a copy of the clone, each against those of its
module's own tests that run its line, the quickest first; where none does, against any that were mapped. It is killed
where a test fails or takes too long, and else it lived; so it did where no test runs its line.

Which tests run which lines is found out first, for each file of tests, and stands in the file of --map; it is found out
again for those that run what was changed. This process imports what the tests import, but nothing of the project, and
forks for each mutant, so that torch is imported once; the copy keeps its bytecode. A mutant meets its quickest tests in
a first fork and the others, --most seconds of them, in a second, and each fork may take three times what its tests took
without a fault, and --slack seconds. A run that was stopped, or has had its --minutes, goes on with the same results
file; the clone may be edited meanwhile. --again tries what lived once more, after tests were written. Mutants that
change nothing that can be seen are named by their ids in the file of --equivalent, one a line, with the reason after
` # `; they do not count. The `strict` of `zip` is not drawn: it is an assertion, which no input can tell from its
absence where it holds, and which ruff demands.

It prints how many were killed, their share with its 95 % interval (Wilson), and those that lived. Tools that do the
same (cosmic-ray, mutmut) draw no sample over modules, run one list of tests for all, and need packages to be imported
by the names of their folders, as `training` is not.
"""

import argparse
import ast
import copy
import gc
import hashlib
import importlib
import itertools
import json
import math
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
from fnmatch import fnmatch
from pathlib import Path

import coverage
import pytest

ROOT = Path(__file__).resolve().parents[2]
SOURCES = ("inspector_pipeline", "training", "hub_cards")
OWN_MODULES = {*SOURCES, "inspector_training", "inspector_cli", "support", "conftest", "tests", "__main__"}
NAMES = {"inspector_training": "training", "inspector_cli": "inspector_pipeline/cli"}  # as in setup.cfg
WRITTEN = 10**9  # when the sources of the copy were written, as it says; each fault is some seconds later
FAULTS = itertools.count(1)
FIRST = 12  # tests that a mutant meets in its first fork
EQUIVALENT = ROOT / "tests/benchmarks/equivalent_mutants.txt"
OWN = "tests/inspector_pipeline"
TRAINING = "tests/training"
STAGES = f"{TRAINING}/stages"
FILES = (f"{OWN}/files", *(f"{OWN}/jobs/test_{name}.py" for name in ("jobs", "filter", "rule_of_rows", "damaged_jobs")))
JOBS = (f"{OWN}/jobs", f"{OWN}/cli/test_uncertain.py")
EVALUATION = f"{TRAINING}/evaluation"
TESTS = {  # of a module; where several patterns fit it, the last
    "inspector_pipeline/features.py": tuple(
        f"{OWN}/test_{name}.py" for name in ("features", "engine", "modeling", "explain")
    ),
    "inspector_pipeline/decisions.py": (f"{OWN}/test_decisions.py", f"{OWN}/test_heads.py", f"{OWN}/test_modeling.py"),
    "inspector_pipeline/files/*.py": FILES,
    "inspector_pipeline/jobs/*.py": JOBS,
    "training/probing/*.py": (f"{TRAINING}/probing",),
    "training/evaluation/*.py": (EVALUATION,),
    "training/evaluation/preferences.py": (EVALUATION, f"{TRAINING}/probing/test_preferences.py"),
    **{
        f"training/evaluation/{name}.py": (EVALUATION, *(f"{STAGES}/test_{stage}.py" for stage in stages))
        for name, stages in {
            "adapters": ("compare",),
            "correlations": ("lager_prompts",),
            "cost": ("compare",),
            "crossval": ("evaluate",),
            "degenerate": ("degenerate",),
            "evidence": ("evaluate", "compare"),
            "hill_climbing": ("use",),
            "kept_classifier": ("compare",),
            "out_of_fold": ("evaluate",),
            "pair_classifier": ("compare",),
            "procedure": ("evaluate",),
            "question_only": ("use",),
            "scored": ("use", "degenerate"),
            "selection": ("use",),
            "surest": ("use",),
            "tables": ("compare",),
            "unseen": ("evaluate",),
        }.items()
    },
}
SWAPS = {
    ast.Lt: (ast.LtE, ast.GtE),
    ast.LtE: (ast.Lt, ast.Gt),
    ast.Gt: (ast.GtE, ast.LtE),
    ast.GtE: (ast.Gt, ast.Lt),
    ast.Eq: (ast.NotEq,),
    ast.NotEq: (ast.Eq,),
    ast.Is: (ast.IsNot,),
    ast.IsNot: (ast.Is,),
    ast.In: (ast.NotIn,),
    ast.NotIn: (ast.In,),
    ast.Add: (ast.Sub,),
    ast.Sub: (ast.Add,),
    ast.Mult: (ast.Div,),
    ast.Div: (ast.Mult,),
    ast.FloorDiv: (ast.Div,),
    ast.Mod: (ast.Mult,),
    ast.Pow: (ast.Mult,),
    ast.BitAnd: (ast.BitOr,),
    ast.BitOr: (ast.BitAnd,),
    ast.And: (ast.Or,),
    ast.Or: (ast.And,),
}


def changed(node, **fields):
    """Copy a node with other fields."""
    found = copy.copy(node)
    for name, value in fields.items():
        setattr(found, name, value)
    return found


def variants(node):
    """Yield (what was done, the node instead) for all faults of one node."""
    if isinstance(node, ast.stmt):
        yield from variants_of_statement(node)
    elif isinstance(node, ast.Compare):
        for at, op in enumerate(node.ops):
            for other in SWAPS[type(op)]:
                yield other.__name__, changed(node, ops=[*node.ops[:at], other(), *node.ops[at + 1 :]])
    elif isinstance(node, ast.BinOp | ast.BoolOp) and not any(map(is_text, ast.iter_child_nodes(node))):
        yield from ((other.__name__, changed(node, op=other())) for other in SWAPS.get(type(node.op), ()))
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub | ast.Not):
        yield f"without {type(node.op).__name__}", node.operand
    elif isinstance(node, ast.Constant) and isinstance(node.value, bool | int | float):
        value = (not node.value) if isinstance(node.value, bool) else node.value + 1
        yield f"{node.value} -> {value}", ast.Constant(value)
    elif isinstance(node, ast.Call):
        yield from variants_of_call(node)
    elif isinstance(node, ast.IfExp):
        yield "branches swapped", changed(node, body=node.orelse, orelse=node.body)


def is_text(node):
    return isinstance(node, ast.JoinedStr) or (isinstance(node, ast.Constant) and isinstance(node.value, str))


def variants_of_statement(node):
    if isinstance(node, ast.AugAssign):
        yield from ((other.__name__, changed(node, op=other())) for other in SWAPS.get(type(node.op), ()))
    elif isinstance(node, ast.If | ast.While):
        yield "condition turned round", changed(node, test=ast.UnaryOp(ast.Not(), node.test))
    elif isinstance(node, ast.Raise) or (isinstance(node, ast.Expr) and isinstance(node.value, ast.Call)):
        yield "left out", ast.Pass()
    elif isinstance(node, ast.Break | ast.Continue):
        yield "loop", ast.Continue() if isinstance(node, ast.Break) else ast.Break()


def variants_of_call(node):
    name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
    if isinstance(node.func, ast.Attribute) and not node.args and not node.keywords:
        yield f"without .{name}()", node.func.value
    if name == "abs" and len(node.args) == 1:
        yield "squared", ast.BinOp(node.args[0], ast.Pow(), ast.Constant(2))
    for at, keyword in enumerate(node.keywords):
        if keyword.arg and not is_assertion(node, keyword):
            yield f"without {keyword.arg}=", changed(node, keywords=node.keywords[:at] + node.keywords[at + 1 :])


def is_assertion(call, keyword):
    """Say whether a keyword is the `strict` of zip: an assertion that ruff demands, and no input can tell it."""
    return keyword.arg == "strict" and isinstance(call, ast.Call) and getattr(call.func, "id", "") == "zip"


def places(tree, first=0):
    """Walk over all nodes that may be changed, each with the line of its statement: no annotations or texts."""
    for field, value in ast.iter_fields(tree):
        if field in ("annotation", "returns", "decorator_list", "bases"):
            continue
        for node in value if isinstance(value, list) else [value]:
            if isinstance(node, ast.keyword) and is_assertion(tree, node):
                continue
            if isinstance(node, ast.AST) and not isinstance(node, ast.JoinedStr | ast.Import | ast.ImportFrom):
                at = node.lineno if isinstance(node, ast.stmt) else first
                yield node, at
                yield from places(node, at)


def mutants_of(path):
    """List (id, source with the fault, lines of which one is run where the fault is) of a file."""
    source = (ROOT / path).read_text(encoding="utf-8")
    lines = source.encode().splitlines(keepends=True)
    starts = [sum(map(len, lines[:at])) for at in range(len(lines))]
    found = {}
    for node, first in places(ast.parse(source)):
        for what, other in variants(node):
            start = starts[node.lineno - 1] + node.col_offset
            end = starts[node.end_lineno - 1] + node.end_col_offset
            text = ast.unparse(ast.fix_missing_locations(other))
            text = f"({text})" if isinstance(other, ast.expr) else text.replace("\n", "\n" + " " * node.col_offset)
            data = source.encode()
            mutant = (data[:start] + text.encode() + data[end:]).decode()
            name = f"{path}:{node.lineno}:{node.col_offset} {type(node).__name__} {what}"
            try:
                compile(mutant, path, "exec")
            except SyntaxError:
                continue
            last = node.test.end_lineno if isinstance(node, ast.If | ast.While) else node.end_lineno
            found.setdefault(name, (mutant, [first, *range(node.lineno, last + 1)]))
    return [(name, *rest) for name, rest in found.items()]


def modules(pattern):
    """List (file, its tests) of the files that are chosen."""
    found = {}
    for glob, tests in TESTS.items():
        for path in sorted(ROOT.glob(glob)):
            name = path.relative_to(ROOT).as_posix()
            if path.name != "__init__.py" and (pattern is None or fnmatch(name, pattern)):
                every = [sorted(ROOT.glob(one if one.endswith(".py") else f"{one}/test_*.py")) for one in tests]
                found[name] = list(dict.fromkeys(one.relative_to(ROOT).as_posix() for some in every for one in some))
    return found


def copied(folder):
    """Copy what git knows of the clone, with packages under the names that they are imported by."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True).stdout
    for name in filter(None, listed.decode().split("\0")):
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes((ROOT / name).read_bytes())
            os.utime(folder / name, (WRITTEN, WRITTEN))
    for name, place in NAMES.items():
        (folder / name).symlink_to(folder / place)


class Ordered:
    """Has tests run in the order in which they are named, whatever else sorts them; a plugin of pytest."""

    def __init__(self, tests):
        self.places = {name: at for at, name in enumerate(tests)}

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items):
        items.sort(key=lambda item: self.places.get(item.nodeid, len(self.places)))


class Noted:
    """Notes of each test how long it took and which lines of the sources it ran; a plugin of pytest."""

    def __init__(self, folder):
        self.folder = folder
        self.cover = coverage.Coverage(data_file=None, source=[str(folder / name) for name in SOURCES])
        self.cover.start()
        self.seconds = {}

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item):
        began = time.monotonic()
        self.cover.switch_context(item.nodeid)
        try:
            return (yield)
        finally:
            self.cover.switch_context("")
            self.seconds[item.nodeid] = time.monotonic() - began

    def map(self):
        """Return test -> seconds and, by file, lines; the test "" is what runs when modules are imported."""
        self.cover.stop()
        data = self.cover.get_data()
        found = {name: {"seconds": seconds, "lines": {}} for name, seconds in [("", 0.0), *self.seconds.items()]}
        for file in data.measured_files():
            path = Path(file).resolve().relative_to(self.folder.resolve()).as_posix()
            for line, tests in data.contexts_by_lineno(file).items():
                for test in tests:
                    found[test]["lines"].setdefault(path, []).append(line)
        return found


def forked(folder, tests, limit, told=None):
    """Run tests in a fork of this process, within the copy; gives pytest's exit code, None where it took too long.

    Args:
        folder: The copy.
        tests: Files, or tests by their ids.
        limit: Seconds; None is none.
        told: A file that gets the map of lines, and the modules that were imported; None where nothing is noted.
    """
    gc.freeze()  # so that what was imported is not copied when the fork looks for garbage
    process = os.fork()
    if not process:
        code, errors = 70, os.dup(2)
        try:
            os.setsid()  # so that what it starts is ended with it
            os.chdir(folder)
            sys.path.insert(0, str(folder))
            os.environ.update(PYTHONPATH=str(folder))
            silent = os.open(os.devnull, os.O_RDWR)
            for stream in (0, 1, 2):
                os.dup2(silent, stream)
            noted = Noted(folder) if told else None
            options = ["-x", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", "-o", "addopts=--import-mode=importlib"]
            options += ["-W", "ignore::pytest.PytestAssertRewriteWarning"]  # of plugins that this process has imported
            code = int(pytest.main([*options, *tests], plugins=[noted or Ordered(tests)]))
            if noted:
                told.write_text(json.dumps({"tests": noted.map(), "modules": sorted(sys.modules)}))
        except BaseException:
            os.write(errors, traceback.format_exc().encode())
        finally:
            os._exit(code)
    ends = time.monotonic() + limit if limit else math.inf
    while time.monotonic() < ends:
        found, status = os.waitpid(process, os.WNOHANG)
        if found:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.02)
    os.killpg(process, signal.SIGKILL)
    os.waitpid(process, 0)
    return None


class Maps:
    """Which tests run which lines, by file of tests; kept in a file, so that it is found out once.

    A file of tests is mapped again where it, its helpers or a source that it runs was changed.
    """

    def __init__(self, path, folder, ends):
        self.path, self.folder, self.ends = path, folder, ends
        self.known = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
        found = [*folder.glob("tests/support/*.py"), *folder.glob("tests/**/conftest.py")]
        self.helpers = sorted(one.relative_to(folder).as_posix() for one in found)
        self.fresh = set()  # files of tests that are known to be as they were mapped
        self.files = {}  # file of the copy -> its hash

    def digest(self, name, tests):
        """Hash what a map speaks of, as it is in the copy."""
        paths = [name, *self.helpers, *sorted({file for one in tests.values() for file in one["lines"]})]
        for path in set(paths) - set(self.files):
            file = self.folder / path
            self.files[path] = hashlib.sha256(file.read_bytes() if file.is_file() else b"").digest()
        return hashlib.sha256(b"".join(self.files[path] for path in paths)).hexdigest()

    def of(self, files, path):
        """Return (test, seconds, its lines of a source) of files of tests; None where the time is over before."""
        for name in files:
            if name not in self.fresh:
                known = self.known.get(name)
                if known is None or known["digest"] != self.digest(name, known["tests"]):
                    if time.monotonic() > self.ends:
                        return None
                    self.known[name] = self._new(name)
                    self.path.write_text(json.dumps(self.known), encoding="utf-8")
                imported(self.known[name].get("modules", ()))
                self.fresh.add(name)
        return self.of_known(files, path)

    def of_known(self, files, path):
        """Return (test, seconds, its lines of a source) of files that were mapped; the test "" is once for each."""
        every = [item for name in files for item in self.known[name]["tests"].items()]
        return [(test, one["seconds"], set(one["lines"].get(path, ()))) for test, one in every]

    def _new(self, name):
        told = self.folder / "told.json"
        code = forked(self.folder, [name], None, told)
        if code not in (0, 5):  # 5: it holds none
            raise SystemExit(f"{name} expects to pass without a fault, but ended with {code}.")
        found = json.loads(told.read_text())
        seconds = sum(one["seconds"] for one in found["tests"].values())
        sys.stderr.write(f"{len(found['tests']) - 1} tests of {name} were mapped, {seconds:.1f} s\n")
        return {"digest": self.digest(name, found["tests"]), **found}


def imported(modules):
    """Import what tests import, but nothing of the project, so that forks need not."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for module in modules:
            top = module.split(".")[0]
            if top not in OWN_MODULES and "pytest" not in top and module not in sys.modules:
                try:
                    importlib.import_module(module)
                except (ImportError, AttributeError, RuntimeError, ValueError):
                    continue


def chosen(tests, lines, most):
    """Choose those that run one of the lines, the quickest first, of so many seconds in all; gives (test, seconds).

    Lines that run when the module is imported concern all of its tests.
    """
    at_import = set(lines) <= {line for test, _, own in tests if not test for line in own}
    found = [(test, seconds) for test, seconds, own in tests if test and (at_import or own & set(lines))]
    found.sort(key=lambda one: one[1])
    sums = itertools.accumulate(seconds for _, seconds in found)
    return [one for at, (one, total) in enumerate(zip(found, sums, strict=True)) if total <= most or not at]


def outcome(folder, path, source, tests, slack):
    """Put a fault into the copy and run tests; gives `lived`, `killed` or `too long`."""
    whole = (folder / path).read_text(encoding="utf-8")
    (folder / path).write_text(source, encoding="utf-8")
    written = WRITTEN + next(FAULTS)  # by which, and its size, Python knows what its bytecode belongs to
    os.utime(folder / path, (written, written))
    try:
        for part in filter(None, (tests[:FIRST], tests[FIRST:])):
            code = forked(folder, [name for name, _ in part], slack + 3 * sum(seconds for _, seconds in part))
            if code != 0:
                return "too long" if code is None else "killed"
        return "lived"
    finally:
        (folder / path).write_text(whole, encoding="utf-8")
        os.utime(folder / path, (WRITTEN, WRITTEN))


def wilson(hits, n, z=1.96):
    """Give the 95 % interval of a share."""
    if not n:
        return 0.0, 1.0
    share, more = hits / n, z * z / n
    middle, spread = share + more / 2, z * math.sqrt(share * (1 - share) / n + more / (4 * n))
    return (middle - spread) / (1 + more), (middle + spread) / (1 + more)


def tried(args, sample, files):
    """Try the mutants that the results file lacks; gives what became of those that were tried, by id."""
    results = Path(args.results)
    lines = results.read_text(encoding="utf-8").splitlines() if results.is_file() else []
    known = {one["id"]: one["outcome"] for one in map(json.loads, lines)}
    done = {name for name, one in known.items() if not (args.again and one == "lived")}
    ends = time.monotonic() + 60 * args.minutes if args.minutes else math.inf
    with tempfile.TemporaryDirectory() as name, results.open("a", encoding="utf-8") as file:
        folder = Path(name).resolve()
        copied(folder)
        maps = Maps(args.map or results.with_name(f"{results.name}.map"), folder, ends)
        for identity, path, source, lines in sample:
            if identity in done or time.monotonic() > ends:
                continue
            own = maps.of(files[path], path)
            if own is None:
                break
            began = time.monotonic()
            tests = chosen(own, lines, args.most)
            if not tests:  # none of its own, but others may
                tests = chosen(maps.of_known(maps.known, path), lines, args.most)
            known[identity] = outcome(folder, path, source, tests, args.slack)
            told = {"tests": len(tests), "seconds": round(time.monotonic() - began, 1)}
            file.write(json.dumps({"id": identity, "outcome": known[identity], **told}) + "\n")
            file.flush()
            sys.stderr.write(f"{known[identity]} by {told['tests']} tests, {told['seconds']} s: {identity}\n")
    return {identity: known[identity] for identity, *_ in sample if identity in known}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sample", type=int, default=300, help="how many mutants (300)")
    parser.add_argument("--seed", type=int, default=0, help="of the draw (0)")
    parser.add_argument("--only", metavar="GLOB", help="of these files alone, such as training/probing/*")
    parser.add_argument("--match", metavar="REGEX", default="", help="those alone whose ids it is found in")
    parser.add_argument("--results", required=True, help="JSON Lines of what became of each; a run goes on with it")
    parser.add_argument(
        "--equivalent", type=Path, default=EQUIVALENT, metavar="FILE", help="ids of mutants that change nothing"
    )
    parser.add_argument("--map", type=Path, metavar="FILE", help="which tests run which lines (RESULTS.map)")
    parser.add_argument("--minutes", type=float, help="begin no further mutant after so many")
    parser.add_argument("--most", type=float, default=20, help="seconds of tests, at most, for a mutant (20)")
    parser.add_argument("--slack", type=float, default=20, help="seconds beside three times those of the tests (20)")
    parser.add_argument("--again", action="store_true", help="try once more what lived")
    args = parser.parse_args()
    os.environ["HF_HUB_OFFLINE"] = "1"  # before transformers is imported
    files = modules(args.only)
    every = [(identity, path, source, lines) for path in files for identity, source, lines in mutants_of(path)]
    same = {line.partition(" # ")[0] for line in args.equivalent.read_text(encoding="utf-8").splitlines()}
    moved = {name for name in same if name.partition(":")[0] in files} - {name for name, *_ in every}
    sys.stderr.writelines(f"named in {args.equivalent}, but no mutant any more: {name}\n" for name in sorted(moved))
    every = [one for one in every if re.search(args.match, one[0])]
    sample = random.Random(args.seed).sample(every, min(args.sample, len(every)))
    found = tried(args, sample, files)
    counted = {name: one for name, one in found.items() if name not in same}
    lived = [name for name, one in counted.items() if one == "lived"]
    killed = len(counted) - len(lived)
    low, high = wilson(killed, len(counted))
    share = killed / len(counted) if counted else 0.0
    sys.stdout.write(f"{len(every)} mutants of {len(files)} files; {len(found)} tried, {len(counted)} counted\n")
    sys.stdout.write(f"killed {killed}, lived {len(lived)}: {share:.1%}, 95 % interval {low:.1%} to {high:.1%}\n")
    sys.stdout.writelines(f"lived: {name}\n" for name in lived)


if __name__ == "__main__":
    main()
