"""Stage the published judges, of the authors' classifiers, as Hub repos.

    python -m training publish_family --reference reference --probing-set probing.json --org my-org --output staged \
        --allow-pickle

`reference` holds some of the six published folders, {gsm8k,math,gpqa}_{binary,multi}_clfs, whose classifiers are for
Qwen/Qwen3-1.7B; those that are there are built, probes only, without the Hub. Upload one with

    python push_to_hub.py staged/inspector-gsm8k-multi my-org/inspector-gsm8k-multi --allow-unevaluated
        --probes-only --without-backbone
"""

import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

from transformers import Qwen3Config

from hub_cards.backbone_license import find_license
from hub_cards.evidence import GSM8K_TRAIN, PUBLISHED_LABELS, DataSource
from hub_cards.saved_judge import SavedJudge
from hub_cards.staging import stage
from inspector_pipeline.errors import DataFileError
from inspector_pipeline.files.disk import json_text
from inspector_pipeline.template import PairTemplate

from ..features.plan import read_readings
from ..judges.classifiers import Classifier, judge_of_classifiers, load_classifiers, reported
from ..labelling.readings import OWN
from ..rows.probing_set import ASPECTS

logger = logging.getLogger(__name__)

BACKBONE = "Qwen/Qwen3-1.7B"
# The authors name no revision; this is the one that has stood since the release.
BACKBONE_REVISION = "70d244cc86ccca08cf5af4e1e306ecf908b1ad5e"
QWEN3_1_7B = {
    "vocab_size": 151936,
    "hidden_size": 2048,
    "intermediate_size": 6144,
    "num_hidden_layers": 28,
    "num_attention_heads": 16,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "max_position_embeddings": 40960,
    "rms_norm_eps": 1e-6,
    "rope_parameters": {"rope_type": "default", "rope_theta": 1000000.0},
    "tie_word_embeddings": True,
    "bos_token_id": 151643,
    "eos_token_id": 151645,
    "dtype": "bfloat16",
}
MATH_TRAIN = DataSource(
    name="MATH, train set",
    what="the questions",
    license="mit",
    domain="competition mathematics",
    citation="Hendrycks et al., Measuring Mathematical Problem Solving With the MATH Dataset, arXiv 2103.03874.",
)
GPQA = DataSource(
    name="GPQA, main set",
    what="the questions",
    license="cc-by-4.0",
    domain="graduate-level science",
    citation="Rein et al., GPQA: A Graduate-Level Google-Proof Q&A Benchmark, arXiv 2311.12022.",
)
GSM8K_QUESTIONS = replace(GSM8K_TRAIN, name="GSM8K, train set", sha256="", what="the questions")
PROBES = (
    "These probes are the published classifiers' own weights, ported to float32 and not refitted. No licence was found "
    "for them: ask their authors before you pass them on."
)
FILLER = (
    "The published labels hold hand-made filler (40 items, 93 rows; their ids lie above GSM8K's), and with it all of "
    "fluency's scores 1 and 2: on real responses such a score of fluency tells little."
)
SHIFTED = (
    "In the published GPQA labels every row from about id 804 on carries the next question's answer, and these rows "
    "fill most of score 1; half of the questions that it was tested on also stand in its training rows."
)
RubricsOf = Literal["own", "gsm8k", "ours"]
OTHERS = {"gsm8k": "those of the GSM8K labels", "ours": "this project's own words"}


@dataclass(frozen=True)
class PublishedJudge:
    """One judge of the family.

    Attributes:
        folder: The published folder of its classifiers.
        questions: Where its questions are from.
        binary: Whether its scores are 0 and 1.
        notes: What is known to be wrong with it.
    """

    folder: str
    questions: DataSource
    binary: bool
    notes: tuple[str, ...] = ()


FAMILY = {
    "inspector-gsm8k-binary": PublishedJudge("gsm8k_binary_clfs", GSM8K_QUESTIONS, True, (FILLER,)),
    "inspector-gsm8k-multi": PublishedJudge("gsm8k_multi_clfs", GSM8K_QUESTIONS, False, (FILLER,)),
    "inspector-math-binary": PublishedJudge("math_binary_clfs", MATH_TRAIN, True),
    "inspector-math-multi": PublishedJudge("math_multi_clfs", MATH_TRAIN, False),
    "inspector-gpqa-binary": PublishedJudge("gpqa_binary_clfs", GPQA, True, (SHIFTED,)),
    "inspector-gpqa-multi": PublishedJudge("gpqa_multi_clfs", GPQA, False, (SHIFTED,)),
}


@dataclass(frozen=True)
class Config:
    """Settings of the publish_family stage.

    Attributes:
        reference: Folder of the published folders of classifiers.
        probing_set: JSON whose prompts hold each aspect's rubric (GSM8K), or `own` for this project's.
        org: User or organisation whose repos they will be.
        output: Folder of the staged repos.
        math_probing_set: The same for MATH; without it GSM8K's rubrics are taken, and the card says so.
        gpqa_probing_set: The same for GPQA.
        with_backbone: Whether real scores are compared, which loads Qwen/Qwen3-1.7B.
        allow_pickle: Whether pickles are read too; nothing in them is run, only their numbers are read.
    """

    reference: str
    probing_set: str
    org: str
    output: str
    math_probing_set: str | None = None
    gpqa_probing_set: str | None = None
    with_backbone: bool = False
    allow_pickle: bool = False


