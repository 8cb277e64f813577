"""Pushes and pulls through the real client, against a stand-in of the Hub on loopback."""

import json
import re
import time

import httpx2
import pytest
from huggingface_hub import HfApi, ModelCard, constants
from huggingface_hub.errors import HfHubHTTPError, RepositoryNotFoundError
from support.hub_judges import BACKBONE_ID, ROOT, fused_judge, run_python
from support.hub_stand_in import TOKEN, running_hub
from support.models import PAIRS
from support.results import alike

from hub_cards.backbone_license import BackboneLicense
from hub_cards.saved_judge import SavedJudge
from hub_cards.staging import stage
from inspector_pipeline import load_judge
from inspector_pipeline.api.load import EMBEDDED_JUDGE
from inspector_pipeline.errors import DataFileError
from push_to_hub import upload

# The client sends a large file by a way that its own HTTP library discourages.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=<...>':DeprecationWarning")

LICENSE = BackboneLicense("mit", BACKBONE_ID, "given", "The licence's text.\n")


@pytest.fixture(scope="session", params=["qwen3"])
def family(request):
    """One family is enough here: nothing of the Hub depends on it."""
    return request.param


@pytest.fixture
def hub():
    with running_hub() as hub:
        yield hub


@pytest.fixture
def api(hub, monkeypatch):
    """A client in this process that may reach the stand-in, and does not wait between its tries."""
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    sleep = time.sleep
    monkeypatch.setattr(time, "sleep", lambda seconds: sleep(min(seconds, 0.01)))
    return HfApi(endpoint=hub.endpoint, token=TOKEN)


@pytest.fixture
def folder(tmp_path):
    """Two files to push: one goes as LFS, one as text."""
    path = tmp_path / "repo"
    path.mkdir()
    (path / "README.md").write_text("---\nlicense: mit\n---\n# A\n")
    (path / "model.safetensors").write_bytes(b"weights" * 100)
    return path


def commits(hub):
    return [path for method, path in hub.requests if "/commit/" in path]


def test_one_commit_holds_everything_and_a_second_push_changes_nothing(hub, api, folder):
    first = upload(folder, "org/a", api)
    assert first.changed and len(commits(hub)) == 1
    repo = hub.repo("org/a")
    assert set(repo.files()) == {".gitattributes", "README.md", "model.safetensors"}
    assert repo.files()["model.safetensors"].content == b"weights" * 100
    again = upload(folder, "org/a", api)
    assert not again.changed and again.commit == first.commit == repo.branches["main"]
    assert len(commits(hub)) == 1 and len(repo.commits) == 2


def test_a_changed_file_is_sent_and_one_that_is_gone_is_deleted(hub, api, folder):
    (folder / "old.py").write_text("x = 1\n")
    upload(folder, "org/a", api)
    (folder / "old.py").unlink()
    (folder / "README.md").write_text("---\nlicense: mit\n---\n# B\n")
    hub.requests.clear()
    assert upload(folder, "org/a", api).changed
    assert set(hub.repo("org/a").files()) == {".gitattributes", "README.md", "model.safetensors"}
    assert hub.repo("org/a").files()["README.md"].content.endswith(b"# B\n")
    assert not [path for method, path in hub.requests if method == "PUT"]  # the weights have not changed


def test_a_private_repo_needs_the_token_and_a_public_one_is_not_taken_for_private(hub, api, folder):
    upload(folder, "org/secret", api, private=True)
    assert hub.repo("org/secret").private
    stranger = HfApi(endpoint=hub.endpoint, token=False)
    with pytest.raises(RepositoryNotFoundError, match="404"):
        stranger.model_info("org/secret")
    assert api.model_info("org/secret").private
    upload(folder, "org/open", api)
    with pytest.raises(DataFileError, match="org/open to be private, but it exists and is public"):
        upload(folder, "org/open", api, private=True)
    with pytest.raises(HfHubHTTPError, match="401"):
        upload(folder, "org/new", HfApi(endpoint=hub.endpoint, token="wrong"))


