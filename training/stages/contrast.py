"""Match verified answers, so that only the work tells right from wrong.

Verified rows hold question, prediction, generator and correct (0 or 1), and where there are several kinds of question
their domain. Of them as many are kept as can be matched (rows/contrast.py says how): neither question, generator,
domain nor length tells right from wrong any more. What each alone still gives is printed; where one gives more than
.55 AUROC, nothing is written.

Questions are named by their text. With `--held-out` a share of them goes to a second file, matched by itself, which
no fit may use.

Example:
    python -m training contrast --rows a.jsonl.gz b.jsonl.gz --output fit.jsonl --held-out 0.3 --held-out-output t.jsonl
"""

import logging
from dataclasses import dataclass
from pathlib import Path

from inspector_pipeline.errors import SettingsError
from inspector_pipeline.files.tables import Row

from ..rows.contrast import check_matched, matched, split_questions, verified_rows
from ..rows.correctness import CORRECTNESS
from ..rows.records import read_records, subset_of, write_records
from ..runs.manifest import Manifest

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Config:
    """What to match.

    Attributes:
        rows: Files of verified rows.
        output: Labelled rows, JSON Lines.
        held_out: Share of the questions that goes to `held_out_output` instead.
        held_out_output: Their labelled rows.
        everything: Whether `held_out_output` takes all rows of its questions, matched or not.
        n_questions: How many questions to take, at most.
        seed: Which questions are held out and kept.
    """

    rows: tuple[Path, ...]
    output: Path
    held_out: float = 0.0
    held_out_output: Path | None = None
    everything: bool = False
    n_questions: int | None = None
    seed: int = 731


def run(config: Config) -> dict[str, dict[str, float]]:
    """Match rows and write them, with a manifest.

    Returns:
        For each file written, what each thing alone gives.

    Raises:
        DataFileError: A file cannot be read, a row is no verified one, or the rows cannot be matched.
        SettingsError: The settings contradict each other.
    """
    if not 0 <= config.held_out < 1 or (config.held_out > 0) != (config.held_out_output is not None):
        raise SettingsError(
            f"held_out expects a share of the questions from 0 to below 1 and a held_out_output where it is above 0, "
            f"but got {config.held_out} and {config.held_out_output}."
        )
    manifest = Manifest.of("contrast", config, list(config.rows))
    if manifest.is_done(config.output):
        return {}
    read = [row for path in config.rows for row in read_records(path, ("question", "prediction"))]
    kept, held_out = split_questions(verified_rows(read, "rows"), config.held_out, config.seed)
    found = {str(config.output): _write(matched(subset_of(kept, config.n_questions, config.seed)), config.output)}
    files = [config.output]
    if config.held_out_output is not None:
        rows = held_out if config.everything else matched(held_out)
        found[str(config.held_out_output)] = _write(rows, config.held_out_output, check=not config.everything)
        files.append(config.held_out_output)
    manifest.write(config.output, files)
    return found


def _write(rows: list[Row], path: Path, *, check: bool = True) -> dict[str, float]:
    found = check_matched(rows, str(path)) if check else {}
    write_records(rows, path)
    n_questions, n_right = len({row["id"] for row in rows}), sum(row["scores"][CORRECTNESS] for row in rows)
    gives = "; alone gives: " + ", ".join(f"{name} {value:.3f}" for name, value in found.items()) if found else ""
    logger.info("%s: %d rows (%d right) of %d questions%s", path, len(rows), n_right, n_questions, gives)
    return found
