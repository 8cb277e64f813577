"""Features on disk equal those that scoring reads; runs go on where they stopped; what does not fit is refused."""

import hashlib
import json
import os
import shutil
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from inspector_training.features.plan import ExtractConfig
from inspector_training.features.store import concatenate, load_features
from inspector_training.runs.command import parse
from inspector_training.stages.extract import run as extract
from support.fresh import run_fresh
from support.models import N_LAYERS, PAIRS, aspect, feature
from transformers import AutoModel, GPT2Config

from inspector_pipeline import load_judge
from inspector_pipeline.batches import collate
from inspector_pipeline.errors import BackboneError, DataFileError, PairError, ReadingError, SettingsError
from inspector_pipeline.features import Feature
from inspector_pipeline.pair_tokenizer import PairTokenizer
from inspector_pipeline.template import PairTemplate

RUBRICS = {
    "logicality": "Judge the logic.\n5 - sound\n\nQuestion:\n{question}\n\nResponse:\n{prediction}\n\nScore it.\n",
    "fluency": "Judge the language.\n\nQuestion:\n{question}\n\nResponse:\n{prediction}\n\nScore it.\n",
}
ONE_BACKBONE = pytest.mark.parametrize("family", ["qwen3"])  # where the backbone's kind changes nothing


def made_up_pair(i):
    words = ["apple", "sum", "total", "river", "because", "then", "four", "nine"]
    rng = np.random.default_rng(i)
    return f"Question {i}: " + " ".join(rng.choice(words, 6)) + "?", " ".join(rng.choice(words, 5 + i % 9)) + " end"


def write_rows(path, n, start=0, **changes):
    rows = []
    for i in range(start, start + n):
        question, prediction = made_up_pair(i)
        row = {"id": i, "question": question, "prediction": prediction, "scores": {"logicality": 1 + i % 5}}
        rows.append({**row, "sample": i % 2, "generator": "g", **changes})
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


@pytest.fixture
def config(tmp_path, backbone_dir):
    """Eleven labelled rows, read in windows of four."""
    return ExtractConfig(
        write_rows(tmp_path / "rows.jsonl", 11),
        str(tmp_path / "features"),
        backbone_id=str(backbone_dir),
        backbone_revision=None,
        max_length=256,
        poolings=("last", "response_mean", "max"),
        window=4,
    )


@pytest.fixture
def probing_set(tmp_path):
    """Nine pairs: every third carries both labels, the others logicality alone; and one foreign pair."""
    rows = {name: [] for name in RUBRICS}
    for i in range(9):
        for name in ["logicality"] if i % 3 else ["logicality", "fluency"]:
            prompt = PairTemplate.from_template(RUBRICS[name]).text(*made_up_pair(i))
            rows[name].append({"id": i, "eval_prompt": prompt, "score": 2 + i % 4})
    alien = PairTemplate.from_template(RUBRICS["fluency"]).text("Alien?", "x")
    rows["fluency"].append({"id": 99, "eval_prompt": alien, "score": 1})
    (tmp_path / "probing.json").write_text(json.dumps(rows))
    questions = [json.dumps({"question": made_up_pair(i)[0]}) for i in range(9)]
    (tmp_path / "questions.jsonl").write_text("\n".join(questions) + "\n")
    return tmp_path / "probing.json"


def run(config, **changes):
    config = replace(config, **changes)
    extract(config)
    return load_features(config.output)


def shards(folder):
    return {path.name: path.read_bytes() for path in Path(folder).glob("*.safetensors")}


def test_every_row_equals_what_scoring_reads_of_that_pair_alone(config, make_judge):
    read = [feature(2, "response_mean", "rms_normed"), feature(N_LAYERS, "last", "final_norm"), feature(3, "max")]
    judge = load_judge(make_judge([aspect("logicality", read)]), device="cpu")
    features = run(config, states=("raw", "rms_normed", "final_norm"))
    assert features.readings == {"chat": judge.model.config.parsed_readings["chat"]}
    encoder = PairTokenizer(features.readings["chat"], judge.tokenizer, 256)
    alone = []
    for pair in features.pairs:
        with torch.no_grad():
            alone.append(judge.model.read("chat", **collate([encoder(pair.question, pair.prediction)], 0)))
    for one in judge.model.features:
        expected = torch.cat([row[one] for row in alone]).numpy()
        np.testing.assert_allclose(features.matrix(one), expected, atol=2e-5, rtol=1e-4)


