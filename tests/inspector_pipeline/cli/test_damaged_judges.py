"""A judge's folder of strangers: whatever stands in its files ends in one printable line, and no code of it runs."""

import json
import shutil
import struct

import pytest
import torch
from inspector_cli.main import main
from safetensors.torch import load_file, save_file
from support.models import PAIRS, aspect, feature

from inspector_pipeline import load_judge

DEEP = "[" * 100_000 + "]" * 100_000


@pytest.fixture
def folder(make_judge, tmp_path):
    load_judge(make_judge([aspect("a", [feature(1)])]), device="cpu").save_pretrained(tmp_path / "fused")
    return tmp_path / "fused"


@pytest.fixture
def source(tmp_path):
    path = tmp_path / "pairs.json"
    path.write_text(json.dumps(PAIRS[:1]))
    return str(path)


class Evil:
    def __reduce__(self):
        return print, ("it ran",)


def of_config(**changes):
    def change(folder):
        path = folder / "config.json"
        data = json.loads(path.read_text())
        data["backbone_config"] |= changes
        path.write_text(json.dumps(data))

    return change


def as_weights(data):
    return lambda folder: (folder / "model.safetensors").write_bytes(data)


def as_file(name, text):
    return lambda folder: (folder / name).write_text(text)


def as_pickle(folder):
    (folder / "model.safetensors").unlink()
    torch.save({"x": Evil()}, folder / "pytorch_model.bin")


OF_NO_MODEL = json.dumps({"version": "1.0", "added_tokens": [], "model": {"type": "Nothing", "vocab": {}}})
DAMAGES = {
    "config of a list": (as_file("config.json", "[]"), "config.json expects"),
    "config too deep": (as_file("config.json", DEEP), "config.json expects a JSON object"),
    "no heads": (of_config(num_attention_heads=0), "expects the files of a judge"),
    "negative width": (of_config(hidden_size=-4), "expects the files of a judge"),
    "more memory than there is": (of_config(vocab_size=10**14), "expects the files of a judge"),
    "quantised by what is not there": (
        lambda folder: _edit(folder, quantization_config={"quant_method": "awq", "bits": 4}),
        "",
    ),
    "no weights": (as_weights(b""), "SafetensorError"),
    "weights cut": (as_weights(struct.pack("<Q", 2**63) + b"{}"), "SafetensorError"),
    "a pickle": (as_pickle, "UnpicklingError"),
    "tokenizer of nothing": (as_file("tokenizer.json", "{}"), "expects the files of a judge"),
    "tokenizer of no model": (as_file("tokenizer.json", OF_NO_MODEL), "tokenizer.json that the package tokenizers can"),
    "tokenizer too deep": (as_file("tokenizer.json", DEEP), "expects the files of a judge"),
    "settings of a list": (as_file("tokenizer_config.json", "[1]"), "expects the files of a judge"),
}


def _edit(folder, **changes):
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_damage_is_told_in_one_line(folder, source, tmp_path, capsys):
    for name, (change, words) in DAMAGES.items():
        damaged = tmp_path / name
        shutil.copytree(folder, damaged)
        change(damaged)
        assert main(["score", source, "--judge", str(damaged), "--device", "cpu"]) == 1, name
        captured = capsys.readouterr()
        (line,) = [line for line in captured.err.splitlines() if line.startswith("inspector: ")]
        assert words in line and "it ran" not in captured.out, (name, line)


@pytest.mark.parametrize("classes", [[1, 2**31], [-(2**40), 3]])
def test_classes_that_no_column_holds_are_refused(folder, source, capsys, classes):
    path = folder / "config.json"
    data = json.loads(path.read_text())
    data["aspects"][0]["classes"] = classes
    path.write_text(json.dumps(data))
    assert main(["info", str(folder)]) == 1 and "of 32 bits" in capsys.readouterr().err


HUGE = '{"unseen_domains": {"a": {"d": {"auroc": {"value": 1%s}, "same_question": {"value": 1}}}}}' % ("0" * 400)
PARTS = ['{"matched": [1]}', '{"compared": [1]}', '{"unseen_domains": {"a": [1]}}', HUGE]


@pytest.mark.parametrize("text", ["[]", DEEP, "{", '{"aspects": {"a": {"auroc": "high"}}}', *PARTS, "\xff"])
def test_evidence_that_is_none_is_told_in_one_line(folder, capsys, text):
    (folder / "results.json").write_bytes(text.encode("latin1"))
    assert main(["info", str(folder)]) == 1
    assert "results.json expects what python -m training evaluate writes" in capsys.readouterr().err


def test_names_of_tensors_are_printed_printable(folder, source, capsys):
    path = folder / "model.safetensors"
    save_file({**load_file(path), "probes.\x1b]0;x\x07": torch.zeros(1)}, path, metadata={"format": "pt"})
    assert main(["score", source, "--judge", str(folder), "--device", "cpu", "--format", "none"]) == 0
    found = capsys.readouterr().err
    assert "\x1b]0;" not in found and "\x07" not in found


@pytest.mark.parametrize("kind", ["backbone", "tokenizer", "both"])
def test_code_in_a_judge_s_folder_does_not_run_whatever_is_answered(
    make_judge, backbone_dir, source, tmp_path, monkeypatch, capsys, kind
):
    judge, backbone = make_judge([aspect("a", [feature(1)])]), tmp_path / "backbone"
    shutil.copytree(backbone_dir, backbone)
    (backbone / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\nclass T: pass\n")
    changes = {
        "config.json": {"model_type": "zzz", "auto_map": {"AutoConfig": "evil.T", "AutoModel": "evil.T"}},
        "tokenizer_config.json": {"tokenizer_class": "T", "auto_map": {"AutoTokenizer": ["evil.T", "evil.T"]}},
    }
    for name, change in changes.items():
        if kind in (name.split("_")[0], "both") or (kind == "backbone" and name == "config.json"):
            path = backbone / name
            path.write_text(json.dumps(json.loads(path.read_text()) | change))
    path = judge / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"backbone_id": str(backbone)}))
    monkeypatch.setattr("builtins.input", lambda _: "y")  # as `yes |` would answer
    code = main(["score", source, "--judge", str(judge), "--device", "cpu", "--format", "none"])
    assert not (tmp_path / "ran").exists()
    assert code == (0 if kind == "tokenizer" else 1)  # a tokenizer that transformers has itself is read as it is
    assert kind == "tokenizer" or "contains custom code" in capsys.readouterr().err


@pytest.mark.parametrize(
    "part",
    [
        [1],
        {"characters": {"prediction": [1, 2]}, "levels": {}},
        {"characters": {"prediction": [5, 4, 3, 2, 1]}, "levels": {}},
        {"characters": {"x": [1, 2, 3, 4, 5]}, "levels": {}},
        {"characters": {}, "levels": {"a": {"1": "many"}}},
        {"characters": {}},
    ],
)
def test_what_a_judge_says_of_its_fit_is_looked_at_before_anything_is_scored(folder, source, tmp_path, capsys, part):
    (folder / "results.json").write_text(json.dumps({"fitted_on": part}))
    args = ["score", source, "--judge", str(folder), "--device", "cpu", "--output", f"{tmp_path}/out/"]
    assert main(args) == 1 and not list((tmp_path / "out").glob("part-*"))
    assert "results.json expects what python -m training evaluate writes as 'fitted_on'" in capsys.readouterr().err
