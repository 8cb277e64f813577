"""Run the whole chain: extract, evaluate, export.

python -m training.make_judge --probing-set probing.json --questions gsm8k_train.jsonl --output work/judge
"""

import argparse
import logging
from pathlib import Path

from training.evaluate import EvaluateConfig, evaluate, report
from training.export import export
from training.extract import ExtractConfig, extract, load_features
from training.reference_protocol import reference_protocol
from training.stage import run

logger = logging.getLogger(__name__)


def make_judge(
    extract_config: ExtractConfig,
    evaluate_config: EvaluateConfig,
    output: Path,
    *,
    fused: bool = False,
    with_reference: bool = False,
) -> None:
    """Make a judge with its evidence.

    Args:
        extract_config: Settings of the extract stage, whose output folder is used again where it is complete.
        evaluate_config: Settings of fit and evaluate.
        output: The judge's folder.
        fused: Whether the truncated backbone goes into it.
        with_reference: Whether to run the published protocol too, one pass per aspect, and put it in the evidence.
    """
    extract(extract_config)
    features = load_features(extract_config.output)
    results = evaluate(features, evaluate_config)
    logger.info(report(results))
    reference = reference_protocol(extract_config) if with_reference else None
    model = export(features, results, output, fused=fused, reference=reference)
    logger.info("Wrote a judge of depth %d to %s.", model.config.depth, output)


def main() -> None:
    """Parse arguments and run the chain."""
    parser = argparse.ArgumentParser(prog="python -m training.make_judge", description=__doc__)
    parser.add_argument("--probing-set", required=True, help="labelled pairs, JSON in the published format")
    parser.add_argument(
        "--questions", help="the dataset's questions, JSON Lines; pairs with other questions are dropped"
    )
    parser.add_argument("--work", default="work/features", help="folder for the features (%(default)s)")
    parser.add_argument("--output", required=True, help="the judge's folder")
    parser.add_argument("--with-reference", action="store_true", help="also run the published protocol (slow)")
    parser.add_argument("--fused", action="store_true", help="put the truncated backbone into it")
    parser.add_argument("--candidates-tried", type=int, default=0, help="settings looked at on this data before")
    args = parser.parse_args()
    extracting = ExtractConfig(args.probing_set, args.work, args.questions)
    evaluating = EvaluateConfig(candidates_tried=args.candidates_tried)
    make_judge(extracting, evaluating, Path(args.output), fused=args.fused, with_reference=args.with_reference)


if __name__ == "__main__":
    run(main)