def test_output_states_are_those_that_transformers_gives(config, full_model, tokenizer):
    features = run(config, poolings=("mean", "min"), states=("output",))
    assert {state for _, _, state in features.columns} == {"raw", "final_norm"} and features.layers == tuple(
        range(N_LAYERS + 1)
    )
    assert (features.n_layers, features.hidden_size) == (N_LAYERS, 32)
    for row, pair in enumerate(features.pairs):
        text = features.readings["chat"].text(pair.question, pair.prediction)
        with torch.no_grad():
            ids = tokenizer(text, return_tensors="pt", add_special_tokens=False)
            states = full_model(**ids, output_hidden_states=True).hidden_states
        for layer in features.layers:
            kind = "final_norm" if layer == N_LAYERS else "raw"
            mean = features.matrix(Feature("chat", layer, "mean", kind))[row]
            np.testing.assert_allclose(mean, states[layer][0].mean(0).numpy(), atol=2e-5, rtol=1e-4)
            least = features.matrix(Feature("chat", layer, "min", kind))[row]
            np.testing.assert_allclose(least, states[layer][0].amin(0).numpy(), atol=2e-5, rtol=1e-4)
    with pytest.raises(DataFileError, match="states raw, final_norm, but not"):
        features.matrix(Feature("chat", N_LAYERS, "mean", "raw"))


def test_each_rubric_is_read_by_the_pairs_that_carry_its_label(config, probing_set, tmp_path, full_model, tokenizer):
    features = run(
        config,
        pairs=str(probing_set),
        questions=str(tmp_path / "questions.jsonl"),
        readings=("chat", "rubric"),
        states=("raw",),
        layers=(0, 3),
        poolings=("last",),
    )
    assert features.n_foreign == 1 and len(features.pairs) == 9
    rows = {name: own.tolist() for name, own in features.rows.items()}
    assert rows == {"chat": list(range(9)), "rubric:logicality": list(range(9)), "rubric:fluency": [0, 3, 6]}
    found = features.matrix(Feature("rubric:fluency", 3, "last", "raw"))
    for row, i in zip(found, rows["rubric:fluency"], strict=True):
        question, prediction = made_up_pair(i)
        ids = tokenizer(RUBRICS["fluency"].format(question=question, prediction=prediction), return_tensors="pt")
        with torch.no_grad():
            states = full_model(**ids, output_hidden_states=True).hidden_states
        np.testing.assert_allclose(row, states[3][0, -1].numpy(), atol=2e-5, rtol=1e-4)