def test_a_revision_leaves_main_as_it_is(hub, api, folder):
    main = upload(folder, "org/a", api).commit
    (folder / "README.md").write_text("---\nlicense: mit\n---\n# Draft\n")
    draft = upload(folder, "org/a", api, revision="draft")
    assert draft.changed and hub.repo("org/a").branches == {"main": main, "draft": draft.commit}
    assert not upload(folder, "org/a", api, revision="draft").changed


@pytest.mark.parametrize("place", ["lfs", "commit"])
def test_an_upload_cut_in_the_middle_leaves_the_old_revision_and_a_retry_succeeds(hub, api, folder, place):
    old = upload(folder, "org/a", api).commit
    files = dict(hub.repo("org/a").files())
    (folder / "model.safetensors").write_bytes(b"better" * 100)
    hub.drop.add(place)
    with pytest.raises((httpx2.HTTPError, RuntimeError), match="disconnected|uploading"):
        upload(folder, "org/a", api)
    assert hub.repo("org/a").branches == {"main": old} and hub.repo("org/a").files() == files
    hub.drop.clear()
    assert upload(folder, "org/a", api).changed
    assert hub.repo("org/a").files()["model.safetensors"].content == b"better" * 100


def test_another_commit_in_between_is_not_overwritten(hub, api, folder, monkeypatch):
    upload(folder, "org/a", api)
    listed = api.list_repo_files

    def commit_meanwhile(*args, **kwargs):
        (folder / "README.md").write_text("---\nlicense: mit\n---\n# Theirs\n")
        hub.add("org/a", folder)
        (folder / "README.md").write_text("---\nlicense: mit\n---\n# Ours\n")
        return listed(*args, **kwargs)

    monkeypatch.setattr(api, "list_repo_files", commit_meanwhile)
    with pytest.raises(HfHubHTTPError, match="412"):
        upload(folder, "org/a", api)


def test_the_hub_accepts_the_embedded_judges_metadata(hub, api, monkeypatch):
    monkeypatch.setattr("huggingface_hub.repocard.constants.ENDPOINT", hub.endpoint)
    card = ModelCard.load(EMBEDDED_JUDGE / "README.md")
    card.validate()
    assert ("POST", "/api/validate-yaml") in hub.requests


PUSHED = """
    import json, sys
    pairs = json.loads(sys.argv[1])
    {snippet}
    from transformers import AutoConfig, AutoModel, pipeline
    assert all(type(x).__module__.startswith("transformers_modules") for x in (judge, judge.model, judge.model.config))
    old = pipeline("inspector-judge", model="org/judge", revision="old", trust_remote_code=True)
    model = AutoModel.from_pretrained("org/judge", revision="old", trust_remote_code=True)
    assert (model.centers == old.model.centers).all() and not (model.centers == judge.model.centers).all()
    print(json.dumps([judge(pairs), old(pairs)]))
"""
INSTALLED = """
    import json, sys
    pairs, token = json.loads(sys.argv[1]), sys.argv[2] or None
    import inspector_pipeline
    from inspector_pipeline import InspectorModel, load_judge
    from huggingface_hub import snapshot_download
    from transformers import pipeline
    judge = pipeline("inspector-judge", model="org/judge")
    assert type(judge) is inspector_pipeline.InspectorPipeline
    loaded = load_judge("org/judge", device="cpu")
    folder = load_judge(snapshot_download("org/judge"), device="cpu")
    private = load_judge("org/private", device="cpu", token=token)
    old = load_judge("org/judge", device="cpu", revision="old")
    probes = load_judge("org/probes", device="cpu")
    assert old.model.revision == "old" and old.tokenizer.padding_side == "left"
    assert InspectorModel.from_pretrained("org/judge", revision="old").centers.equal(old.model.centers)
    print(json.dumps([j(pairs) for j in (judge, loaded, folder, private, probes, old)]))
"""


def answers(printed):
    return json.loads(printed.strip().splitlines()[-1])


def as_json(value):
    return json.loads(json.dumps(value))


