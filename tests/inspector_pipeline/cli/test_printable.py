"""Nothing that a stranger wrote reaches a terminal raw."""

import argparse
import io
import json
import logging
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from inspector_cli.filter import filter_scored
from inspector_cli.main import main, make_parser
from inspector_cli.printable import HARMFUL, PrintableParser, folded, log_to_terminal, printable, printable_json, say
from inspector_cli.score import _print_rows
from inspector_cli.table import show_table

HOSTILE = "\x1b]0;title\x07\x1b[31mred\x9b2J\x7f\r\b\u202eevil\u2066\u2028\udc9b\U000e0041"
ROOT = Path(__file__).parents[3]


@given(st.text())
def test_what_is_printable_has_nothing_harmful(text):
    assert not HARMFUL.search(printable(text)) and not HARMFUL.search(
        printable(text, lines=True).translate({9: "", 10: ""})
    )
    assert json.loads(printable_json(json.dumps([text], ensure_ascii=False))) == [text]


def test_escapes_say_what_stood_there_and_ordinary_text_stays():
    assert (
        printable("a\x1b[31m\n\u202eb\x85") == r"a\x1b[31m\n\u202eb\x85" and printable("a\n\tb", lines=True) == "a\n\tb"
    )
    text = "naïve — 日本語　全角, हिन्दी, עברית, العربية, 👩‍👧, x\u00a0y, \\x1b"
    assert printable(text) == text and printable(12) == "12"


def test_lines_end_where_the_terminal_does(monkeypatch):
    monkeypatch.setenv("COLUMNS", "30")
    assert folded("one two three\n\nfour-five-six seventeen", 10) == (
        "one two three\n          \n          four-five-six\n          seventeen"
    )
    assert folded("x" * 25, 4).split() == ["x" * 25] and folded("全" * 20, 10).split() == ["全" * 10] * 2
    assert folded("", 10) == ""


def test_help_fits_eighty_columns(monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    (commands,) = (one for one in make_parser()._actions if isinstance(one, argparse._SubParsersAction))
    lines = [(name, line) for name, one in commands.choices.items() for line in one.format_help().splitlines()]
    assert {"score", "calibrate", "report"} <= commands.choices.keys()
    assert not [line for line in lines if len(line[1]) > 80]


def test_a_message_cannot_pass_for_two(capsys):
    say(f"{HOSTILE}\ninspector: wrote 5 pairs to x")
    said = capsys.readouterr().err
    assert said.count("\ninspector:") == 0 and not HARMFUL.search(said.replace("\n", ""))


def test_the_table_shows_texts_and_names_as_they_are(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "400")
    names = [f"{HOSTILE}", "[red]x[/red]"]
    rows = [{"question": HOSTILE, "prediction": "[bold]b[/bold]", **dict.fromkeys(names, 3), "total_score": 6}]
    show_table(rows, names)
    shown = capsys.readouterr().out
    assert not HARMFUL.search(shown.replace("\n", "")) and r"\x1b[31mred\x9b2J" in shown
    assert "[bold]b[/bold]" in shown and "[red]x[/red]" in shown


@pytest.mark.parametrize("command", [["filter", "--best", "1"], ["score"], ["info"]])
def test_a_name_of_a_file_is_printed_printable(command, capsys, tmp_path):
    assert main([*command, str(tmp_path / "a\x1b31m\u202e.json")]) == 1
    said = capsys.readouterr()
    assert not HARMFUL.search((said.err + said.out).replace("\n", "")) and r"\x1b31m\u202e" in said.err


def test_rows_columns_and_what_was_kept_are_printed_printable(capsys, tmp_path):
    source = tmp_path / "rows\x1b[2J.jsonl"
    source.write_text("".join(json.dumps({"a\x1b[31m": score}) + "\n" for score in (1, 2)))
    assert main(["filter", str(source), "--by", "a\x1b[31m", "--best", "1"]) == 0
    assert main(["filter", str(source), "--by", "b\x1b[31m", "--best", "1"]) == 1
    said = capsys.readouterr().err
    assert "kept 1 of 2" in said and not HARMFUL.search(said.replace("\n", ""))


def test_wrong_arguments_and_log_messages_are_printed_printable(capsys):
    with pytest.raises(SystemExit):
        main(["filter", "a.json", "b\x1b[31m.json"])
    parser = PrintableParser()
    filter_scored(parser.add_subparsers().add_parser("f"))
    with pytest.raises(SystemExit):
        parser.parse_args(["f", "x", "--best", "\x1b[31m"])
    root, kept = logging.getLogger(), logging.getLogger().handlers[:]
    root.handlers = []
    try:
        log_to_terminal(logging.WARNING)
        logging.getLogger("inspector_pipeline.x").warning("The files %s\nwere not read", "a\x1b[31m")
    finally:
        root.handlers = kept
    said = capsys.readouterr().err
    assert said.count(r"\x1b[31m") == 3 and "\x1b" not in said and "\nwere not read" in said


def test_info_is_printed_printable(monkeypatch, capsys):
    monkeypatch.setattr(
        "inspector_pipeline.configuration_inspector.InspectorConfig.from_pretrained", lambda judge: None
    )
    monkeypatch.setattr("inspector_cli.info.describe", lambda *_: [("backbone", HOSTILE)])
    assert main(["info", str(ROOT)]) == 0
    said = capsys.readouterr().out
    assert said.startswith("backbone      \\x1b]0;title") and not HARMFUL.search(said.replace("\n", ""))


def test_json_on_a_terminal_is_the_same_json_without_control_characters(monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    terminal = Terminal()
    monkeypatch.setattr("sys.stdout", terminal)
    rows = [{"question": "a\x9b31m\u202e\x7f", "n": 1}]
    _print_rows(rows)
    assert not HARMFUL.search(terminal.getvalue().replace("\n", ""))
    assert [json.loads(line) for line in terminal.getvalue().splitlines()] == rows


def test_commands_print_only_what_is_printable():
    sources = [*ROOT.glob("inspector_pipeline/cli/*.py"), ROOT / "training/commands.py", ROOT / "push_to_hub.py"]
    for path in sources:
        for line in path.read_text(encoding="utf-8").splitlines():
            assert not re.search(r"(?<![.\w])print\(", line) or "printable(" in line or path.name == "printable.py", (
                path,
                line,
            )
    everything = [
        path for folder in ("inspector_pipeline", "training", "hub_cards") for path in (ROOT / folder).rglob("*.py")
    ]
    raw = [path.name for path in everything if "basicConfig(" in path.read_text(encoding="utf-8")]
    assert raw == ["printable.py"]
    assert argparse.ArgumentParser in PrintableParser.__mro__
