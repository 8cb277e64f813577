"""The card of a judge: its evidence, cost, data and limits, each from its files; what is absent is said to be."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from huggingface_hub import EvalResult, EvalResultEntry, ModelCardData

from inspector_pipeline.api.load import EMBEDDED_JUDGE, EMBEDDED_JUDGES
from inspector_pipeline.configuration_inspector import Aspect, InspectorConfig
from inspector_pipeline.wheel_backbone import WHEEL_BACKBONES

from .backbone_license import base_model, known_license
from .rendering import render
from .sources import LAGER_PAPER, PAPER, PAPER_URL, DataSource, data_sources

METRICS = ("auroc", "macro_f1", "spearman")
PLOTS = {
    "layer_curve.png": "Quality by depth.",
    "learning_curve.png": "Quality by number of labelled pairs.",
    "reliability.png": "Predicted probabilities against how often they were right.",
    "confusion.png": "Predicted scores against labels.",
}
RUBRIC_LINE = re.compile(r"^\s*(\d+)\s*[—–:.-]\s*(\S.*)$", re.MULTILINE)

Intervals = dict[str, dict[str, dict[str, float]]]


@dataclass(frozen=True)
class AspectRow:
    """One aspect on the card.

    Attributes:
        name: Its name.
        classes: Observed score -> number of labelled pairs; None where no count is recorded.
        meanings: Observed score -> what it means; a score without a recorded meaning is absent.
        n: Labelled pairs; None where not recorded.
        metrics: Metric -> value, low and high of the judge, the surface baseline and the paired gain; None where the
            aspect was not evaluated.
        reported: What others reported of it, as `{"macro_f1": ..., ...}`; None where there is no such report.
        reference: What the published protocol gave on the same labels; None where it was not run.
    """

    name: str
    classes: dict[str, int | None]
    meanings: dict[str, str]
    n: int | None
    metrics: Intervals | None
    reported: dict[str, Any] | None
    reference: dict[str, Any] | None


@dataclass(frozen=True)
class JudgeCard:
    """What the card of a judge says.

    Attributes:
        judge: What the snippet loads: a Hub id, a folder, or the name of a judge that comes with the package.
        base_model: Hub id of the model that the backbone is.
        license: Of the backbone; "other" where unknown.
        probes: Whose the probes are; None where they are the publisher's own.
        probes_license: Of the probes, where it is not the backbone's: then the repo's as a whole.
        backbone_id: How the backbone is loaded.
        backbone_revision: Its revision; None for the newest.
        depth: Layers.
        n_layers: Layers of the whole backbone; None where unknown.
        hidden_size: Width.
        passes: Readings.
        fused: Whether the judge's files hold the backbone.
        max_length: Tokens of a pair.
        poolings: What is read at each layer.
        heads: Kinds of heads, as a config names them: linear, score_tokens, stacked.
        aspects: The aspects with their evidence.
        mean: Metric -> judge, surface and gain, mean over aspects; None where not evaluated.
        protocol: How the evidence came about.
        candidates_tried: Settings looked at before; None where not recorded.
        curve: Depth -> inner AUROC.
        sources: The data that it was fitted on.
        n_foreign: Pairs dropped as filler.
        beats_surface: Whether the mean gain's interval lies above 0; None where not evaluated.
        rival: Another way of fitting in the same folds: `what` it is, its mean `auroc` and the paired `gain`; None
            where there was none.
        transfer: Set -> aspect -> n and metrics, on pairs that were never fitted on.
        cost: Measured speeds, each with `pairs_per_second`, `machine` and `dtype`.
        audit: The audit's findings, one line each; None where no audit was made.
        plots: File -> caption of the plots beside the card.
        notes: What else its maker has to say, a sentence each.
        retrain: The command that makes it again; None where not recorded.
        dataset_id: Hub id of the labelled pairs, where they are published.
    """

    judge: str
    base_model: str
    license: str
    probes: str | None
    probes_license: str | None
    backbone_id: str
    backbone_revision: str | None
    depth: int
    n_layers: int | None
    hidden_size: int
    passes: int
    fused: bool
    max_length: int
    poolings: list[str]
    heads: list[str]
    aspects: list[AspectRow]
    mean: Intervals | None
    protocol: dict[str, Any]
    candidates_tried: int | None
    curve: dict[str, float]
    sources: list[DataSource]
    n_foreign: int
    beats_surface: bool | None
    rival: dict[str, Any] | None
    transfer: dict[str, dict[str, Any]]
    cost: list[dict[str, Any]]
    audit: list[str] | None
    plots: dict[str, str]
    notes: list[str]
    retrain: str | None
    dataset_id: str | None

    @classmethod
    def from_judge(
        cls,
        config: InspectorConfig,
        results: Mapping[str, Any],
        *,
        judge: str,
        license: str | None = None,
        audit: Any = None,
        plots: Sequence[str] = (),
        dataset_id: str | None = None,
    ) -> "JudgeCard":
        """Collect what the card says.

        Args:
            config: The judge's config.
            results: Its results.json; parts that it lacks are said to be absent.
            judge: What the snippet loads: a Hub id, a folder, or the name of a judge that comes with the package.
            license: Of the backbone; None takes what is known of it.
            audit: The audit's findings; None takes those of the results.
            plots: File names of the plots that stand beside the card.
            dataset_id: Hub id of the labelled pairs, where they are published.
        """
        wheel = WHEEL_BACKBONES.get(config.backbone_id)
        mean = _metrics(results.get("mean", {}))
        entries = results.get("aspects", {})
        audit = results.get("audit") if audit is None else audit
        cost = results.get("cost") or []
        return cls(
            judge=judge,
            base_model=base_model(config.backbone_id),
            license=license or known_license(config.backbone_id) or "other",
            probes=results.get("probes"),
            probes_license=results.get("probes_license"),
            backbone_id=config.backbone_id,
            backbone_revision=config.backbone_revision,
            depth=config.depth,
            n_layers=wheel.n_layers if wheel else results.get("n_layers"),
            hidden_size=config.backbone_config.hidden_size,
            passes=len(config.readings),
            fused=config.fused,
            max_length=config.max_length,
            poolings=list(dict.fromkeys(f.pooling for aspect in config.parsed_aspects for f in aspect.features)),
            heads=list(dict.fromkeys(aspect.head.type for aspect in config.parsed_aspects)),
            aspects=[_aspect_row(aspect, entries.get(aspect.name, {}), config) for aspect in config.parsed_aspects],
            mean=mean,
            protocol=dict(results.get("protocol", {})),
            candidates_tried=results.get("candidates_tried"),
            curve=results.get("judge", {}).get("curve", {}),
            sources=data_sources(results),
            n_foreign=results.get("n_foreign", 0),
            beats_surface=mean["auroc"]["gain"]["low"] > 0 if mean else None,
            rival=_rival(results),
            transfer=dict(results.get("transfer", {})),
            cost=[dict(item) for item in ([cost] if isinstance(cost, Mapping) else cost)],
            audit=None if audit is None else audit_lines(audit),
            plots={name: caption for name, caption in PLOTS.items() if name in plots},
            notes=list(results.get("notes", [])),
            retrain=_retrain(results),
            dataset_id=dataset_id,
        )

    @property
    def name(self) -> str:
        """Name the judge, as its evidence is listed under."""
        own = self.judge.rstrip("/").split("/")[-1]
        return f"inspector-{own}" if self.packaged else own

    @property
    def packaged(self) -> bool:
        """Whether it comes with the package."""
        return self.judge in EMBEDDED_JUDGES

    @property
    def title(self) -> str:
        """Head the card."""
        return f"An Inspector judge on {self.base_model}" if self.judge == EMBEDDED_JUDGE.name else self.name

    @property
    def domain(self) -> str | None:
        """Say what its questions are about; None where its data do not say."""
        return next((source.domain for source in self.sources if source.domain), None)

    @property
    def datasets(self) -> list[str]:
        """List the Hub ids of its data."""
        ids = [self.dataset_id, *(source.hub_id for source in self.sources)]
        return list(dict.fromkeys(hub_id for hub_id in ids if hub_id))

    @property
    def citations(self) -> list[str]:
        """List what to cite, once each."""
        papers = [LAGER_PAPER] if {"score_tokens", "stacked"} & set(self.heads) else []
        found = [PAPER, *papers, *(source.citation for source in self.sources if source.citation)]
        if self.base_model.startswith("HuggingFaceTB/SmolLM2"):
            found.append("Ben Allal et al., SmolLM2, arXiv 2502.02737.")
        if self.base_model.startswith("Qwen/Qwen3"):
            found.append("Qwen Team, Qwen3 Technical Report, arXiv 2505.09388.")
        return list(dict.fromkeys(found))

    @property
    def teacher(self) -> str | None:
        """Name the model that gave the labels."""
        return next((source.teacher for source in self.sources if source.teacher), None)

    @property
    def generator(self) -> str | None:
        """Name the model that wrote the responses."""
        return next((source.generator for source in self.sources if source.generator), None)

    def metadata(self) -> ModelCardData:
        """Build the metadata that the Hub reads; evaluation results in the older form (`model-index`)."""
        results = self._model_index()
        return ModelCardData(
            license=self.probes_license or self.license,
            library_name="transformers",
            pipeline_tag="text-classification",
            base_model=self.base_model,
            datasets=self.datasets or None,
            language="en",
            tags=["inspector-judge", "llm-as-a-judge", "probing"],
            model_name=self.name if results else None,
            eval_results=results or None,
        )

    def _model_index(self) -> list[EvalResult]:
        labels = self.dataset_id or next((source.name for source in self.sources if source.teacher), "labelled pairs")
        found = []
        for aspect in self.aspects:
            common: dict[str, Any] = {
                "task_type": "text-classification",
                "task_name": "Scoring responses",
                "dataset_type": self.dataset_id or re.sub(r"[^a-z0-9_]+", "_", labels.lower().rsplit(".", 1)[0]),
                "dataset_name": f"{labels}: {aspect.name}",
                "dataset_config": aspect.name,
            }
            if aspect.metrics:
                auroc, f1 = aspect.metrics["auroc"]["judge"]["value"], aspect.metrics["macro_f1"]["judge"]["value"]
                found.append(
                    EvalResult(metric_type="roc_auc", metric_value=auroc, metric_name="AUROC of a good score", **common)
                )
                found.append(EvalResult(metric_type="f1", metric_value=f1, metric_name="Macro F1", **common))
            elif aspect.reported:
                found.append(
                    EvalResult(
                        metric_type="f1",
                        metric_value=round(aspect.reported["macro_f1"], 4),
                        metric_name="Macro F1, reported by its authors, optimistic",
                        source_name="Representation-as-a-Judge",
                        source_url=PAPER_URL,
                        **common,
                    )
                )
        return found

    def eval_results(self) -> list[EvalResultEntry]:
        """Build the current form of evaluation results, `.eval_results/*.yaml`.

        That form names a benchmark dataset on the Hub, so it is empty where the labelled pairs are not published, and
        for aspects that were not evaluated.
        """
        if not self.dataset_id:
            return []
        found = []
        for aspect in self.aspects:
            if aspect.metrics:
                auroc = aspect.metrics["auroc"]["judge"]
                note = f"AUROC of a good score, 95 % interval {auroc['low']:.3f} to {auroc['high']:.3f}"
                found.append(EvalResultEntry(self.dataset_id, aspect.name, auroc["value"], notes=note))
        return found

    def render(self) -> str:
        """Render the card as Markdown with metadata; a variable that the template lacks is an error."""
        shown = {field.name: getattr(self, field.name) for field in fields(self)}
        shown |= {
            name: getattr(self, name) for name in ("title", "packaged", "domain", "citations", "teacher", "generator")
        }
        return render("judge_card.md.jinja", self.metadata(), **shown)


def _rival(results: Mapping[str, Any]) -> dict[str, Any] | None:
    mean, settings = results.get("mean", {}), results.get("protocol", {}).get("settings", {})
    if "rival" not in mean:
        return None
    rival = settings["rival"]
    pooled = " or ".join("+".join(poolings) for poolings in rival["poolings"])
    what = f"reading {', '.join(rival['readings'])}, pooling {pooled}, {', '.join(rival['layers'])} layers"
    if settings["search"]["depths"] and not rival["depths"]:
        what += ", of any depth"
    return {"what": what, "auroc": mean["rival"]["auroc"], "gain": mean["gain_over_rival"]["auroc"]}


def evidence_gaps(config: InspectorConfig, results: Mapping[str, Any] | None) -> list[str]:
    """Name the aspects that have no evidence: a metric with its interval and the surface baseline beside it."""
    entries = (results or {}).get("aspects", {})
    return [aspect.name for aspect in config.parsed_aspects if _metrics(entries.get(aspect.name, {})) is None]


def audit_lines(audit: Any) -> list[str]:
    """Write an audit's findings, one line each: its `findings` where it has such a list, else its plain values."""
    found = audit.get("findings", audit) if isinstance(audit, Mapping) else audit
    if isinstance(found, Mapping):
        aspects = found.get("aspects", {})
        lines = [f"{key}: {_plain(value)}" for key, value in found.items() if key != "aspects"]
        return lines + [f"{name}: {_plain(value)}" for name, value in aspects.items()]
    return [_plain(item) for item in found]


