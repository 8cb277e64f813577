"""A finished part that was damaged, or an input that was swapped: the same bytes as before, or a refusal."""

import gzip
import json
import os
import random
import shutil

import pytest
from support.jobs import cheapened, contents, made_rows, run, write_lines
from support.models import aspect, chat_reading, config_of, feature, random_probes

from inspector_pipeline import InspectorModel, load_judge
from inspector_pipeline.errors import DataFileError
from inspector_pipeline.jobs.filter import FilterJob, filter_job

ROWS = 300  # two parts


@pytest.fixture(scope="module")
def judge(_saved_backbones, tokenizer, tmp_path_factory):
    config = config_of(
        _saved_backbones["llama"], [aspect("a", [feature(1)])], {"chat": chat_reading(tokenizer)}, max_length=96
    )
    folder = tmp_path_factory.mktemp("judge")
    random_probes(InspectorModel(config)).save_pretrained(folder, fused=False)
    return cheapened(load_judge(folder, device="cpu"))


@pytest.fixture(scope="module", params=["jsonl", "parquet"])
def finished(request, judge, tmp_path_factory):
    """A finished job with a reject, its source, its shape, and its best rows; tests copy it."""
    folder = tmp_path_factory.mktemp(request.param)
    rows = made_rows(ROWS)
    rows[7] = {"question": "no prediction"}
    source = write_lines(folder / "in.jsonl", rows)
    run(judge, source, folder / "out", format=request.param)
    best = filter_job(FilterJob(str(folder / "out"), best=9, output=str(folder / "best.jsonl"))).output
    return source, folder / "out", request.param, best.read_bytes()


def flip(path, seed):
    data = bytearray(path.read_bytes())
    chance = random.Random(seed)
    data[chance.randrange(len(data))] ^= chance.randrange(1, 256)
    path.write_bytes(data)


def append(path, text):
    path.write_text(path.read_text() + text)


def swap(one, other):
    data = one.read_bytes(), other.read_bytes()
    one.write_bytes(data[1])
    other.write_bytes(data[0])


def turned_into_a_folder(path):
    path.unlink()
    path.mkdir()


DAMAGES = {
    **{f"flip {seed}": lambda job, part, seed=seed: flip(part(0), seed) for seed in range(5)},
    **{
        f"flip rejects {seed}": lambda job, part, seed=seed: flip(job / "_rejects/part-000000.jsonl", seed)
        for seed in "ab"
    },
    **{f"flip manifest {seed}": lambda job, part, seed=seed: flip(job / "_manifest.json", seed) for seed in range(4)},
    "cut": lambda job, part: part(1).write_bytes(part(1).read_bytes()[:-9]),
    "cut at a row": lambda job, part: part(0).write_bytes(part(0).read_bytes().rpartition(b"\n")[0]),
    "empty": lambda job, part: part(0).write_bytes(b""),
    "more": lambda job, part: part(0).write_bytes(part(0).read_bytes() * 2),
    "a blank line more": lambda job, part: part(1).write_bytes(part(1).read_bytes() + b"\n"),
    "another part": lambda job, part: shutil.copy(part(0), part(1)),
    "swapped": lambda job, part: swap(part(0), part(1)),
    "swapped with checksums": lambda job, part: [
        swap(part(0), part(1)),
        swap(*sorted((job / "_checksums").iterdir())),
    ],
    "gone": lambda job, part: part(0).unlink(),
    "gone with its rejects": lambda job, part: [part(0).unlink(), (job / "_rejects/part-000000.jsonl").unlink()],
    "rejects gone": lambda job, part: (job / "_rejects/part-000000.jsonl").unlink(),
    "rejects of a part without": lambda job, part: shutil.copy(
        job / "_rejects/part-000000.jsonl", job / "_rejects/part-000001.jsonl"
    ),
    "a folder": lambda job, part: turned_into_a_folder(part(1)),
    "one too many": lambda job, part: shutil.copy(part(1), part(2)),
    "half of one": lambda job, part: part(0).rename(job / f".{part(0).name}.tmp"),
    "checksums gone": lambda job, part: shutil.rmtree(job / "_checksums"),
    "a checksum cut": lambda job, part: (job / "_checksums/part-000000.sha256").write_bytes(b"3"),
    "manifest gone": lambda job, part: (job / "_manifest.json").unlink(),
    "summary gone": lambda job, part: (job / "_summary.json").unlink(),
}


def result_of(work):
    try:
        return work()
    except DataFileError as error:
        return str(error)


