import subprocess
import sys

import inspector_pipeline
from inspector_pipeline import errors


def test_exports():
    assert set(inspector_pipeline.__all__) == {
        *("EXAMPLES", "Aspect", "Feature", "Head", "InspectorConfig", "InspectorModel", "InspectorOutput"),
        *("InspectorPipeline", "InspectorReward", "PairTemplate", "RewardFunction", "evaluate_samples", "load_judge"),
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