def _plain(value: Any) -> str:
    if isinstance(value, Mapping):
        said = {key: _plain(item) for key, item in value.items()}
        return "; ".join(f"{key.replace('_', ' ')} {words}" for key, words in said.items() if words)
    if isinstance(value, (list, tuple)):
        return ", ".join(map(_plain, value))
    return "not looked for" if value is None else " ".join(str(value).split())


def _retrain(results: Mapping[str, Any]) -> str | None:
    settings = results.get("extract", {}).get("settings", {})
    if "retrain" in results or not {"probing_set", "questions"} <= settings.keys():
        return results.get("retrain")
    return (
        f"python -m training make_judge --probing-set {settings['probing_set']} --questions {settings['questions']} "
        f"--candidates-tried {results.get('candidates_tried', 0)} --output JUDGE"
    )


def _aspect_row(aspect: Aspect, entry: Mapping[str, Any], config: InspectorConfig) -> AspectRow:
    counts = entry.get("class_counts", {})
    meanings = entry.get("meanings") or _rubric_meanings(aspect, config)
    return AspectRow(
        name=aspect.name,
        classes={str(score): counts.get(str(score)) for score in aspect.classes},
        meanings={str(s): str(meanings[str(s)]) for s in aspect.classes if str(s) in meanings},
        n=entry.get("n"),
        metrics=_metrics(entry),
        reported=entry.get("reported"),
        reference=entry.get("reference_protocol"),
    )


def _rubric_meanings(aspect: Aspect, config: InspectorConfig) -> dict[str, str]:
    """Read what each score means from the rubric that the aspect's own reading spells out, where it does.

    A rubric on another scale than the judge's classes says nothing of these: a binary judge's 1 is not the rubric's.
    """
    readings = {feature.reading for feature in aspect.features}
    texts = [config.parsed_readings[name].prefix for name in readings]
    lines = dict(RUBRIC_LINE.findall("\n".join(texts)))
    same_scale = len(readings) == 1 and max(aspect.classes) > 1 and {str(s) for s in aspect.classes} <= lines.keys()
    return lines if same_scale else {}


def _metrics(entry: Mapping[str, Any]) -> Intervals | None:
    surface, gain = entry.get("surface", {}), entry.get("gain_over_surface", {})
    if not all(name in part for name in METRICS for part in (entry, surface, gain)):
        return None
    return {name: {"judge": entry[name], "surface": surface[name], "gain": gain[name]} for name in METRICS}