@pytest.fixture(scope="module")
def staged(tmp_path_factory, _saved_backbones, family, tokenizer):
    """Folders of a judge as a repo: fused, an older revision, and probes only; and the scores of both revisions."""
    folders, scores = tmp_path_factory.mktemp("staged"), {}
    for name, seed in (("old", 1), ("main", 0)):
        folder = fused_judge(folders / f"{name}-judge", _saved_backbones[family], tokenizer, seed=seed)
        judge = SavedJudge.read(folder)
        stage(judge, folders / name, repo_id="org/judge", license_=LICENSE)
        scores[name] = as_json(load_judge(folder, device="cpu")(PAIRS))
    path = folders / "old" / "tokenizer_config.json"  # a tokenizer that can be told from the backbone's and from main's
    path.write_text(json.dumps({**json.loads(path.read_text()), "padding_side": "left"}))
    stage(judge, folders / "probes", repo_id="org/probes", license_=LICENSE, probes_only=True)
    return folders, scores


@pytest.fixture
def published(hub, staged):
    """A judge on the stand-in: fused with an older revision, as probes only, and private; and its scores."""
    folders, scores = staged
    for name in scores:
        hub.add("org/judge", folders / name, branch=name)
    hub.add("org/private", folders / "main", private=True)
    hub.add("org/probes", folders / "probes")
    return scores


def asked(hub, repo_id):
    return [path for _, path in hub.requests if repo_id in path]


def test_a_stranger_runs_the_cards_snippet_by_remote_code_and_again_offline(hub, published, tmp_path):
    card = hub.repo("org/judge").files()["README.md"].content.decode()
    snippet = re.search(r"```python\n(.*?)```", card, re.DOTALL)[1].replace("\n", "\n    ")
    assert "trust_remote_code=True" in snippet and '"org/judge"' in snippet
    code = PUSHED.format(snippet=snippet)
    env = hub.env(tmp_path / "home")
    assert answers(run_python(code, json.dumps(PAIRS), env=env, cwd=tmp_path)) == [published["main"], published["old"]]
    assert not asked(hub, BACKBONE_ID)
    hub.requests.clear()
    offline = {**env, "HF_HUB_OFFLINE": "1"}
    assert answers(run_python(code, json.dumps(PAIRS), env=offline, cwd=tmp_path))[0] == published["main"]
    assert not hub.requests


def test_the_installed_package_needs_no_remote_code_and_a_fused_judge_brings_its_tokenizer(
    hub, published, backbone_dir, tmp_path
):
    hub.add(BACKBONE_ID, backbone_dir)
    env = hub.env(tmp_path / "home")
    expected = [published["main"]] * 5 + [published["old"]]
    run = {"env": env, "cwd": tmp_path, "with_package": True}
    assert alike(answers(run_python(INSTALLED, json.dumps(PAIRS), TOKEN, **run)), expected)
    paths = [path for _, path in hub.requests]
    first = next(i for i, path in enumerate(paths) if "org/probes" in path)
    # Only the probes, loaded last, ask for the backbone's repo: they have neither backbone nor tokenizer of their own.
    assert any(BACKBONE_ID in path for path in paths[first:]) and not any(BACKBONE_ID in path for path in paths[:first])
    hub.requests.clear()
    run["env"] = {**env, "HF_HUB_OFFLINE": "1"}
    assert alike(answers(run_python(INSTALLED, json.dumps(PAIRS), "", **run)), expected)
    assert not hub.requests


def test_a_job_s_manifest_names_the_commit_that_the_hub_gave(hub, tmp_path, backbone_dir, tokenizer):
    folders = [fused_judge(tmp_path / name, backbone_dir, tokenizer, seed=seed) for seed, name in enumerate("ab")]
    old, new = hub.add("org/judge", folders[1], branch="old"), hub.add("org/judge", folders[0])
    code = """
        import json, sys
        from pathlib import Path
        from inspector_cli.judge import load
        from inspector_cli.main import main, make_parser
        source, pairs = Path("in.json"), json.loads(sys.argv[1])
        source.write_text(json.dumps(pairs))
        score = ["score", str(source), "--judge", "org/judge", "--device", "cpu", "--output"]
        old = ["--revision", "old"]
        codes = [main([*score, "new/"]), main([*score, "new/", "--revision", "main"]), main([*score, "old/", *old])]
        codes.append(main([*score, "old.json", *old, "--format", "none"]))
        jobs = [json.loads(Path(name, "_manifest.json").read_text())["judge"]["revision"] for name in ("new", "old")]
        parts = [json.loads(line) for line in Path("old/part-000000.jsonl").read_text().splitlines()]
        same = all(row.items() <= part.items() for row, part in zip(json.loads(Path("old.json").read_text()), parts))
        served = load(make_parser().parse_args(["serve", "org/judge", "--device", "cpu", *old])).model.commit
        print(json.dumps([codes, jobs, same, served]))
    """
    env = hub.env(tmp_path / "home")
    found = answers(run_python(code, json.dumps(PAIRS), env=env, cwd=tmp_path, with_package=True))
    assert found == [[0] * 4, [new, old], True, old]


