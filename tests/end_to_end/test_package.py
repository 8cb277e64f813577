"""What the package exports and ships, and what its parts can do without."""

import subprocess
import sys
from configparser import ConfigParser
from importlib.metadata import version

import pytest
from support.paths import ROOT

import inspector_pipeline
from inspector_pipeline import errors


def test_exports():
    assert set(inspector_pipeline.__all__) == {
        *("EXAMPLES", "Aspect", "Feature", "Head", "InspectorConfig", "InspectorModel", "InspectorOutput"),
        *(
            "InspectorPipeline",
            "InspectorReward",
            "PairTemplate",
            "RewardFunction",
            "evaluate_samples",
            "load_judge",
            "read_pairs",
            "wrong_sums",
        ),
        *("BackboneError", "DataFileError", "InspectorError", "JudgeConfigError", "PairError", "ReadingError"),
    }
    assert all(hasattr(inspector_pipeline, name) for name in inspector_pipeline.__all__)


def test_import_is_light_and_registers():
    code = (
        "import sys, inspector_pipeline\n"
        "heavy = {'sklearn', 'datasets', 'evaluate', 'skops', 'pandas', 'pyarrow', 'rich', 'training'}\n"
        "heavy &= set(sys.modules)\n"
        "assert not heavy, heavy\n"
        "from transformers.pipelines import PIPELINE_REGISTRY\n"
        "PIPELINE_REGISTRY.check_task('inspector-judge')\n"
    )
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_every_error_is_also_the_builtin_that_callers_expect():
    builtin = {"JudgeConfigError": ValueError, "PairError": ValueError, "ReadingError": ValueError}
    builtin |= {"BackboneError": RuntimeError, "DataFileError": ValueError}
    builtin |= {"SettingsError": ValueError, "EndpointError": RuntimeError}
    defined = {name for name, item in vars(errors).items() if isinstance(item, type) and name != "InspectorError"}
    assert defined == set(builtin)
    for name, base in builtin.items():
        assert issubclass(getattr(errors, name), (errors.InspectorError,)) and issubclass(getattr(errors, name), base)


FOLDERS = {"hub_cards": "hub_cards", "inspector_pipeline": "inspector_pipeline", "inspector_training": "training"}
FOLDERS |= {"inspector_cli": "inspector_pipeline/cli"}


@pytest.fixture(scope="module")
def setup():
    config = ConfigParser()
    config.read(ROOT / "setup.cfg")
    return config


def folder_of(package):
    top, *rest = package.split(".")
    return ROOT.joinpath(FOLDERS[top], *rest)


def test_every_folder_of_code_is_a_package_of_the_wheel(setup):
    named = dict(line.split(" = ") for line in setup["options"]["package_dir"].strip().splitlines())
    assert named == {name: folder for name, folder in FOLDERS.items() if name != folder}
    listed = [folder_of(package) for package in setup["options"]["packages"].split()]
    on_disk = [path.parent for top in FOLDERS.values() for path in (ROOT / top).rglob("__init__.py")]
    assert len(listed) == len(set(listed)) and set(listed) == set(on_disk)


def test_every_file_that_is_no_module_of_a_package_is_data_of_the_wheel(setup):
    packages = {folder_of(package) for package in setup["options"]["packages"].split()}
    patterns = {name: globs.split() for name, globs in setup["options.package_data"].items()}
    shipped = {path for name, globs in patterns.items() for one in globs for path in folder_of(name).glob(one)}
    assert all(list(folder_of(name).glob(one)) for name, globs in patterns.items() for one in globs)
    found = (path for top in FOLDERS.values() for path in (ROOT / top).rglob("*") if path.is_file())
    made = ("__pycache__", "_evaled.json")  # by running it: scores of the examples stand beside them
    kept = (path for path in found if not any(name in str(path) for name in made))
    data = {path for path in kept if not (path.suffix == ".py" and path.parent in packages)}
    assert data == {path for path in shipped if path.is_file() and "__pycache__" not in path.parts}


def test_the_version_stands_once(setup):
    assert setup["metadata"]["version"] == "attr: inspector_pipeline.__version__"
    assert version("inspector-pipeline") == inspector_pipeline.__version__