def test_rows_without_labels_are_extracted_and_rows_without_a_response_are_not(config, tmp_path):
    rows = [{"id": "q1", **PAIRS[0]}, {"id": "q2", "question": "x?", "prediction": None, "error": "timeout"}]
    (tmp_path / "transfer.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    features = run(config, pairs=str(tmp_path / "transfer.jsonl"))
    assert [(pair.id, pair.scores) for pair in features.pairs] == [("q1", {})]
    assert features.matrix(Feature("chat", 1, "last", "rms_normed")).shape == (1, 32)


def test_pairs_come_back_as_they_went_in(config, tmp_path):
    labels = {"weights": {"logicality": 0.5}, "auxiliary": True, "unknown": 1}
    features = run(config, pairs=write_rows(tmp_path / "weighted.jsonl", 2, **labels))
    assert asdict(features.pairs[1])["weights"] == {"logicality": 0.5}
    assert features.pairs[1].auxiliary and features.pairs[1].sample == 1 and features.pairs[1].generator == "g"


def test_a_template_file_gives_readings(config, tmp_path, tokenizer):
    templates = [
        {"name": "plain", "template": "Q {question}\nA {prediction}", "add_special_tokens": False},
        {"name": "rubric:fluency", "template": "F {question} {prediction}"},
    ]
    (tmp_path / "templates.json").write_text(json.dumps(templates))
    features = run(config, readings=(str(tmp_path / "templates.json"),))
    assert features.readings["plain"] == PairTemplate("Q ", "\nA ", "", add_special_tokens=False)
    assert len(features.rows["plain"]) == 11 and len(features.rows["rubric:fluency"]) == 0
    assert features.matrix(Feature("rubric:fluency", 1, "last", "rms_normed")).shape == (0, 32)
    assert features.manifest.settings["readings"] == ["plain", "rubric:fluency"]


def test_windows_fix_shards_and_hardly_change_values(config, tmp_path):
    small = run(config)
    whole = run(config, output=str(tmp_path / "whole"), window=256)
    assert sorted(shards(config.output)) == [f"chat-{i:05d}.safetensors" for i in range(3)]
    assert [len(shard.rows) for shard in small.shards["chat"]] == [4, 4, 3]
    one = Feature("chat", 4, "last", "rms_normed")
    np.testing.assert_allclose(small.matrix(one), whole.matrix(one), atol=1e-5)


def test_fewer_layers_give_the_same_states(config, tmp_path):
    full = run(config, states=("raw", "rms_normed"))
    shallow = run(config, output=str(tmp_path / "shallow"), depth=2)
    assert shallow.layers == (0, 1, 2) and shallow.n_layers == N_LAYERS
    one = Feature("chat", 2, "response_mean", "rms_normed")
    np.testing.assert_allclose(shallow.matrix(one), full.matrix(one), atol=1e-6)


def test_speed_is_told_and_is_no_part_of_the_identity(config, caplog, tokenizer):
    caplog.set_level("INFO")
    features = run(config)
    stats = json.loads((Path(config.output) / "stats.json").read_text())
    encoder = PairTokenizer(features.readings["chat"], tokenizer, 256)
    n_tokens = sum(len(encoder(pair.question, pair.prediction).input_ids) for pair in features.pairs)
    assert (stats["rows"], stats["rows_reused"], stats["tokens"]) == (11, 0, n_tokens)
    assert stats["tokens_per_second"] == pytest.approx(n_tokens / stats["seconds"], rel=0.05)
    assert "tokens/s" in caplog.text and "stats.json" not in features.manifest.outputs


def test_what_a_folder_holds_is_not_read_again(config, caplog):
    caplog.set_level("INFO")
    run(config, states=("raw", "rms_normed"))
    before = {path: path.stat().st_mtime_ns for path in Path(config.output).iterdir()}
    features = run(config, layers=(1, 3), poolings=("last",), states=("raw",))
    assert "holds these features already" in caplog.text
    assert {path: path.stat().st_mtime_ns for path in Path(config.output).iterdir()} == before
    assert features.layers == tuple(range(N_LAYERS + 1))


def test_what_is_kept_of_pairs_since_is_added_without_a_pass(config):
    rows = [json.loads(line) | {"domain": "law"} for line in Path(config.pairs).read_text().splitlines()]
    Path(config.pairs).write_text("".join(json.dumps(row) + "\n" for row in rows))
    run(config)
    pairs, states = Path(config.output) / "pairs.jsonl", shards(config.output)
    manifest = Path(config.output) / "manifest.json"
    whole = pairs.read_text(), json.loads(manifest.read_text())["outputs"]
    old = "".join(
        json.dumps({k: v for k, v in json.loads(line).items() if k != "domain"}) + "\n"
        for line in whole[0].splitlines()
    )
    pairs.write_text(old)  # as a version wrote it that kept no domain, with a manifest that vouches for it
    told = json.loads(manifest.read_text())
    told["outputs"] = {
        n: hashlib.sha256(old.encode()).hexdigest() if n.endswith("pairs.jsonl") else h
        for n, h in told["outputs"].items()
    }
    manifest.write_text(json.dumps(told))
    features = run(config)
    assert (pairs.read_text(), json.loads(manifest.read_text())["outputs"]) == whole and shards(config.output) == states
    assert {pair.domain for pair in features.pairs} == {"law"}


def test_a_damaged_or_missing_shard_is_refused_and_read_again_alone(config):
    run(config)
    before = shards(config.output)
    path = Path(config.output) / "chat-00001.safetensors"
    for damage in (path.unlink, lambda: path.write_bytes(before[path.name][:-40])):
        damage()
        with pytest.raises(DataFileError, match="chat-00001"):
            load_features(config.output)
        others = {p: p.stat().st_mtime_ns for p in Path(config.output).glob("*.safetensors") if p != path}
        run(config)
        assert shards(config.output) == before
        assert all(p.stat().st_mtime_ns == then for p, then in others.items())
    assert json.loads((Path(config.output) / "stats.json").read_text())["rows_reused"] == 7


def test_a_run_without_its_manifest_is_completed_without_a_pass(config):
    run(config)
    stats = (Path(config.output) / "stats.json").read_text()
    manifest = (Path(config.output) / "manifest.json").read_text()
    (Path(config.output) / "manifest.json").unlink()
    with pytest.raises(DataFileError, match=r"expects a manifest, but there is none. Run python -m training extract"):
        load_features(config.output)
    run(config)
    assert (Path(config.output) / "stats.json").read_text() == stats
    assert (Path(config.output) / "manifest.json").read_text() == manifest


def test_changed_bytes_are_found_by_their_hash(config):
    run(config)
    path = Path(config.output) / "chat-00002.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(bytes(data))
    load_features(config.output)
    with pytest.raises(DataFileError, match=r"chat-00002.safetensors expects the file that the manifest names"):
        load_features(config.output, check_hashes=True)


@ONE_BACKBONE
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"max_length": 128}, "what differs: max_length"),
        ({"dtype": "bfloat16"}, "what differs: backbone"),
        ({"window": 5}, "what differs: window"),
        ({"poolings": ("mean",)}, "what differs: readings, layers, poolings or states"),
    ],
)
def test_a_folder_of_other_settings_is_never_overwritten(config, changes, message):
    run(config)
    before = shards(config.output)
    with pytest.raises(DataFileError, match=message):
        run(config, **changes)
    assert shards(config.output) == before


