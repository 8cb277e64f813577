"""Match verified answers, so that only the work tells right from wrong.

Verified rows hold question, prediction, generator and correct (0 or 1), and where there are several kinds of question
their domain. Of them as many are kept as can be matched (rows/contrast.py says how): neither question, generator,
domain nor length tells right from wrong any more. What each alone still gives is printed; where one gives more than
.55 AUROC, nothing is written.

Questions are named by their text. With `--held-out` a share of them goes to files of their own, which no fit may use.
Other stages take all rows of the same questions, matched or not.

Example:
    python -m training contrast --rows "verified/*.jsonl.gz" --output fit.jsonl --held-out 0.3 --held-out-output t.jsonl
"""

import logging
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from inspector_pipeline.errors import SettingsError
from inspector_pipeline.files.tables import Row

from ..rows import contrast
from ..rows.contrast import check_matched, split_questions, verified_rows
from ..rows.correctness import CORRECTNESS
from ..rows.records import matching_files, read_records, subset_of, write_records
from ..runs.manifest import Manifest

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Config:
    """What to match.

    Attributes:
        rows: Files of verified rows; a name with * or ? stands for all that it matches.
        output: The matched rows, JSON Lines.
        everything: File for all rows of the questions, matched or not.
        held_out: Share of the questions that goes to the held-out files instead.
        held_out_output: Their matched rows.
        held_out_everything: All their rows.
        domain: What is written as the domain of all rows; their own, by which they are matched, where not given.
        n_questions: How many questions to take, at most, beside the held-out ones.
        seed: Which questions are held out and taken.
    """

    rows: tuple[str, ...]
    output: Path
    everything: Path | None = None
    held_out: float = 0.0
    held_out_output: Path | None = None
    held_out_everything: Path | None = None
    domain: str | None = None
    n_questions: int | None = None
    seed: int = 731


def run(config: Config) -> dict[str, dict[str, float]]:
    """Match rows and write them, with a manifest.

    Returns:
        For each file of matched rows, what each thing alone gives.

    Raises:
        DataFileError: A file cannot be read, a row is no verified one, or the rows cannot be matched.
        SettingsError: The settings contradict each other.
    """
    if not 0 <= config.held_out < 1 or (config.held_out > 0) != (config.held_out_output is not None):
        raise SettingsError(
            f"held_out expects a share of the questions from 0 to below 1 and a held_out_output where it is above 0, "
            f"but got {config.held_out} and {config.held_out_output}."
        )
    paths = matching_files(config.rows)
    manifest = Manifest.of("contrast", config, paths)
    if manifest.is_done(config.output):
        return {}
    read = [row for path in paths for row in read_records(path, ("question", "prediction"))]
    rows, held_out = split_questions(verified_rows(read, ", ".join(config.rows)), config.held_out, config.seed)
    rows = subset_of(rows, config.n_questions, config.seed)
    kept, found = contrast.matched(rows), {}
    write = partial(_write, domain=config.domain)
    found[str(config.output)] = write(kept, config.output, matched=True)
    others = [(config.everything, rows), (config.held_out_everything, held_out)]
    if config.held_out_output is not None:
        found[str(config.held_out_output)] = write(contrast.matched(held_out), config.held_out_output, matched=True)
    for path, own in others:
        if path is not None:
            write(own, path, matched=False)
    files = [config.output, config.held_out_output, *(path for path, _ in others)]
    manifest.write(config.output, [path for path in files if path is not None])
    return found


def _write(rows: list[Row], path: Path, *, matched: bool, domain: str | None) -> dict[str, float]:
    found = check_matched(rows, str(path)) if matched else {}
    write_records(rows if domain is None else [row | {"domain": domain} for row in rows], path)
    n_questions, n_right = len({row["id"] for row in rows}), sum(row["scores"][CORRECTNESS] for row in rows)
    gives = "; alone gives: " + ", ".join(f"{name} {value:.3f}" for name, value in found.items()) if found else ""
    logger.info("%s: %d rows (%d right) of %d questions%s", path, len(rows), n_right, n_questions, gives)
    return found
