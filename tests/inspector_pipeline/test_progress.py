"""Bars say what is done by tokens, with each pass, and never stand still on a terminal."""

import os
import pty
import re
import select
import sys
import time

import pytest
from support.models import PAIRS, aspect, feature

from inspector_pipeline import load_judge, progress
from inspector_pipeline.progress import Bar, Progress, Sizes, Tally


@pytest.fixture(scope="session")
def family():
    return "llama"


def test_the_end_is_told_by_the_tokens_left_where_long_pairs_come_last():
    tokens = [10] * 90 + [1000] * 10
    tally = Tally(100, [4 * one for one in tokens])
    tally.begin(50, 500)
    assert tally.passed(250) == 250 and tally.done == 25
    assert tally.estimate() == (250, 500 + 40 * 10 + 10 * 1000)
    tally.begin(50, 10_400)
    assert tally.done == 50 and tally.estimate() == (500, 10_900)
    tally.end()
    assert tally.done == 100 and tally.estimate() == (10_900, 10_900)


def test_pairs_of_an_earlier_run_count_as_done_and_not_as_fast():
    tally = Tally(768, [400, 800, 400], rows=256)
    tally.skip(512)
    assert tally.done == 512 and tally.estimate() == (300, 400)  # of 4 characters a token, until more is known
    tally.begin(256, 200)
    tally.passed(100)
    assert tally.estimate() == (700, 800) and tally.tokens == 100 and tally.done == 640


def test_pairs_that_are_read_again_count_once():
    tally = Tally(4, [8, 8, 8, 8])
    tally.begin(4, 8)
    assert [tally.passed(6), tally.passed(6), tally.passed(6)] == [6, 2, 0]
    assert tally.end() == 0 and tally.done == 4 and tally.tokens == 8
    tally = Tally(3, [0, 0, 0])  # which were all refused
    tally.begin(3, 0)
    assert tally.done == 0 and tally.end() == 0 and tally.done == 3


def test_sizes_are_bounded_by_what_a_judge_reads(make_judge):
    judge = load_judge(make_judge([aspect("a", [feature(1)])], max_length=96), device="cpu")
    size = Sizes(judge.encode.keys, judge.encode.encoders.values())
    short, longer = PAIRS[0], {**PAIRS[0], "prediction": PAIRS[0]["prediction"] + "a" * 40}
    assert size(longer) - size(short) == 40 and size(short) > len(short["question"]) + len(short["prediction"])
    assert size({"question": "q" * 10_000, "prediction": "p"}) == 4 * 96 and size({}) == size.own


def test_speed_and_time_left_are_those_of_tokens(monkeypatch):
    clock = [100.0]
    monkeypatch.setattr("inspector_pipeline.progress.time.monotonic", lambda: clock[0])
    with Progress("score", Tally(40, [40] * 40)) as bar:
        bar.begin(20, 200)
        clock[0] += 10
        bar.passed(100)  # 10 tokens/s: 10 of 40 pairs, of 10 tokens each
        found = bar.format_dict
        assert found["rate"] == 10 and (found["n"], found["total"]) == (100, 400)
        line = bar.format_meter(**{**found, "elapsed": 10.0})
        assert line.startswith("score:  25%|") and line.endswith("10/40 [00:10<00:30, 1.00 pairs/s, 10 tokens/s]")


def test_a_list_of_pairs_moves_with_each_pass(make_judge, monkeypatch):
    judge = load_judge(make_judge([aspect("a", [feature(1)])], max_length=96), device="cpu")
    seen = []
    monkeypatch.setattr(Progress, "moved", lambda bar, tokens: seen.append((bar.tallies[0].done, tokens)))
    monkeypatch.setattr("inspector_pipeline.engine.token_budget", lambda *_: 100)
    pairs = [{"question": f"What is {i}?", "prediction": "no " * (i + 1)} for i in range(30)]
    judge(pairs, batch_size=15)
    assert len(seen) > 12 and [done for done, _ in seen] == sorted(done for done, _ in seen) and seen[-1][0] == 30
    assert sum(tokens for _, tokens in seen) == sum(
        len(one.input_ids) for p in pairs for one in judge.encode(p).values()
    )
    judge(pairs[:3], num_workers=1)
    assert seen[-1][0] == 3


def test_on_a_terminal_no_tick_is_silent_while_a_pass_takes_long(monkeypatch):
    assert progress.TICK_S <= 1
    monkeypatch.setattr(progress, "TICK_S", 0.1)
    ours, theirs = pty.openpty()
    began, drawn = time.monotonic(), []
    with os.fdopen(theirs, "w") as terminal:
        monkeypatch.setattr(sys, "stderr", terminal)
        with Bar(total=3, desc="slow", unit=" rows"):
            while time.monotonic() - began < 0.95:
                if select.select([ours], [], [], 0.02)[0] and b"slow" in os.read(ours, 4096):
                    drawn.append(time.monotonic() - began)
        monkeypatch.undo()
        terminal.flush()
        last = b""
        while select.select([ours], [], [], 0.2)[0]:
            last += os.read(ours, 4096)
        assert last.endswith(b"\n")
    os.close(ours)
    assert len(drawn) > 4 and max(b - a for a, b in zip(drawn, drawn[1:], strict=False)) < 0.4


def test_elsewhere_it_is_a_few_plain_lines(capsys):
    with Bar(total=3, desc="some", unit=" rows") as bar:
        for _ in range(3):
            bar.update()
    lines = capsys.readouterr().err.split("\n")
    assert [re.sub(r"\|.*", "", line) for line in lines] == ["some:   0%", "some: 100%", ""]
    with Bar(desc="quick", delay=5.0) as bar:
        bar.update()
    assert capsys.readouterr().err == ""