def test_a_folder_of_other_pairs_or_of_another_stage_is_never_overwritten(config, tmp_path):
    run(config)
    write_rows(tmp_path / "rows.jsonl", 10)
    with pytest.raises(DataFileError, match="what differs: inputs"):
        run(config)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "manifest.json").write_text('{"stage": "fit"}')
    with pytest.raises(DataFileError, match="holds something else"):
        run(config, output=str(tmp_path / "other"))
    with pytest.raises(DataFileError, match="stage 'extract'"):
        load_features(tmp_path / "other")


@ONE_BACKBONE
def test_a_backbone_changed_in_its_folder_is_noticed(config, tmp_path, backbone_dir):
    copied = shutil.copytree(backbone_dir, tmp_path / "backbone")
    run(config, backbone_id=str(copied))
    settings = json.loads((copied / "config.json").read_text())
    (copied / "config.json").write_text(json.dumps({**settings, "rope_theta": 77.0}))
    with pytest.raises(DataFileError, match="what differs: backbone"):
        run(config, backbone_id=str(copied))


@ONE_BACKBONE
def test_a_chat_template_that_writes_the_time_is_frozen_with_the_folder(config, tmp_path, backbone_dir, tokenizer):
    copied = shutil.copytree(backbone_dir, tmp_path / "backbone")
    ticking = type(tokenizer).from_pretrained(copied)
    ticking.chat_template = "{{ strftime_now('%f') }}" + ticking.chat_template
    ticking.save_pretrained(copied)
    first = run(config, backbone_id=str(copied))
    (Path(config.output) / "chat-00001.safetensors").unlink()
    assert run(config, backbone_id=str(copied)).readings == first.readings


