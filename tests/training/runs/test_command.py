"""The command line of stages: names with hyphens, lists of words, switches, readable help, errors in one line."""

import dataclasses
import json
import re
import sys
from dataclasses import dataclass, field
from typing import Any, Literal

import pytest
from inspector_training.runs.arguments import translated
from inspector_training.runs.command import FOLDER, STAGES, from_settings, main, parse, stage_lines
from inspector_training.runs.steps import checked_configs, read_steps

from inspector_pipeline.errors import DataFileError


@dataclass(frozen=True)
class Item:
    """An item.

    Attributes:
        name: Its name.
        lowest: Its lowest value.
    """

    name: str
    lowest: int = 1


@dataclass(frozen=True)
class Inner:
    """Inner settings.

    Attributes:
        inner_folds: Folds.
        depths: Depths to choose from.
        pool_sets: Sets of poolings.
        bias: Whether there is a bias.
    """

    inner_folds: int = 5
    depths: tuple[int, ...] | None = None
    pool_sets: tuple[tuple[str, ...], ...] = (("last",),)
    bias: bool = True


@dataclass(frozen=True)
class Config:
    """Settings.

    Attributes:
        some_features: Folders, 100 % of them.
        search: How to search.
        rival: Another search.
        card: One file or several.
        things: Items of a form of their own.
        words: Word -> score.
        kind: Which kind.
        fused: Whether it is fused.
        retry_failed: Whether to try again.
        extra: Anything.
    """

    some_features: tuple[str, ...]
    search: Inner = field(default_factory=Inner)
    rival: Inner | None = None
    card: str | tuple[str, ...] | None = None
    things: tuple[Item, ...] = ()
    words: dict[str, int] = field(default_factory=dict)
    kind: Literal["a", "b"] = "a"
    fused: bool = False
    retry_failed: bool = True
    extra: dict[str, Any] = field(default_factory=dict)


def parsed(line):
    return parse(Config, "What it does.", "x", ["--some-features", "f", *line.split()])


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("--some-features a b --kind b", {"some_features": ("a", "b"), "kind": "b"}),
        ("--some_features [a,b]", {"some_features": ("a", "b")}),
        ("--some-features=a", {"some_features": ("a",)}),
        ("--some-features 1 null", {"some_features": ("1", "null")}),
        ("--search.inner-folds 3 --search.depths 6 12", {"search": Inner(3, (6, 12))}),
        ("--search.inner_folds=3 --search.depths=[6,12]", {"search": Inner(3, (6, 12))}),
        ("--search.depths 6", {"search": Inner(depths=(6,))}),
        ("--search.depths null", {"search": Inner()}),
        ("--search.pool-sets last mean,last", {"search": Inner(pool_sets=(("last",), ("mean", "last")))}),
        ("--search.pool-sets [[last],[mean,last]]", {"search": Inner(pool_sets=(("last",), ("mean", "last")))}),
        ("--search.pool-sets --fused", {"search": Inner(pool_sets=()), "fused": True}),
        ("--search.no-bias --no-retry-failed", {"search": Inner(bias=False), "retry_failed": False}),
        ("--search.bias false --fused true", {"search": Inner(bias=False), "fused": True}),
        ("--fused --search.inner-folds 2", {"fused": True, "search": Inner(2)}),
        ("--fused=false --retry-failed", {}),
        ("--rival.depths 1 2 --rival.no-bias", {"rival": Inner(depths=(1, 2), bias=False)}),
        ("--card one.yaml", {"card": "one.yaml"}),
        ("--card one.yaml two.yaml", {"card": ("one.yaml", "two.yaml")}),
        ("--words.so-so 0 --words.so_good=1", {"words": {"so-so": 0, "so_good": 1}}),
        ("--things {name:_x,lowest:_0} {name:_y}", {"things": (Item("x", 0), Item("y"))}),
        ("--extra.max-new 3", {"extra": {"max-new": 3}}),
    ],
)
def test_hyphens_lists_and_switches(line, expected):
    words = [word.replace(":_", ": ").replace(",lowest", ", lowest") for word in line.split()]
    found = parse(Config, None, "x", ["--some-features", "f", *words])
    assert found == dataclasses.replace(Config(("f",)), **expected)


def test_what_names_no_setting_is_left_to_the_parser():
    line = ["--foo-bar", "--search.none-such", "1", "--print-config", "--config", "a_b.yaml", "--words", "{a: 1}"]
    assert translated(Config, line) == line


def test_a_file_of_settings_has_underscores_and_the_command_line_goes_before_it(tmp_path, capsys):
    path = tmp_path / "x.yaml"
    path.write_text("some_features: [a]\nsearch: {inner_folds: 3, bias: false}\n")
    assert parsed(f"--config {path} --search.inner-folds 4") == Config(("a",), Inner(4, bias=False))
    with pytest.raises(SystemExit, match="0"):
        parsed("--search.inner-folds 4 --print-config")
    printed = capsys.readouterr().out
    path.write_text(printed)
    assert "inner_folds: 4" in printed and parsed(f"--config {path}") == parsed("--search.inner-folds 4")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("--search.inner-folds many", "x: --search.inner-folds: .*'int'.* many"),
        ("--foo 1", "unrecognized arguments: --foo 1"),
        ("--kind c", "kind"),
        ("--some 1", "unrecognized arguments: --some"),
    ],
)
def test_wrong_arguments_end_in_one_line_with_exit_code_2(line, message, capsys):
    with pytest.raises(SystemExit) as ended:
        parsed(line)
    told = capsys.readouterr().err
    assert ended.value.code == 2 and told.count("\n") == 1
    assert re.search(message, told)


