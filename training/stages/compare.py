"""Compare ways of judging in the same folds: quality with paired tests, and cost.

    python -m training compare --pairs work/labelled.jsonl --output work/compare --judge length

`--config training/configs/compare.yaml` compares all methods.

Every method predicts the rows that a fold holds out, from fits on its training rows alone. The quality of each, the
gain of the judge over it on the rows that both predict, the seconds and floating-point operations of scoring a pair,
and the budget that it was given go into results.json, table.md and quality_cost.png; learning curves, where they are
asked for, into learning_curve.png. A method that is done is not run again.
"""

import logging
from pathlib import Path
from typing import Any

from inspector_pipeline.files.disk import json_text, write_atomically

from ..evaluation.comparison import Comparison
from ..evaluation.comparison_config import CompareConfig as Config
from ..evaluation.metrics import DEFINITIONS
from ..evaluation.tables import plot, plot_curves, report, table

logger = logging.getLogger(__name__)


def run(config: Config) -> dict[str, Any]:
    """Run the stage.

    Returns:
        The content of results.json.

    Raises:
        DataFileError: An input cannot be read or does not fit the pairs.
        SettingsError: A method is unknown.
        BackboneError: A model cannot be loaded.
    """
    comparison = Comparison(config)
    outcomes = comparison.outcomes()
    results = report(outcomes, comparison.labels, config.judge, config.bootstraps, config.seed)
    results["protocol"] = {
        "cross_validation": f"{config.folds} folds by question id over all aspects, stratified by label, seed "
        f"{config.seed}; 1 repeat",
        "intervals": f"95 %, percentile, {config.bootstraps} resamples of questions, the same for all methods",
        "tests": "two-sided, the share of resamples on the other side of no difference, doubled; not corrected for the "
        "number of methods",
        "metrics": {name: DEFINITIONS[name] for name in ("auroc", "spearman", "macro_f1")},
        "cost": f"scoring a pair on all aspects, timed on {config.timed_pairs} pairs, warm, once all methods had "
        "predicted; operations by formula, two for each weight and token, and those of attention",
    }
    if config.learning_curve:
        results["learning_curve"] = comparison.learning_curve(outcomes)
    output = Path(config.output)
    write_atomically(output / "results.json", json_text(results))
    write_atomically(output / "table.md", table(results))
    plot(results, output / "quality_cost.png")
    if config.learning_curve:
        plot_curves(results["learning_curve"], output / "learning_curve.png")
    logger.info("%s", table(results))
    return results