@ONE_BACKBONE
@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"poolings": ("median",)}, DataFileError, "poolings expects one or more of mean"),
        ({"states": ()}, DataFileError, "states expects one or more of raw"),
        ({"window": 0}, DataFileError, "window expects one row or more"),
        ({"readings": ()}, DataFileError, "readings expects chat, question, rubric, .* or a file"),
        ({"readings": ("rubric",)}, DataFileError, "expects pairs in the published format"),
        ({"readings": ("chat", "chat")}, DataFileError, "distinct names .* but got 'chat'"),
        ({"readings": ("gone.json",)}, DataFileError, "gone.json"),
        ({"layers": (5,)}, BackboneError, "depth expects 1 to 4, .* layers \\(5,\\)"),
        ({"layers": (3,), "depth": 2}, BackboneError, "depth expects 1 to 4"),
        ({"depth": 0}, BackboneError, "depth expects 1 to 4"),
        ({"max_length": 20}, ReadingError, "max_length expects at least"),
        ({"pairs": "gone.jsonl"}, DataFileError, "Expected a file at gone.jsonl"),
    ],
)
def test_settings_that_make_no_sense_are_refused(config, changes, error, message):
    with pytest.raises(error, match=message):
        extract(replace(config, **changes))


@ONE_BACKBONE
def test_malformed_rows_and_templates_are_refused(config, tmp_path):
    with pytest.raises(PairError, match="Pair 1 expects text for 'prediction', but got a blank"):
        rows = [{"id": 1, **PAIRS[0]}, {"id": 2, "question": "x", "prediction": " "}]
        (tmp_path / "blank.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        run(config, pairs=str(tmp_path / "blank.jsonl"))
    (tmp_path / "empty.jsonl").write_text("")
    with pytest.raises(DataFileError, match="at least one pair"):
        run(config, pairs=str(tmp_path / "empty.jsonl"))
    for entry, message in (
        ({"name": "x"}, "expects objects of add_special_tokens, name, question_only, template"),
        ({"name": "a/b", "template": "{question} {prediction}"}, "but got 'a/b'"),
    ):
        (tmp_path / "templates.json").write_text(json.dumps(entry))
        with pytest.raises(DataFileError, match=message):
            run(config, readings=(str(tmp_path / "templates.json"),))


def test_features_of_other_pairs_can_be_joined(config, tmp_path):
    first = run(config)
    rows = write_rows(tmp_path / "auxiliary.jsonl", 3, start=50, auxiliary=True)
    second = run(config, pairs=rows, output=str(tmp_path / "second"))
    both = concatenate([first, second])
    assert both.pairs == first.pairs + second.pairs and both.rows["chat"].tolist() == list(range(14))
    one = Feature("chat", 3, "last", "rms_normed")
    np.testing.assert_array_equal(both.matrix(one), np.concatenate([first.matrix(one), second.matrix(one)]))
    assert set(both.manifest.inputs) == {"rows.jsonl", "auxiliary.jsonl"}
    assert both.manifest.settings["pairs"] == ["rows.jsonl", "auxiliary.jsonl"]
    assert both.manifest.settings["dtype"] == "float32"


@ONE_BACKBONE
def test_inputs_of_one_name_stay_apart_when_joined(config, tmp_path):
    (tmp_path / "b").mkdir()
    rows = write_rows(tmp_path / "b" / "rows.jsonl", 2, start=70)
    both = concatenate([run(config), run(config, pairs=rows, output=str(tmp_path / "second"))])
    assert set(both.manifest.inputs) == {"rows.jsonl", "rows.jsonl (2)"}


@ONE_BACKBONE
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"max_length": 128}, "their max_length differ"),
        ({"dtype": "bfloat16"}, "their backbone differ"),
        ({"poolings": ("min",)}, "expects features that share poolings"),
    ],
)
def test_features_that_do_not_match_are_not_joined(config, tmp_path, changes, message):
    first = run(config)
    with pytest.raises(DataFileError, match=message):
        concatenate([first, run(config, output=str(tmp_path / "second"), **changes)])


def test_joining_nothing_is_refused():
    with pytest.raises(DataFileError, match="at least one set"):
        concatenate([])


