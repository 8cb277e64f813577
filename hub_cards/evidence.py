"""What a judge's files say of it: how good it is, and the data that it was fitted on, with whose they are."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from inspector_pipeline.configuration_inspector import InspectorConfig
from inspector_pipeline.errors import DataFileError

METRICS = ("auroc", "macro_f1", "spearman")

Intervals = dict[str, dict[str, dict[str, float]]]


def compared_metrics(entry: Mapping[str, Any]) -> Intervals | None:
    """Read how good a judge is, of an aspect's entry or of the mean.

    Args:
        entry: Metric -> value with its interval; `surface` and `gain_over_surface` hold the like of the surface
            baseline and of the paired gain over it.

    Returns:
        Metric -> judge, surface and gain -> value, low and high; None where any is missing.
    """
    surface, gain = entry.get("surface", {}), entry.get("gain_over_surface", {})
    if not all(name in part for name in METRICS for part in (entry, surface, gain)):
        return None
    return {name: {"judge": entry[name], "surface": surface[name], "gain": gain[name]} for name in METRICS}


def evidence_gaps(config: InspectorConfig, results: Mapping[str, Any] | None) -> list[str]:
    """Name the aspects without evidence: a metric with its interval and baselines beside it."""
    entries = (results or {}).get("aspects", {})
    named = ((aspect.name, entries.get(aspect.name, {})) for aspect in config.parsed_aspects)
    return [name for name, entry in named if compared_metrics(entry) is None and "preference" not in entry]


@dataclass(frozen=True)
class DataSource:
    """One file of data.

    Attributes:
        name: The file's name.
        what: What it holds, in a few words; empty where that is not recorded.
        sha256: Of the file; empty where it was not at hand.
        license: SPDX id of its licence; None where none was found.
        hub_id: Its dataset on the Hub; None where it has none.
        domain: What its questions are about; None where it does not say.
        teacher: The model that gave the labels; None where it holds none.
        generator: The model that wrote the responses; None where it holds none.
        citation: A paper or page to cite; None for none.
    """

    name: str
    what: str = ""
    sha256: str = ""
    license: str | None = None
    hub_id: str | None = None
    domain: str | None = None
    teacher: str | None = None
    generator: str | None = None
    citation: str | None = None


PAPER = "Representation-as-a-Judge (INSPECTOR), ICLR 2026, arXiv 2601.22588."
LAGER_PAPER = "LAGER, NeurIPS 2025, arXiv 2508.03550."
PAPER_URL = "https://arxiv.org/abs/2601.22588"

PUBLISHED_LABELS = DataSource(
    name="Meta-Llama-3-8B-Instruct_gsm8k_roscoe5dim_probing.json",
    what="the probing set published with Representation-as-a-Judge, responses to questions of GSM8K's train set",
    sha256="23eddcc0a655796c110cd67dd19e378233d4d364f947bfb28a67bf7e6fe04c1e",
    domain="grade-school mathematics",
    teacher="DeepSeek-V3",
    generator="Meta-Llama-3-8B-Instruct",
    citation=PAPER,
)
GSM8K_TRAIN = DataSource(
    name="gsm8k_train.jsonl",
    what="GSM8K's train set",
    sha256="17f347dc51477c50d4efb83959dbb7c56297aba886e5544ee2aaed3024813465",
    license="mit",
    hub_id="openai/gsm8k",
    domain="grade-school mathematics",
    citation="Cobbe et al., Training Verifiers to Solve Math Word Problems (GSM8K), arXiv 2110.14168.",
)
KNOWN_FILES = {source.sha256: source for source in (PUBLISHED_LABELS, GSM8K_TRAIN)}


def data_sources(results: Mapping[str, Any]) -> list[DataSource]:
    """List a judge's data: what its results say, else what is known of its input files by their sha256.

    Args:
        results: A results.json. `sources`, a list of objects with the keys of `DataSource`, says it outright;
            `extract.inputs` maps the names of input files to their sha256.

    Raises:
        DataFileError: `sources` has an unknown key, or a source has no name.
    """
    inputs: Mapping[str, str] = results.get("extract", {}).get("inputs", {})
    stated = results.get("sources")
    if stated is None:
        return [KNOWN_FILES.get(sha, DataSource(name, sha256=sha)) for name, sha in inputs.items()]
    known = {field.name for field in fields(DataSource)}
    for source in stated:
        unknown = sorted(source.keys() - known)
        if unknown or not source.get("name"):
            raise DataFileError(
                f"results.json: a source expects a name and any of {', '.join(sorted(known))}, but got {source!r:.200}."
            )
    return [DataSource(**source) for source in stated]