def rows_in(job):
    return {name: data for name, data in contents(job).items() if name.startswith(("part-", "_rejects"))}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damage_to_a_finished_job_is_refused_or_made_good(judge, finished, tmp_path, damage):
    source, whole, shape, best = finished
    job = tmp_path / "out"
    shutil.copytree(whole, job)
    DAMAGES[damage](job, lambda index: job / f"part-{index:06d}.{shape}")
    told = result_of(lambda: filter_job(FilterJob(str(job), best=9, output=str(tmp_path / "again.jsonl"))))
    assert isinstance(told, str) or told.output.read_bytes() == best
    told = result_of(lambda: run(judge, source, job, format=shape))
    if isinstance(told, str):
        assert str(job) in told and " expects " in told
    else:
        assert rows_in(job) == rows_in(whole)


def other_content(folder):
    path = folder / "a.jsonl"
    path.write_text(path.read_text().replace("What is 3?", "What is 4?"))


def compressed(folder):
    (folder / "a.jsonl.gz").write_bytes(gzip.compress((folder / "a.jsonl").read_bytes()))
    (folder / "a.jsonl").unlink()


def other_order(folder):
    lines = (folder / "a.jsonl").read_text().splitlines(keepends=True)
    (folder / "a.jsonl").write_text("".join(lines[::-1]))


def as_an_array(folder):
    for path in sorted(folder.iterdir()):
        path.with_suffix(".json").write_text(json.dumps([json.loads(line) for line in path.read_text().splitlines()]))
        path.unlink()


def copied(folder):
    shutil.copy(folder / "a.jsonl", folder / "copy")
    os.replace(folder / "copy", folder / "a.jsonl")


def renamed_back(folder):
    (folder / "a.jsonl").rename(folder / "c")
    (folder / "c").rename(folder / "a.jsonl")


SAME = {
    "touched": lambda folder: os.utime(folder / "a.jsonl", (1, 1)),
    "a copy in its place": copied,
    "renamed and back": renamed_back,
    "a file that is no data": lambda folder: (folder / "notes.txt").write_text("x"),
    "an empty folder": lambda folder: (folder / "more").mkdir(),
    "a hidden file": lambda folder: (folder / ".c.jsonl").write_text("{}"),
}
OTHERS = {
    "same size": other_content,
    "another order": other_order,
    "renamed": lambda folder: (folder / "a.jsonl").rename(folder / "aa.jsonl"),
    "two swapped": lambda folder: swap(folder / "a.jsonl", folder / "b.jsonl"),
    "one more": lambda folder: write_lines(folder / "c.jsonl", made_rows(1)),
    "an empty one more": lambda folder: (folder / "c.jsonl").touch(),
    "one less": lambda folder: (folder / "b.jsonl").unlink(),
    "compressed": compressed,
    "another format": as_an_array,
    "a row more": lambda folder: append(folder / "b.jsonl", '{"question": "q", "prediction": "p"}\n'),
    "a blank line more": lambda folder: append(folder / "b.jsonl", "\n"),
    "cut": lambda folder: os.truncate(folder / "b.jsonl", 1000),
    **{f"flip {seed}": lambda folder, seed=seed: flip(folder / "a.jsonl", seed) for seed in range(4)},
}


def shared_job(judge, tmp_path, swap_input):
    """Score one half of a job, then the other once its input was swapped."""
    (tmp_path / "in").mkdir()
    write_lines(tmp_path / "in" / "a.jsonl", made_rows(ROWS - 9))
    write_lines(tmp_path / "in" / "b.jsonl", made_rows(9, seed=1))
    for index in (0, 1):
        run(judge, tmp_path / "in", tmp_path / "whole", shard=(index, 2))
    run(judge, tmp_path / "in", tmp_path / "out", shard=(0, 2))
    swap_input(tmp_path / "in")
    return lambda: run(judge, tmp_path / "in", tmp_path / "out", shard=(1, 2))


@pytest.mark.parametrize("case", OTHERS)
def test_a_job_does_not_go_on_with_another_input(judge, tmp_path, case):
    go_on = shared_job(judge, tmp_path, OTHERS[case])
    before = contents(tmp_path / "out")
    with pytest.raises(DataFileError, match="expects to go on with the job that it holds, but these differ: input"):
        go_on()
    assert contents(tmp_path / "out") == before


@pytest.mark.parametrize("case", SAME)
def test_a_job_goes_on_where_its_input_holds_the_same_rows(judge, tmp_path, case):
    shared_job(judge, tmp_path, SAME[case])()
    found, whole = contents(tmp_path / "out"), contents(tmp_path / "whole")
    different = {name for name in found if found[name] != whole.get(name)}
    assert different <= {"_summary-1-of-2.json"} and len(found) == len(whole)


