"""Put small faults into the code, one at a time, and see whether the tests notice; takes hours, and is no part of them.

    python tests/benchmarks/mutate.py --sample 300 --results mutants.jsonl
    python tests/benchmarks/mutate.py --only inspector_pipeline/features.py --sample 6 --results features.jsonl

A mutant is one change of one expression or statement: a comparison, a sign, an operator, a number, a condition that is
turned round, a keyword or a call that is left out, an `abs` that is a square. A sample of them, drawn by a seed over
probing, evaluation, pooling, decisions, jobs and files, is tried in a copy of the clone, each against its module's own
tests, which must pass without it. It is killed where a test fails or takes too long, and else it lived. A run that was
stopped goes on with the same results file. Mutants that change nothing that can be seen are named by their ids in the
file of --equivalent, one a line, with the reason after it; they do not count.

It prints how many were killed, their share with its 95 % interval (Wilson), and those that lived. Tools that do the
same (cosmic-ray, mutmut) draw no sample over modules, run one list of tests for all, and need packages to be imported
by the names of their folders, as `training` is not.
"""

import argparse
import ast
import copy
import json
import math
import os
import random
import subprocess
import sys
import tempfile
import time
from fnmatch import fnmatch
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
NAMES = {"inspector_training": "training", "inspector_cli": "inspector_pipeline/cli"}  # as in setup.cfg
OWN = "tests/inspector_pipeline"
STAGES = "tests/training/stages"
JOBS = (f"{OWN}/jobs/test_jobs.py", f"{OWN}/jobs")
TESTS = {  # of a module, in the order in which they are run; the first that fails ends it
    "inspector_pipeline/features.py": (f"{OWN}/test_features.py", f"{OWN}/test_engine.py", f"{OWN}/test_modeling.py"),
    "inspector_pipeline/decisions.py": (f"{OWN}/test_heads.py", f"{OWN}/test_modeling.py"),
    "inspector_pipeline/files/*.py": (f"{OWN}/files", *JOBS, f"{OWN}/cli"),
    "inspector_pipeline/jobs/*.py": JOBS,
    "training/probing/*.py": ("tests/training/probing", "tests/training/test_judging.py"),
    "training/evaluation/*.py": (
        "tests/training/evaluation",
        f"{STAGES}/test_evaluate.py",
        f"{STAGES}/test_compare.py",
    ),
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
        if keyword.arg:
            yield f"without {keyword.arg}=", changed(node, keywords=node.keywords[:at] + node.keywords[at + 1 :])


def places(tree):
    """Walk over all nodes that may be changed: no annotations, decorators or texts."""
    for field, value in ast.iter_fields(tree):
        if field in ("annotation", "returns", "decorator_list", "bases"):
            continue
        for node in value if isinstance(value, list) else [value]:
            if isinstance(node, ast.AST) and not isinstance(node, ast.JoinedStr | ast.Import | ast.ImportFrom):
                yield node
                yield from places(node)


def mutants_of(path):
    """List (id, source with the fault) of a file."""
    source = (ROOT / path).read_text(encoding="utf-8")
    lines = source.encode().splitlines(keepends=True)
    starts = [sum(map(len, lines[:at])) for at in range(len(lines))]
    found = {}
    for node in places(ast.parse(source)):
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
            found.setdefault(name, mutant)
    return list(found.items())


def modules(pattern):
    """List (file, its tests) of the files that are chosen."""
    found = {}
    for glob, tests in TESTS.items():
        for path in sorted(ROOT.glob(glob)):
            name = path.relative_to(ROOT).as_posix()
            if path.name != "__init__.py" and (pattern is None or fnmatch(name, pattern)):
                own = [f"{one}/test_{path.stem}.py" for one in tests if not one.endswith(".py")]
                found[name] = [one for one in dict.fromkeys([*own, *tests]) if (ROOT / one).exists()]
    return found


def copied(folder):
    """Copy what git knows of the clone, with packages under the names that they are imported by."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True).stdout
    for name in filter(None, listed.decode().split("\0")):
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes((ROOT / name).read_bytes())
    for name, place in NAMES.items():
        (folder / name).symlink_to(folder / place)


def outcome(folder, tests, limit):
    """Run tests in the copy; gives `lived`, `killed` or `too long`, and the seconds."""
    environment = {**os.environ, "PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-n", "0", "-p", "no:cacheprovider", *tests]
    began = time.monotonic()
    try:
        done = subprocess.run(
            command, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=limit
        )
    except subprocess.TimeoutExpired:
        return "too long", time.monotonic() - began
    return "lived" if done.returncode == 0 else "killed", time.monotonic() - began


def wilson(hits, n, z=1.96):
    """Give the 95 % interval of a share."""
    if not n:
        return 0.0, 1.0
    share, more = hits / n, z * z / n
    middle, spread = share + more / 2, z * math.sqrt(share * (1 - share) / n + more / (4 * n))
    return (middle - spread) / (1 + more), (middle + spread) / (1 + more)


def tried(args, sample, files):
    """Try the mutants that the results file lacks; gives what became of all, by id."""
    results = Path(args.results)
    lines = results.read_text(encoding="utf-8").splitlines() if results.is_file() else []
    known = {one["id"]: one["outcome"] for one in map(json.loads, lines)}
    limits = {}
    with tempfile.TemporaryDirectory() as name, results.open("a", encoding="utf-8") as file:
        folder = Path(name)
        copied(folder)
        for identity, path, source in sample:
            if identity in known:
                continue
            if path not in limits:
                found, seconds = outcome(folder, files[path], None)
                if found != "lived":
                    raise SystemExit(f"{path}: its tests expect to pass without a fault, but fail: {files[path]}")
                limits[path] = args.slack + 3 * seconds
            whole = (folder / path).read_text(encoding="utf-8")
            (folder / path).write_text(source, encoding="utf-8")
            known[identity], seconds = outcome(folder, files[path], limits[path])
            (folder / path).write_text(whole, encoding="utf-8")
            file.write(json.dumps({"id": identity, "outcome": known[identity], "seconds": round(seconds, 1)}) + "\n")
            file.flush()
            sys.stderr.write(f"{known[identity]}: {identity}\n")
    return {identity: known[identity] for identity, _, _ in sample}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sample", type=int, default=300, help="how many mutants (300)")
    parser.add_argument("--seed", type=int, default=0, help="of the draw (0)")
    parser.add_argument("--only", metavar="GLOB", help="of these files alone, such as training/probing/*")
    parser.add_argument("--results", required=True, help="JSON Lines of what became of each; a run goes on with it")
    parser.add_argument("--equivalent", metavar="FILE", help="ids of mutants that change nothing, one a line")
    parser.add_argument("--slack", type=float, default=60, help="seconds beside three times those of the tests (60)")
    args = parser.parse_args()
    files = modules(args.only)
    every = [(identity, path, source) for path in files for identity, source in mutants_of(path)]
    sample = random.Random(args.seed).sample(every, min(args.sample, len(every)))
    sample.sort(key=lambda one: list(files).index(one[1]))
    found = tried(args, sample, files)
    same = Path(args.equivalent).read_text(encoding="utf-8").splitlines() if args.equivalent else []
    counted = {name: one for name, one in found.items() if not any(line.startswith(name) for line in same)}
    lived = [name for name, one in counted.items() if one == "lived"]
    killed = len(counted) - len(lived)
    low, high = wilson(killed, len(counted))
    share = killed / len(counted) if counted else 0.0
    sys.stdout.write(f"{len(every)} mutants of {len(files)} files; {len(found)} tried, {len(counted)} counted\n")
    sys.stdout.write(f"killed {killed}, lived {len(lived)}: {share:.1%}, 95 % interval {low:.1%} to {high:.1%}\n")
    sys.stdout.writelines(f"lived: {name}\n" for name in lived)


if __name__ == "__main__":
    main()
