"""The card of a judge."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from inspector_pipeline import InspectorConfig
from inspector_pipeline.wheel_backbone import WHEEL_BACKBONES


@dataclass(frozen=True)
class AspectRow:
    """One aspect on the card.

    Attributes:
        name: Its name.
        classes: Observed score -> number of labelled pairs.
        n: Labelled pairs.
        metrics: Metric -> value, low and high of the judge, the surface baseline and the paired gain.
        reference: What the published protocol gave on the same labels; None where it was not run.
    """

    name: str
    classes: dict[str, int]
    n: int
    metrics: dict[str, dict[str, dict[str, float]]]
    reference: dict[str, Any] | None


@dataclass(frozen=True)
class JudgeCard:
    """What the card of a judge says.

    Attributes:
        base_model: Hub id of the model that the backbone is.
        license: Of the backbone.
        backbone_id: How the backbone is loaded.
        depth: Layers.
        n_layers: Layers of the whole backbone; None where unknown.
        hidden_size: Width.
        passes: Readings.
        fused: Whether the judge's files hold the backbone.
        max_length: Tokens of a pair.
        poolings: What is read at each layer.
        aspects: The aspects with their evidence.
        mean: Metric -> judge, surface and gain, mean over aspects.
        protocol: How the evidence came about.
        candidates_tried: Settings looked at before.
        curve: Depth -> inner AUROC.
        inputs: File -> sha256 of the data.
        n_foreign: Pairs dropped as filler.
        beats_surface: Whether the mean gain's interval lies above 0.
    """

    base_model: str
    license: str
    backbone_id: str
    depth: int
    n_layers: int | None
    hidden_size: int
    passes: int
    fused: bool
    max_length: int
    poolings: list[str]
    aspects: list[AspectRow]
    mean: dict[str, dict[str, dict[str, float]]]
    protocol: dict[str, Any]
    candidates_tried: int
    curve: dict[int, float]
    inputs: dict[str, str]
    n_foreign: int
    beats_surface: bool = field(default=False)

    @classmethod
    def from_judge(cls, config: InspectorConfig, results: Mapping[str, Any]) -> "JudgeCard":
        """Collect what the card says from a judge's config and its results.json."""
        source = WHEEL_BACKBONES.get(config.backbone_id)
        aspects = [
            AspectRow(name, entry["class_counts"], entry["n"], _metrics(entry), entry.get("reference_protocol"))
            for name, entry in results["aspects"].items()
        ]
        return cls(
            base_model=source.upstream if source else config.backbone_id,
            license=source.license if source else "other",
            backbone_id=config.backbone_id,
            depth=config.depth,
            n_layers=source.n_layers if source else None,
            hidden_size=config.backbone_config.hidden_size,
            passes=len(config.readings),
            fused=config.fused,
            max_length=config.max_length,
            poolings=list(dict.fromkeys(f.pooling for aspect in config.parsed_aspects for f in aspect.features)),
            aspects=aspects,
            mean=_metrics(results["mean"]),
            protocol=results["protocol"],
            candidates_tried=results["candidates_tried"],
            curve=results["judge"]["curve"],
            inputs=results["extract"]["inputs"],
            n_foreign=results["n_foreign"],
            beats_surface=results["mean"]["gain_over_surface"]["auroc"]["low"] > 0,
        )

    def render(self) -> str:
        """Render the card as Markdown with metadata; a variable that the template lacks is an error."""
        environment = Environment(
            loader=FileSystemLoader(Path(__file__).parent),
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
            keep_trailing_newline=True,
            autoescape=False,
        )
        return environment.get_template("judge_card.md.jinja").render(asdict(self))


def _metrics(entry: Mapping[str, Any]) -> dict[str, dict[str, dict[str, float]]]:
    return {
        name: {"judge": entry[name], "surface": entry["surface"][name], "gain": entry["gain_over_surface"][name]}
        for name in ("auroc", "macro_f1", "spearman")
    }
