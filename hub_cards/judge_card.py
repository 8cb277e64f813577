"""The card of a judge: its evidence, cost, data and limits, each from its files; what is absent is said to be."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from huggingface_hub import EvalResult, EvalResultEntry, ModelCardData

from inspector_pipeline.api.load import EMBEDDED_JUDGE, EMBEDDED_JUDGES
from inspector_pipeline.configuration_inspector import Aspect, InspectorConfig
from inspector_pipeline.features import Feature
from inspector_pipeline.results import own_rank_field
from inspector_pipeline.wheel_backbone import WHEEL_BACKBONES

from .backbone_license import base_model, known_license
from .cards import render
from .evidence import LAGER_PAPER, PAPER, PAPER_URL, DataSource, Intervals, compared_metrics, data_sources
from .markdown import Markdown
from .measured import (
    calibration_table,
    compared_table,
    degenerate_table,
    domains_table,
    matched_table,
    ranking_table,
    trust_table,
    unseen_table,
    use_table,
)

PLOTS = {
    "layer_curve.png": "Quality by depth.",
    "learning_curve.png": "Quality by number of labelled pairs.",
    "reliability.png": "Predicted probabilities against how often they were right.",
    "confusion.png": "Predicted scores against labels.",
}
BACKBONE_CITATIONS = {  # by what the Hub ids of a family begin with
    "HuggingFaceTB/SmolLM2": "Ben Allal et al., SmolLM2, arXiv 2502.02737.",
    "Qwen/Qwen3": "Qwen Team, Qwen3 Technical Report, arXiv 2505.09388.",
}
EXAMPLE = {"question": "What is 6 x 7?", "prediction": "6 x 7 = 42. The answer is 42."}
BESIDE = {"reference": "42", "context": "6 x 7 is 42."}
RUBRIC_LINE = re.compile(r"^\s*(\d+)\s*[—–:.-]\s*(\S.*)$", re.MULTILINE)


@dataclass(frozen=True)
class AspectRow:
    """One aspect on the card.

    Attributes:
        name: Its name.
        classes: Observed score -> number of labelled pairs; None where no count is recorded.
        meanings: Observed score -> what it means; a score without a recorded meaning is absent.
        metrics: Metric -> value, low and high of the judge, the surface baseline and the paired gain; None where the
            aspect was not evaluated.
        entry: What results.json says of it: `n`, its labelled pairs; `reported`, what others reported of it, as
            `{"macro_f1": ..., ...}`; `reference_protocol`, what the published protocol gave on the same labels.
    """

    name: str
    classes: dict[str, int | None]
    meanings: dict[str, str]
    metrics: Intervals | None
    entry: Mapping[str, Any]


@dataclass(frozen=True)
class JudgeCard:
    """The card of a judge, made of its files.

    Attributes:
        config: The judge's config.
        results: Its results.json; parts that it lacks are said to be absent.
        judge: What the snippet loads: a Hub id, a folder, or the name of a judge that comes with the package.
        license: Of the backbone; None takes what is known of it.
        audit: The audit's findings; None takes those of the results.
        plots: File names of the plots that stand beside the card.
        dataset_id: Hub id of the labelled pairs, where they are published.
    """

    config: InspectorConfig
    results: Mapping[str, Any]
    judge: str
    license: str | None = None
    audit: Any = None
    plots: Sequence[str] = ()
    dataset_id: str | None = None

    @property
    def name(self) -> str:
        """Name of the judge, which its evidence is listed under."""
        own = self.judge.rstrip("/").split("/")[-1]
        return f"inspector-{own}" if self.packaged else own

    @property
    def packaged(self) -> bool:
        """Whether it comes with the package."""
        return self.judge in EMBEDDED_JUDGES

    @property
    def title(self) -> str:
        """Head of the card."""
        return f"An Inspector judge on {self.base_model}" if self.judge == EMBEDDED_JUDGE.name else self.name

    @property
    def base_model(self) -> str:
        """Hub id of the model that the backbone is."""
        return base_model(self.config.backbone_id)

    @property
    def backbone_license(self) -> str:
        """Licence of the backbone; "other" where unknown."""
        return self.license or known_license(self.config.backbone_id) or "other"

    @property
    def n_layers(self) -> int | None:
        """Layers of the whole backbone; None where unknown."""
        wheel = WHEEL_BACKBONES.get(self.config.backbone_id)
        return wheel.n_layers if wheel else self.results.get("n_layers")

    @property
    def poolings(self) -> list[str]:
        """What is read at each layer."""
        return list(dict.fromkeys(feature.pooling for feature in self._features if not feature.is_check))

    @property
    def checks(self) -> list[str]:
        """What is looked for in a response's text."""
        return list(dict.fromkeys(feature.pooling for feature in self._features if feature.is_check))

    @property
    def _features(self) -> list[Feature]:
        return [feature for aspect in self.config.parsed_aspects for feature in aspect.features]

    @property
    def ranks_by(self) -> str | None:
        """The field that it ranks responses by; None where there is none."""
        return own_rank_field(self.config)

    @property
    def heads(self) -> list[str]:
        """Kinds of heads, as a config names them: linear, score_tokens, stacked."""
        return list(dict.fromkeys(aspect.head.type for aspect in self.config.parsed_aspects))

    @cached_property
    def aspects(self) -> list[AspectRow]:
        """The aspects with their evidence."""
        entries = self.results.get("aspects", {})
        return [_aspect_row(one, entries.get(one.name, {}), self.config) for one in self.config.parsed_aspects]

    @property
    def mean(self) -> Intervals | None:
        """Metric -> judge, surface and gain, mean over aspects; None where not evaluated."""
        return compared_metrics(self.results.get("mean", {}))

    @cached_property
    def sources(self) -> list[DataSource]:
        """The data that it was fitted on."""
        return data_sources(self.results)

    @property
    def datasets(self) -> list[str]:
        """Hub ids of its data."""
        ids = [self.dataset_id, *(source.hub_id for source in self.sources)]
        return list(dict.fromkeys(hub_id for hub_id in ids if hub_id))

    @property
    def citations(self) -> list[str]:
        """What to cite, once each."""
        papers = [LAGER_PAPER] if {"score_tokens", "stacked"} & set(self.heads) else []
        of_data = [source.citation for source in self.sources if source.citation]
        of_backbone = [text for start, text in BACKBONE_CITATIONS.items() if self.base_model.startswith(start)]
        return list(dict.fromkeys([PAPER, *papers, *of_data, *of_backbone]))

    @property
    def rival(self) -> dict[str, Any] | None:
        """Another way of fitting in the same folds: `what`, mean `auroc`, paired `gain`; None where there was none."""
        mean = self.results.get("mean", {})
        if "rival" not in mean:
            return None
        settings = self.results["protocol"]["settings"]
        rival = settings["rival"]
        pooled = " or ".join("+".join(poolings) for poolings in rival["poolings"])
        what = f"reading {', '.join(rival['readings'])}, pooling {pooled}, {', '.join(rival['layers'])} layers"
        if settings["search"]["depths"] and not rival["depths"]:
            what += ", of any depth"
        if without := self.results["protocol"].get("rival_without"):
            what += f": what it would be without the {' and the '.join(without)}"
        return {"what": what, "auroc": mean["rival"]["auroc"], "gain": mean["gain_over_rival"]["auroc"]}

    @property
    def degenerate(self) -> Markdown | None:
        """A table: worked right solutions beside degenerate answers; none where that was not measured."""
        part = self.results.get("degenerate")
        return degenerate_table(part) if part else None

    @property
    def use(self) -> Markdown | None:
        """A table: what choosing by it brings; none where that was not measured."""
        part = self.results.get("use")
        return use_table(part) if part else None

    @property
    def ranking(self) -> Markdown | None:
        """A table: how well it ranks systems; none where that was not measured."""
        part = self.results.get("ranking")
        return ranking_table(part) if part else None

    @property
    def trust(self) -> Markdown | None:
        """A table: how far its scores can be believed; none where that was not measured."""
        part = self.results.get("trust")
        return trust_table(part) if part else None

    @property
    def matched(self) -> Markdown | None:
        """A table: what it tells of right and wrong answers to one question; none where that was not measured."""
        part = self.results.get("matched")
        return matched_table(part) if part else None

    @property
    def compared(self) -> Markdown | None:
        """A table: what other methods tell of such answers in the same folds; none where that was not measured."""
        part = self.results.get("compared")
        return compared_table(part) if part else None

    @property
    def unseen(self) -> Markdown | None:
        """A table: what it and others tell of generators that no fit saw; none where that was not measured."""
        part = self.results.get("unseen_generators")
        return unseen_table(part) if part else None

    @property
    def domains(self) -> Markdown | None:
        """A table: what it tells of domains that no fit saw; none where that was not measured."""
        part = self.results.get("unseen_domains")
        return domains_table(part) if part else None

    @property
    def example(self) -> Markdown:
        """A pair as the snippet writes it, with what its readings hold beside question and response."""
        held = dict.fromkeys(slot for reading in self.config.parsed_readings.values() for slot in reading.slots)
        return Markdown(json.dumps({**EXAMPLE, **{slot: BESIDE[slot] for slot in held}}))

    @property
    def calibration(self) -> Markdown | None:
        """A table: what calibration on labels of a domain brings; none where it was not calibrated."""
        part = self.results.get("calibration")
        return calibration_table(part) if part else None

    @property
    def calibration_warnings(self) -> list[str]:
        """What the labels were too few to say."""
        part = self.results.get("calibration", {}).get("aspects", {})
        return [f"{name}: {warning}" for name, entry in part.items() for warning in entry["warnings"]]

    def metadata(self) -> ModelCardData:
        """Build the metadata that the Hub reads; evaluation results in the older form (`model-index`)."""
        results = [result for aspect in self.aspects for result in self._model_index(aspect)]
        return ModelCardData(
            license=self.results.get("probes_license") or self.backbone_license,
            library_name="transformers",
            pipeline_tag="text-classification",
            base_model=self.base_model,
            datasets=self.datasets or None,
            language="en",
            tags=["inspector-judge", "llm-as-a-judge", "probing"],
            model_name=self.name if results else None,
            eval_results=results or None,
        )

    def _model_index(self, aspect: AspectRow) -> list[EvalResult]:
        labels = self.dataset_id or next((source.name for source in self.sources if source.teacher), "labelled pairs")
        common: dict[str, Any] = {
            "task_type": "text-classification",
            "task_name": "Scoring responses",
            "dataset_type": self.dataset_id or re.sub(r"[^a-z0-9_]+", "_", labels.lower().rsplit(".", 1)[0]),
            "dataset_name": f"{labels}: {aspect.name}",
            "dataset_config": aspect.name,
        }
        if aspect.metrics:
            auroc, f1 = (aspect.metrics[name]["judge"]["value"] for name in ("auroc", "macro_f1"))
            return [
                EvalResult(metric_type="roc_auc", metric_value=auroc, metric_name="AUROC of a good score", **common),
                EvalResult(metric_type="f1", metric_value=f1, metric_name="Macro F1", **common),
            ]
        if not aspect.entry.get("reported"):
            return []
        return [
            EvalResult(
                metric_type="f1",
                metric_value=round(aspect.entry["reported"]["macro_f1"], 4),
                metric_name="Macro F1, reported by its authors, optimistic",
                source_name="Representation-as-a-Judge",
                source_url=PAPER_URL,
                **common,
            )
        ]

    def eval_results(self) -> list[EvalResultEntry]:
        """Build the current form of evaluation results, `.eval_results/*.yaml`.

        That form names a benchmark dataset on the Hub, so it is empty where the labelled pairs are not published, and
        for aspects that were not evaluated.
        """
        found, date = [], self.results.get("protocol", {}).get("date")
        for aspect in self.aspects:
            if self.dataset_id and aspect.metrics:
                auroc = aspect.metrics["auroc"]["judge"]
                note = f"AUROC of a good score, 95 % interval {auroc['low']:.3f} to {auroc['high']:.3f}"
                found.append(EvalResultEntry(self.dataset_id, aspect.name, auroc["value"], date=date, notes=note))
        return found

    def render(self) -> str:
        """Render the card as Markdown with metadata; a variable that the template lacks is an error."""
        captions = {name: caption for name, caption in PLOTS.items() if name in self.plots}
        return render(
            "judge_card.md.jinja",
            self.metadata(),
            card=self,
            config=self.config,
            results=self.results,
            plots=captions,
        )


def _aspect_row(aspect: Aspect, entry: Mapping[str, Any], config: InspectorConfig) -> AspectRow:
    counts = entry.get("class_counts", {})
    meanings = entry.get("meanings") or _rubric_meanings(aspect, config)
    return AspectRow(
        name=aspect.name,
        classes={str(score): counts.get(str(score)) for score in aspect.classes},
        meanings={str(s): str(meanings[str(s)]) for s in aspect.classes if str(s) in meanings},
        metrics=compared_metrics(entry),
        entry=entry,
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
