"""Every command that a README, a docstring or a file of steps shows is understood by the parser that would run it."""

import argparse
import ast
import io
import re
import shlex
from contextlib import redirect_stderr

import pytest
from inspector_cli.main import make_parser
from inspector_training.runs.arguments import translated
from inspector_training.runs.command import STAGES, import_stage, parse
from inspector_training.runs.steps import checked_configs, read_steps
from support.paths import ROOT

from push_to_hub import parser as push_parser

STARTS = ("python -m training", "inspector", "python push_to_hub.py")
BEGINS = re.compile(rf"(?:{'|'.join(map(re.escape, STARTS))})(?=\s|$)")
IN_A_LINE = re.compile(r"``?([^`]+?)``?")
MISSING = re.compile(r"following arguments are required: (.*?)[.\n]")
PLACEHOLDERS = {"STAGE", "X", "COMMAND", "..."}
SOURCES = ("inspector_pipeline", "hub_cards", "training")


def documents():
    """Yield (place, text) of all that may show commands, without comment signs."""
    for path in [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("training/*.md")]:
        if path.name != "CHANGELOG.md":
            yield path, path.read_text(encoding="utf-8")
    for folder in SOURCES:
        for path in (ROOT / folder).rglob("*.yaml"):
            yield path, re.sub(r"(?m)^#", "", path.read_text(encoding="utf-8"))
        for path in (ROOT / folder).rglob("*.py"):
            yield path, docstrings(path)
    yield ROOT / "push_to_hub.py", docstrings(ROOT / "push_to_hub.py")


def docstrings(path):
    nodes = ast.walk(ast.parse(path.read_text(encoding="utf-8")))
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    return "\n\n".join(ast.get_docstring(node) or "" for node in nodes if isinstance(node, documented))


def commands(text):
    """Yield (words, whole): commands on lines of their own; those within a text may leave out what is needed."""
    joined = re.sub(r"\\\n\s*", " ", text)
    fenced = re.findall(r"(?ms)^\s*```(?:bash|sh)?\n(.*?)^\s*```", joined)
    unfenced = re.sub(r"(?ms)^\s*```.*?^\s*```", "", joined)
    alone = re.findall(r"(?m)^ {2,}(\S.*)$|^(python .*)$", unfenced)
    lines = [line.strip() for block in fenced for line in block.splitlines()]
    for line in [*lines, *map("".join, alone)]:
        if BEGINS.match(line) and "`" not in line:
            yield words_of(line), True
    for span in IN_A_LINE.findall(unfenced):
        line = " ".join(span.split())
        if BEGINS.match(line):
            yield words_of(line), False


def words_of(line):
    """Split a line as a shell does, up to its first pipe or redirection."""
    words = shlex.split(line, comments=True)
    ends = [i for i, word in enumerate(words) if word in ("|", ">", ">>", "&&", "&", ";")]
    return words[: ends[0]] if ends else words


def found():
    cases = {}
    for path, text in documents():
        for words, whole in commands(text):
            if not PLACEHOLDERS & set(words):
                cases.setdefault((str(path.relative_to(ROOT)), shlex.join(words)), whole)
    return [pytest.param(line, whole, id=f"{place}: {line[:70]}") for (place, line), whole in cases.items()]


COMMANDS = found()


@pytest.fixture(autouse=True)
def _in_the_clone(monkeypatch):
    monkeypatch.chdir(ROOT)


@pytest.mark.parametrize(("line", "whole"), COMMANDS)
def test_it_is_understood(line, whole):
    words = shlex.split(line)
    if words[:3] == ["python", "-m", "training"]:
        understood_by_a_stage(words[3:], whole)
    elif words[0] == "inspector":
        understood_by(make_parser(), words[1:], whole)
    else:
        understood_by(push_parser(), words[2:], whole)


def understood_by(parser: argparse.ArgumentParser, words, whole):
    if not words or "--help" in words:
        return
    with redirect_stderr(io.StringIO()) as told:
        try:
            parser.parse_args(words)
        except SystemExit as ended:
            assert ended.code == 0 or (not whole and MISSING.search(told.getvalue())), told.getvalue()


def understood_by_a_stage(words, whole):
    if not words:
        return
    stage, *rest = words
    assert stage in STAGES, f"{stage} is no stage"
    if "--help" in rest:
        return
    config = import_stage(stage).Config
    with redirect_stderr(io.StringIO()) as told:
        try:
            made = parse(config, None, stage, rest)
        except SystemExit:
            missing = MISSING.search(told.getvalue())
            assert missing and not whole, told.getvalue()
            given = [f"--{name.strip()}" for name in missing[1].split(",")]
            made = parse(config, None, stage, [*rest, *(word for name in given for word in (name, "1"))])
    if stage == "make_judge" and whole and made.steps.startswith("training/"):
        checked_configs(read_steps(made.steps, made.variables), made.steps)


def test_the_commands_are_found_where_they_stand():
    block = "```bash\npython -m training fit --features a \\\n    b # so\ninspector info | head\n```\n"
    text = f"An example:\n{block}And `inspector\nserve x`."
    assert list(commands(text)) == [
        (["python", "-m", "training", "fit", "--features", "a", "b"], True),
        (["inspector", "info"], True),
        (["inspector", "serve", "x"], False),
    ]
    shown = [case.values[0].split() for case in COMMANDS]
    assert {words[3] for words in shown if words[:3] == ["python", "-m", "training"] and len(words) > 3} == set(STAGES)
    assert {words[1] for words in shown if words[0] == "inspector" and len(words) > 1} >= {"train", "score", "filter"}


def test_each_file_of_steps_or_settings_that_is_shipped_is_understood():
    shown = " ".join(case.values[0] for case in COMMANDS)
    for path in (ROOT / "training" / "configs").glob("*.yaml"):
        if not path.stem.endswith("_card"):
            assert f"training/configs/{path.name}" in shown, f"no command shows {path.name}"


def test_names_on_the_command_line_have_hyphens():
    for case in COMMANDS:
        words = shlex.split(case.values[0])
        if words[:3] == ["python", "-m", "training"] and len(words) > 3:
            config = import_stage(words[3]).Config
            for word in words[4:]:
                for name in re.findall(r"^--([\w.]*_[\w.]*)", word):
                    hyphens = name.replace("_", "-")
                    assert translated(config, [f"--{hyphens}=1"]) == [f"--{hyphens}=1"], f"--{name} of {words[3]}"
