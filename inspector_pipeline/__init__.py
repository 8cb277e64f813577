"""Inspector: score (question, response) pairs from a small frozen language model's hidden states.

Importing it registers the judge's config and model with transformers and the task "inspector-judge":

    import inspector_pipeline
    from transformers import pipeline

    judge = pipeline("inspector-judge")
"""

from transformers import AutoConfig, AutoModel, AutoModelForSequenceClassification
from transformers.pipelines import PIPELINE_REGISTRY

from .api.load import EMBEDDED_JUDGE, EXAMPLES, evaluate_samples, load_judge
from .configuration_inspector import Aspect, Head, InspectorConfig
from .errors import BackboneError, DataFileError, InspectorError, JudgeConfigError, PairError, ReadingError
from .features import Feature
from .judge_model import InspectorOutput
from .modeling_inspector import InspectorModel, InspectorReward
from .pipeline_inspector import TASK, InspectorPipeline
from .reward import RewardFunction
from .rows import read_pairs
from .sums import wrong_sums
from .template import PairTemplate

__version__ = "0.1.0"

__all__ = [
    "EXAMPLES",
    "Aspect",
    "BackboneError",
    "DataFileError",
    "Feature",
    "Head",
    "InspectorConfig",
    "InspectorError",
    "InspectorModel",
    "InspectorOutput",
    "InspectorPipeline",
    "InspectorReward",
    "JudgeConfigError",
    "PairError",
    "PairTemplate",
    "ReadingError",
    "RewardFunction",
    "evaluate_samples",
    "load_judge",
    "read_pairs",
    "wrong_sums",
]

AutoConfig.register("inspector", InspectorConfig, exist_ok=True)
AutoModel.register(InspectorConfig, InspectorModel, exist_ok=True)
AutoModelForSequenceClassification.register(InspectorConfig, InspectorReward, exist_ok=True)
if TASK not in PIPELINE_REGISTRY.supported_tasks:
    _registered_impl = InspectorPipeline._registered_impl
    PIPELINE_REGISTRY.register_pipeline(
        TASK,
        pipeline_class=InspectorPipeline,
        pt_model=AutoModel,
        default={"model": (str(EMBEDDED_JUDGE), None)},
        type="text",
    )
    InspectorPipeline._registered_impl = _registered_impl  # without the default's path, see pipeline_inspector.py