def test_the_command_line_takes_lists(tmp_path):
    arguments = ["--pairs", "a.jsonl", "--output", "b", "--readings", '["chat", "rubric"]', "--layers", "[1, 2]"]
    found = parse(ExtractConfig, None, "extract", arguments)
    assert found == ExtractConfig("a.jsonl", "b", readings=("chat", "rubric"), layers=(1, 2))


KILLER = """
import json, os, random, signal, sys, time
from pathlib import Path
from inspector_training.features.plan import ExtractConfig
from inspector_training.features.extract import extract

def start(config):
    pid = os.fork()
    if pid:
        return pid
    try:
        extract(config)
        os._exit(0)
    except BaseException as error:
        print(repr(error), file=sys.stderr)
        os._exit(1)

def shards(config):
    return len(list(Path(config.output).glob("*.safetensors")))

def until(config, n, pid):
    while shards(config) < n:
        if os.waitpid(pid, os.WNOHANG)[0]:
            return False
        time.sleep(0.0005)
    return True

settings = json.loads(sys.argv[1])
settings = {key: tuple(value) if isinstance(value, list) else value for key, value in settings.items()}
config, whole = ExtractConfig(**settings), ExtractConfig(**{**settings, "output": settings["output"] + "-whole"})
assert os.waitpid(start(whole), 0)[1] == 0
written = [path.stat().st_mtime for path in Path(whole.output).glob("*.safetensors")]
a_shard = (max(written) - min(written)) / len(written)  # seconds, on this machine
rng = random.Random(int(sys.argv[2]))
kills = []
for target in [0, *sorted(rng.sample(range(1, shards(whole)), 5))]:
    pid = start(config)
    if until(config, target, pid):
        time.sleep(rng.random() * 3 * a_shard)
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        kills.append([shards(config), (Path(config.output) / "manifest.json").is_file()])
assert os.waitpid(start(config), 0)[1] == 0
print(json.dumps(kills))
"""


@ONE_BACKBONE
def test_killed_at_random_points_and_resumed_it_gives_the_same_bytes(config, tmp_path):
    (tmp_path / "plain.json").write_text(json.dumps({"name": "plain", "template": "Q {question} A {prediction}"}))
    rows = write_rows(tmp_path / "many.jsonl", 40)
    config = replace(config, pairs=rows, window=2, readings=(str(tmp_path / "plain.json"), "chat"))
    env = {**os.environ, "TOKENIZERS_PARALLELISM": "false", "HF_HUB_DISABLE_PROGRESS_BARS": "1", "OMP_NUM_THREADS": "1"}
    seed = int.from_bytes(os.urandom(4), "big")
    done = run_fresh(KILLER, json.dumps(asdict(config)), seed, env=env, cwd=tmp_path)
    assert done.returncode == 0, f"seed {seed}: {done.stderr[-2000:]}"
    kills = json.loads(done.stdout.splitlines()[-1])
    assert sum(0 < n < 40 for n, _ in kills) >= 3, f"seed {seed}: killed at {kills}"
    assert not any(finished for n, finished in kills if n < 40)
    whole = Path(f"{config.output}-whole")
    assert shards(config.output) == shards(whole) and len(shards(whole)) == 40
    for name in ("manifest.json", "pairs.jsonl", "fingerprint.json"):
        assert (Path(config.output) / name).read_bytes() == (whole / name).read_bytes()
    assert len(load_features(config.output, check_hashes=True).pairs) == 40


@ONE_BACKBONE
def test_more_tokens_than_the_backbone_has_positions_are_refused_by_name(config, tokenizer, tmp_path):
    gpt2 = GPT2Config(vocab_size=512, n_embd=32, n_layer=2, n_head=4, n_positions=64)
    AutoModel.from_config(gpt2).save_pretrained(tmp_path / "gpt2")
    tokenizer.save_pretrained(tmp_path / "gpt2")
    with pytest.raises(SettingsError, match=r"max_length expects at most 64, .* Give --max_length 64"):
        extract(replace(config, backbone_id=str(tmp_path / "gpt2"), layers=(1,)))
    assert not Path(config.output).exists()  # so that the same command goes on with another length