def run(config: Config) -> None:
    """Build what is there.

    Raises:
        DataFileError: No published folder is there, or its classifiers are not those of the family.
        UnsafePickleError: A pickle is not allowed, or a file holds something else than a classifier needs.
    """
    reference = Path(config.reference)
    names = [name for name, published in FAMILY.items() if (reference / published.folder).is_dir()]
    if not names:
        raise DataFileError(f"{reference} expects one of the published folders, but has none.")
    common = read_readings(config.probing_set)
    rubrics = {} if config.probing_set == OWN else {GSM8K_QUESTIONS: common}
    for questions, own in ((MATH_TRAIN, config.math_probing_set), (GPQA, config.gpqa_probing_set)):
        if own:
            rubrics[questions] = read_readings(own)
    for name in names:
        questions = FAMILY[name].questions
        build(
            name,
            reference,
            rubrics.get(questions, common),
            Path(config.output) / name,
            org=config.org,
            rubrics_of="own" if questions in rubrics else "gsm8k" if rubrics.get(GSM8K_QUESTIONS) else "ours",
            with_backbone=config.with_backbone,
            allow_pickle=config.allow_pickle,
        )


def build(
    name: str,
    reference: Path,
    rubrics: Mapping[str, PairTemplate],
    output: Path,
    *,
    org: str,
    rubrics_of: RubricsOf = "own",
    with_backbone: bool = False,
    allow_pickle: bool = False,
) -> Path:
    """Build one judge of the family as a staged repo and compare it, reloaded in a fresh process, with itself.

    Args:
        name: A key of `FAMILY`.
        reference: The folder of the published folders.
        rubrics: Aspect -> rubric.
        output: The staged repo, which is not there yet.
        org: Whose repo it will be.
        rubrics_of: Whose the rubrics are: those of its `own` labels, of the `gsm8k` labels, or `ours`.
        with_backbone: Whether to compare real scores, which needs the backbone.
        allow_pickle: Whether pickles are read too; nothing in them is run, only their numbers are read.

    Returns:
        The staged repo.
    """
    published, config = FAMILY[name], Qwen3Config(**QWEN3_1_7B)
    classifiers = load_classifiers(reference / published.folder, allow_pickle=allow_pickle)
    model = judge_of_classifiers(classifiers, rubrics, backbone_revision=BACKBONE_REVISION, backbone_config=config)
    if model.config.backbone_id != BACKBONE:
        raise DataFileError(
            f"{published.folder} expects classifiers for {BACKBONE}, but got {model.config.backbone_id}."
        )
    results = published_results(published, classifiers, rubrics_of=rubrics_of, ran=with_backbone)
    with TemporaryDirectory() as folder:
        model.save_pretrained(folder, fused=False)
        Path(folder, "results.json").write_text(json_text(results), encoding="utf-8")
        judge = SavedJudge.read(Path(folder), with_backbone=with_backbone, allow_unevaluated=True)
        stage(judge, output, repo_id=f"{org}/{name}", license_=find_license(BACKBONE), probes_only=True)
        compared = judge.check_reload(output)
    logger.info("%s: staged in %s; reloaded by its own code, equal on %s.", name, output, compared)
    return output


def published_results(
    published: PublishedJudge, classifiers: Mapping[str, Classifier], *, rubrics_of: RubricsOf, ran: bool
) -> dict[str, Any]:
    """Write down what is known of published classifiers: what their authors saved with them, and where it is from.

    Args:
        published: Which judge.
        classifiers: Its classifiers.
        rubrics_of: Whose the rubrics are: those of its `own` labels, of the `gsm8k` labels, or `ours`.
        ran: Whether its real backbone runs where this repo is built.

    Returns:
        A results.json without evidence of our own.
    """
    notes = [
        *published.notes,
        f"Its authors name no revision of {BACKBONE}; {BACKBONE_REVISION[:8]} is assumed.",
        "It needs a pass per aspect, each in that aspect's rubric.",
    ]
    absent = [name for name in ASPECTS if name not in classifiers]
    if absent:
        notes.append(f"No classifier was published for {', '.join(absent)}; the total is over the other aspects.")
    if rubrics_of != "own":
        notes.append(f"Its rubrics are {OTHERS[rubrics_of]}: the prompts that it was fitted on were not at hand.")
    if not ran:
        notes.append(
            f"{BACKBONE} was not at hand where this repo was built: its code and probes were run and compared on a "
            "random backbone of the same depth and width, its scores on real responses were not."
        )
    labels = replace(
        PUBLISHED_LABELS,
        name=published.folder,
        sha256="",
        domain=published.questions.domain,
        what="the classifiers as published, fitted by their authors on labels that are not all at hand",
    )
    return {
        "aspects": {name: reported(one) for name, one in classifiers.items()},
        "sources": [asdict(labels), asdict(published.questions)],
        "probes": PROBES,
        "probes_license": "unknown",
        "n_layers": QWEN3_1_7B["num_hidden_layers"],
        "notes": notes,
        "retrain": (
            f"python -m training import_reference --folder {published.folder} --probing-set PROBING.json "
            f"--output JUDGE --backbone-revision {BACKBONE_REVISION} --allow-pickle"
        ),
    }