@pytest.mark.parametrize("case", ["a row more", "cut", "same size", "one less"])
def test_an_input_that_changes_while_it_is_scored_leaves_no_part(judge, tmp_path, case, monkeypatch):
    (tmp_path / "in").mkdir()
    write_lines(tmp_path / "in" / "a.jsonl", made_rows(ROWS - 9))
    write_lines(tmp_path / "in" / "b.jsonl", made_rows(9, seed=1))
    whole, changes = judge.score_encoded, [OTHERS[case]]

    def score_encoded(window, **options):
        for change in changes[:1]:
            changes.clear()
            change(tmp_path / "in")
        return whole(window, **options)

    monkeypatch.setattr(judge, "score_encoded", score_encoded)
    with pytest.raises(DataFileError, match=r"in/[ab]\.jsonl (expects to stay as it is while it is|could not be) read"):
        run(judge, tmp_path / "in", tmp_path / "out")
    assert not list((tmp_path / "out").glob("part-*"))


@pytest.mark.parametrize("name", [".part-000000.jsonl.tmp", "._manifest.json.tmp", "_rejects/.part-000000.jsonl.tmp"])
@pytest.mark.parametrize("kind", ["link", "pipe"])
def test_a_folder_of_strangers_leads_a_job_to_no_other_file(judge, tmp_path, name, kind):
    source = write_lines(tmp_path / "in.jsonl", [*made_rows(3), {"question": "no prediction"}])
    (tmp_path / "precious").write_text("kept")
    (tmp_path / "out" / "_rejects").mkdir(parents=True)
    place = tmp_path / "out" / name
    if kind == "link":
        place.symlink_to(tmp_path / "precious")
    else:
        os.mkfifo(place)
    with pytest.raises(DataFileError, match="that a stopped run has left, but is a link or a pipe"):
        run(judge, source, tmp_path / "out")
    assert (tmp_path / "precious").read_text() == "kept"


@pytest.mark.parametrize("number", range(6))
def test_a_full_disk_at_any_write_leaves_nothing_behind_and_the_job_goes_on(judge, tmp_path, number, monkeypatch):
    source = write_lines(tmp_path / "in.jsonl", [*made_rows(3), {"question": "no prediction"}])
    run(judge, source, tmp_path / "whole")
    left, sync = [number], os.fsync

    def full(file):
        left[0] -= 1
        if left[0] < 0:
            raise OSError(28, "No space left on device")
        return sync(file)

    with monkeypatch.context() as patch, pytest.raises(OSError, match="No space left"):
        patch.setattr(os, "fsync", full)
        run(judge, source, tmp_path / "out")
    assert not list((tmp_path / "out").rglob("*.tmp"))
    run(judge, source, tmp_path / "out")
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


MANIFESTS = {
    "rows in words": '{"rows": "5", "settings": {"part_rows": 256}}',
    "no rows": '{"rows": null, "settings": {"part_rows": 256}}',
    "fewer than none": '{"rows": -5, "settings": {"part_rows": 256}}',
    "NaN": '{"rows": NaN, "settings": {"part_rows": 256}}',
    "parts of nothing": '{"rows": 5, "settings": {"part_rows": 0}}',
    "parts of a half": '{"rows": 5, "settings": {"part_rows": 0.5}}',
    "truth": '{"rows": true, "settings": {"part_rows": true}}',
    "deep": "[" * 100_000 + "]" * 100_000,
}


@pytest.mark.parametrize("case", MANIFESTS)
def test_a_manifest_that_is_none_is_told(tmp_path, case):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "_manifest.json").write_text(MANIFESTS[case])
    write_lines(tmp_path / "out" / "part-000000.jsonl", [{"total_score": 1}])
    with pytest.raises(DataFileError, match="expects a job's manifest, but"):
        filter_job(FilterJob(str(tmp_path / "out"), best=1, output=str(tmp_path / "best.jsonl")))


def test_a_job_does_not_read_another_that_is_not_finished(judge, tmp_path):
    source = write_lines(tmp_path / "in.jsonl", made_rows(ROWS))
    run(judge, source, tmp_path / "first")
    assert run(judge, tmp_path / "first", tmp_path / "whole", prefix="again_")["scored"] == ROWS
    (tmp_path / "first" / "part-000001.jsonl").unlink()
    with pytest.raises(DataFileError, match="first expects 2 parts, but holds 1"):
        run(judge, tmp_path / "first", tmp_path / "second", prefix="again_")