def test_the_help_names_every_setting_as_it_is_typed(capsys):
    with pytest.raises(SystemExit, match="0"):
        parsed("--help")
    told = capsys.readouterr().out
    assert "usage: python -m training x --some-features ... [--config FILE] [settings]" in told
    for shown in (
        "--some-features TEXT ...",
        "Folders, 100 % of them. (required)",
        "--search.inner-folds N ",
        "--search.depths N ...",
        "--search.pool-sets A,B ...",
        "--search.no-bias ",
        "--rival.inner-folds N",
        "--no-retry-failed ",
        "--fused ",
        "--kind a|b ",
        "--words.KEY N",
        "--things YAML ...",
    ):
        assert shown in told
    assert max(map(len, told.splitlines())) <= 100


def test_without_a_stage_all_are_listed_in_the_order_of_the_work(capsys):
    main([])
    told = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in told[2:]] == list(STAGES)
    assert all(len(line) <= 100 for line in told)
    assert all(text.endswith((".", "?")) for _, text in stage_lines())
    files = {path.stem for path in (FOLDER / "stages").glob("*.py")} - {"__init__"}
    assert files == set(STAGES)


def test_a_name_that_is_no_stage_ends_in_one_line_with_exit_code_2(capsys):
    with pytest.raises(SystemExit) as ended:
        main(["dance"])
    told = capsys.readouterr().err
    assert ended.value.code == 2 and "expects a stage of make_judge, data, " in told and told.count("\n") == 1


def test_a_stage_runs_with_the_settings_of_its_command_line(tmp_path, monkeypatch, capsys):
    with pytest.raises(SystemExit) as ended:
        main(["make-judge", "--steps", str(tmp_path / "none.yaml")])
    assert ended.value.code == 1
    monkeypatch.setattr(sys, "argv", ["training", "fit", "--help"])
    with pytest.raises(SystemExit, match="0"):
        main()
    assert "--search.inner-folds N" in capsys.readouterr().out


def test_settings_as_data_are_checked():
    assert from_settings(Config, {"some_features": ["a"], "search": {"depths": [1]}}, "here").search.depths == (1,)
    with pytest.raises(DataFileError, match="here expects the settings of that stage, but"):
        from_settings(Config, {"some_features": ["a"], "depth": 1}, "here")


EVIL = "import pathlib; pathlib.Path(__file__).with_name('ran').touch()\nclass T: pass\n"
NAMED = {"class_path": "evil_module.T", "init_args": {}}
IN_FILES = ({"search": NAMED}, {"search": "evil_module.T"}, {"things": [NAMED]}, {"extra": {"a": [NAMED]}})


@pytest.mark.parametrize("settings", IN_FILES)
def test_a_file_of_settings_names_no_class_that_is_imported(tmp_path, monkeypatch, capsys, settings):
    (tmp_path / "evil_module.py").write_text(EVIL)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(DataFileError, match="expects settings by name and no class"):
        from_settings(Config, {"some_features": ["a"], "kind": "a", **settings}, "here")
    (tmp_path / "settings.json").write_text(json.dumps(settings))
    for words in (["--config", f"{tmp_path}/settings.json"], [f"--config={tmp_path}/settings.json"]):
        with pytest.raises(SystemExit, match="2"):
            parse(Config, "It.", "stage", words)
        assert "expects settings by name and no class" in capsys.readouterr().err
    assert not (tmp_path / "ran").exists()


LAUGHS = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n"
LAUGHS += "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]\n" for i in range(1, 10))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (LAUGHS, "at most 100,000 values"),
        ("extra: &a [*a]\n", "at most 50 deep"),
        ("extra: " + "[" * 60 + "]" * 60, "at most 50 deep"),
        ("[" * 20_000, "nests too deep"),
        ("config: other.yaml\n", "no further file of settings"),
    ],
)
def test_a_file_of_settings_holds_no_more_than_settings(tmp_path, capsys, text, words):
    (tmp_path / "x.yaml").write_text(text)
    with pytest.raises(SystemExit, match="2"):
        parse(Config, "It.", "stage", ["--config", f"{tmp_path}/x.yaml"])
    assert words in capsys.readouterr().err


@pytest.mark.parametrize(
    "text", [LAUGHS, "[" * 20_000, "- stage: fit\n" + "".join(f"  {x}\n" for x in LAUGHS.splitlines())]
)
def test_steps_that_stand_for_more_than_memory_holds_are_refused(tmp_path, text):
    (tmp_path / "x.yaml").write_text(text)
    with pytest.raises(DataFileError):
        checked_configs(read_steps(str(tmp_path / "x.yaml"), {}), "x.yaml")
