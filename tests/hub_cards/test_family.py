"""The six published folders become repos, without the Hub; those that are not at hand, of generated classifiers."""

import pytest
from inspector_training.stages.publish_family import BACKBONE, FAMILY, Config, run
from support.generated_classifiers import write_clfs

from hub_cards.saved_judge import SavedJudge
from inspector_pipeline import InspectorConfig

GENERATED = {"math_multi_clfs": ("fluency",), "gpqa_binary_clfs": ("logicality", "factuality"), "gpqa_multi_clfs": ()}


def test_every_published_folder_has_a_judge():
    kinds = [f"{name}_{kind}_clfs" for name in ("gsm8k", "math", "gpqa") for kind in ("binary", "multi")]
    assert sorted(judge.folder for judge in FAMILY.values()) == sorted(kinds)
    assert all(name == f"inspector-{judge.folder[:-5].replace('_', '-')}" for name, judge in FAMILY.items())
    assert all(judge.binary == ("binary" in judge.folder) for judge in FAMILY.values())


@pytest.fixture
def family(tmp_path, monkeypatch):
    monkeypatch.setattr(SavedJudge, "check_reload", lambda *_: "nothing; test_push_to_hub.py reloads one")
    for folder, names in GENERATED.items():
        write_clfs(tmp_path / "reference" / folder, names)
    run(Config(str(tmp_path / "reference"), "own", "org", str(tmp_path / "staged"), allow_pickle=True))
    return tmp_path / "staged"


def test_what_is_there_is_staged_probes_only_and_says_what_is_known(family):
    assert sorted(path.name for path in family.iterdir()) == [
        "inspector-gpqa-binary",
        "inspector-gpqa-multi",
        "inspector-math-multi",
    ]
    for repo in family.iterdir():
        config = InspectorConfig.from_pretrained(repo)
        assert (config.backbone_id, config.fused, config.depth) == (
            BACKBONE,
            False,
            28 if len(config.aspects) > 1 else 21,
        )
        card = (repo / "README.md").read_text()
        assert "this project's own words" in card and "optimistic" in card
        assert ("carries the next question" in card) == ("gpqa" in repo.name)
        assert set(config.parsed_aspects[0].classes) == ({0, 1} if "binary" in repo.name else {3, 4})