def test_the_metric_is_loaded_from_a_space_and_its_judge_from_the_hub(hub, published, tmp_path):
    hub.add("org/inspector_score", ROOT / "inspector_pipeline" / "inspector_score", kind="spaces")
    code = """
        import json, sys
        import evaluate
        from inspector_pipeline.api.mean_scores import mean_scores
        pairs = json.loads(sys.argv[1])
        texts = {"predictions": [p["prediction"] for p in pairs], "questions": [p["question"] for p in pairs]}
        found = evaluate.load("org/inspector_score").compute(**texts, judge="org/judge")
        print(json.dumps([found, mean_scores(**texts, judge="org/judge")]))
    """
    # Evaluate's counter of downloads would ask another host.
    env = {**hub.env(tmp_path / "home"), "HF_UPDATE_DOWNLOAD_COUNTS": "0"}
    output = run_python(code, json.dumps(PAIRS), env=env, cwd=tmp_path, with_package=True)
    found, plain = json.loads(output.strip().splitlines()[-1])
    assert found == plain and found["n"] == len(PAIRS)
    assert any(path == "/spaces/org/inspector_score/resolve/main/inspector_score.py" for _, path in hub.requests)


def test_the_command_pushes_a_judge_and_asks_the_hub_for_the_backbones_licence(hub, tmp_path, backbone_dir, tokenizer):
    folder = fused_judge(tmp_path / "judge", backbone_dir, tokenizer)
    (tmp_path / "card").mkdir()
    (tmp_path / "card" / "README.md").write_text("---\nlicense: mit\n---\n# Tiny\n")
    hub.add(BACKBONE_ID, tmp_path / "card")
    code = f"""
        import runpy, sys
        sys.argv = ["push_to_hub.py", {str(folder)!r}, "org/judge", "--private", "--dataset", "org/labels"]
        runpy.run_path({str(ROOT / "push_to_hub.py")!r}, run_name="__main__")
    """
    env = hub.env(tmp_path / "home", TOKEN)
    run_python(code, env=env, cwd=tmp_path, with_package=True)
    repo = hub.repo("org/judge")
    files = repo.files()
    assert repo.private and len(repo.commits) == 2
    assert b"license: mit" in files["README.md"].content and b"as its card on the Hub states" in files["NOTICE"].content
    assert b"id: org/labels" in files[".eval_results/judge.yaml"].content
    assert {"config.json", "model.safetensors", "tokenizer.json", "modeling_inspector.py", "LICENSE"} <= set(files)


@pytest.mark.slow
def test_a_probes_only_repo_on_a_wheel_backbone_works(hub, tmp_path, embedded):
    judge = SavedJudge.read(EMBEDDED_JUDGE, with_backbone=False)
    license_ = BackboneLicense("apache-2.0", "HuggingFaceTB/SmolLM2-135M-Instruct", "known")
    hub.add("org/smol", stage(judge, tmp_path / "s", repo_id="org/smol", license_=license_, probes_only=True))
    code = """
        import json, sys
        from transformers import pipeline
        judge = pipeline("inspector-judge", model="org/smol", trust_remote_code=True, device="cpu")
        print(json.dumps([r["expected"] for r in judge(json.loads(sys.argv[1]))]))
    """
    env = {**hub.env(constants.HF_HOME), "HF_HUB_CACHE": str(tmp_path / "cache")}
    found = answers(run_python(code, json.dumps(PAIRS), env=env, cwd=tmp_path))
    for pair, result in zip(PAIRS, found, strict=True):
        assert result == pytest.approx(embedded(pair)["expected"], abs=1e-4)
