"""A manifest vouches for just what was made from these inputs, and names no path of a machine."""

from dataclasses import dataclass, replace
from importlib.metadata import version

import pytest
from inspector_training.runs import manifest
from inspector_training.runs.manifest import Manifest, checked_sha256, manifest_path

from inspector_pipeline.errors import DataFileError
from inspector_pipeline.files.disk import write_atomically


@dataclass(frozen=True)
class Config:
    features: tuple[str, ...]
    output: str
    seed: int = 0


@pytest.fixture
def made(tmp_path):
    for name in "ab":
        folder = tmp_path / name / "features"
        write_atomically(folder / "x.json", name)
        Manifest("extract", {}, {}).write(folder, [folder / "x.json"])
    config = Config((f"{tmp_path}/a/features/", str(tmp_path / "b" / "features")), str(tmp_path / "out.json"))
    return config, lambda config: Manifest.of("fit", config, [manifest_path(tmp_path / n / "features") for n in "ab"])


def test_it_vouches_until_an_input_a_setting_or_the_output_changes(made, tmp_path):
    config, describe = made
    output = tmp_path / "out.json"
    assert not describe(config).vouches_for(output)
    output.write_text("1")
    describe(config).write(output, [output])
    assert describe(config).vouches_for(output)
    assert describe(replace(config, output="elsewhere")).vouches_for(output)
    assert not describe(replace(config, seed=1)).vouches_for(output)
    output.write_text("2")
    assert not describe(config).vouches_for(output)
    with pytest.raises(DataFileError, match="It was changed after it was made"):
        checked_sha256(output)
    output.write_text("1")
    for name in "ab":  # both inputs are called features, and both count
        folder = tmp_path / name / "features"
        before = manifest_path(folder).read_text()
        Manifest("extract", {}, {"seed": 1}).write(folder, [folder / "x.json"])
        assert not describe(config).vouches_for(output)
        manifest_path(folder).write_text(before)
    assert describe(config).vouches_for(output)


@pytest.mark.parametrize("package", ["torch", "transformers", "tokenizers", "scikit-learn", "numpy"])
def test_it_does_not_vouch_for_what_another_version_made(made, tmp_path, package, monkeypatch):
    config, describe = made
    output = tmp_path / "out.json"
    output.write_text("1")
    describe(config).write(output, [output])
    assert describe(config).vouches_for(output)
    monkeypatch.setattr(manifest, "version", lambda name: "0.0.1" if name == package else version(name))
    assert not describe(config).vouches_for(output)


def test_a_changed_file_of_a_folder_is_refused(made, tmp_path):
    path = tmp_path / "a" / "features" / "x.json"
    checked_sha256(path)
    path.write_text("other")
    with pytest.raises(DataFileError, match="x.json expects the sha256"):
        checked_sha256(path)
    with pytest.raises(DataFileError, match="Expected a file at .*gone"):
        checked_sha256(tmp_path / "gone")


def test_no_path_of_the_machine_is_inside(made, tmp_path):
    config, describe = made
    output = tmp_path / "out.json"
    output.write_text("1")
    describe(config).write(output, [output])
    assert str(tmp_path) not in manifest_path(output).read_text()


def test_another_stages_output_is_refused(tmp_path):
    with pytest.raises(DataFileError, match="there is none. Run python -m training fit first"):
        Manifest.read(tmp_path, "fit")
    (tmp_path / "manifest.json").write_text('{"stage": "other"}')
    with pytest.raises(DataFileError, match="stage 'extract'"):
        Manifest.read(tmp_path, "extract")


@pytest.mark.parametrize("text", ["[1]", "{", '{"outputs": [1]}', '{"outputs": {"x.jsonl": null}}', "[" * 100_000])
def test_what_is_only_called_a_manifest_is_told_or_passed_over(tmp_path, text):
    (tmp_path / "x.jsonl").write_text("1")
    (tmp_path / "manifest.json").write_text(text)
    if "null" in text:
        with pytest.raises(DataFileError, match="It was changed after it was made"):
            checked_sha256(tmp_path / "x.jsonl")
    else:
        assert len(checked_sha256(tmp_path / "x.jsonl")) == 64
    assert not Manifest("extract", {}, {}).vouches_for(tmp_path)
    with pytest.raises(DataFileError, match="expects a manifest of the stage 'extract'"):
        Manifest.read(tmp_path, "extract")
