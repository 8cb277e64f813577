"""Who may import whom, and how high a file stands over what it imports: read from the source, nothing is imported."""

import ast
import re
import sys
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FILES = [path for folder in ("inspector_pipeline", "hub_cards", "training") for path in (ROOT / folder).rglob("*.py")]
FILES = sorted(path.relative_to(ROOT) for path in [*FILES, ROOT / "push_to_hub.py"])
IMPORT_NAMES = {"inspector_training": "training", "inspector_cli": "inspector_pipeline.cli"}  # as in setup.cfg
SHIPPED = [path for path in FILES if path.parent.name == "inspector_pipeline" and path.name != "__init__.py"]
STAGES = Path("training/stages")
# What every judge's repo may import: torch and transformers, and what these bring along.
LIBRARIES = {"torch", "transformers", "huggingface_hub", "safetensors", "tokenizers", "numpy", "tqdm"}
MOST_FLOORS = 10
MOST_FLOORS_SHIPPED = 5


def module_name(path):
    return ".".join(path.with_suffix("").parts).removesuffix(".__init__")


MODULES = {module_name(path): path for path in FILES}


@cache
def imported_names(path):
    """The dotted names that a file imports, inside functions too, by the folders that they stand in."""
    tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            folder = path.parts[: len(path.parts) - node.level] if node.level else ()
            base = ".".join([*folder, *([node.module] if node.module else [])])
            names |= {base, *(f"{base}.{alias.name}" for alias in node.names)}
    for name in list(names):
        top, dot, rest = name.partition(".")
        names.add(IMPORT_NAMES.get(top, top) + dot + rest)
    return names


@cache
def imported_files(path):
    return sorted({MODULES[name] for name in imported_names(path) if name in MODULES} - {path})


chains = {}


def chain(path, above=()):
    """The longest chain of imports from a file downwards; a circle is an error that names its files."""
    assert path not in above, f"a circle of imports: {' -> '.join(map(str, (*above[above.index(path) :], path)))}"
    if path not in chains:
        below = (chain(other, (*above, path)) for other in imported_files(path))
        chains[path] = (path, *max(below, key=len, default=()))
    return chains[path]


@pytest.mark.parametrize(
    ("folder", "forbidden"), [("inspector_pipeline", ("hub_cards", "training")), ("hub_cards", ("training",))]
)
def test_packages_import_in_one_direction(folder, forbidden):
    found = [
        f"{path} imports {name}"
        for path in FILES
        if path.parts[0] == folder
        for name in imported_names(path)
        if name.split(".")[0] in forbidden
    ]
    assert not found


@pytest.mark.parametrize("path", SHIPPED, ids=str)
def test_what_ships_with_a_judge_imports_its_siblings_and_the_libraries_of_every_judge(path):
    text = (ROOT / path).read_text(encoding="utf-8")
    siblings = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.ImportFrom) and node.level:
            assert node.level == 1 and node.module, f"line {node.lineno} expects the form: from .sibling import name"
            assert Path("inspector_pipeline", f"{node.module}.py") in SHIPPED, f"line {node.lineno}: no flat sibling"
            siblings.add(node.module)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            modules = [node.module] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names]
            foreign = {module.split(".")[0] for module in modules} - LIBRARIES - sys.stdlib_module_names
            assert not foreign, f"line {node.lineno}: {foreign}"
    # transformers finds what to ship by this pattern, which an import in a docstring fits too.
    assert set(re.findall(r"^\s*from\s+\.(\S+)\s+import", text, flags=re.MULTILINE)) == siblings


def test_every_file_that_ships_is_reached_from_the_model():
    """What a repo's own code saves again is complete only where the model's file leads to all others."""
    reached, new = set(), {Path("inspector_pipeline/modeling_inspector.py")}
    while new:
        reached |= new
        new = {other for path in new for other in imported_files(path)} - reached
    assert reached == set(SHIPPED)


def test_nothing_imports_a_stage():
    """A stage is a command and a step of a steps file; what several need is a library beside them."""
    found = [
        f"{path} imports {other}"
        for path in FILES
        for other in imported_files(path)
        if other.parent == STAGES and other.name != "__init__.py"
    ]
    assert not found


def test_no_file_stands_higher_than_it_may():
    highest = max((chain(path) for path in FILES), key=len)
    assert len(highest) <= MOST_FLOORS, " -> ".join(map(str, highest))
    highest = max((chain(path) for path in SHIPPED), key=len)
    assert len(highest) <= MOST_FLOORS_SHIPPED, " -> ".join(map(str, highest))


def package(path):
    """The folder that a file stands in; one folder in a package's folder is part of it."""
    return Path(*path.parent.parts[:2])


def test_folders_do_not_import_each_other_in_a_circle():
    """By folder, apart from the faces of packages, which import what they show."""
    files = [path for path in FILES if path.name != "__init__.py"]
    below = {package(path): set() for path in files}
    for path in files:
        below[package(path)] |= {package(other) for other in imported_files(path) if other.name != "__init__.py"}
    below = {folder: others - {folder} for folder, others in below.items()}
    while leaves := {folder for folder, others in below.items() if not others}:
        below = {folder: others - leaves for folder, others in below.items() if folder not in leaves}
    assert not below, {str(folder): sorted(map(str, others)) for folder, others in below.items()}
