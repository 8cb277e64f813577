"""Does filtering help a student? Fine-tune one on the best, random and all rows.

    python -m training ablation --config training/configs/ablation.yaml --scored scored.jsonl \
        --questions test_questions.jsonl --output work/ablation

Every arm starts from the same student (LoRA, loss on the response alone) and answers the same questions with greedy
decoding; math-verify compares its answers with the gold ones. A reply without an answer is wrong, and is counted. The
student as it is, untrained, is tested too. Results are results.json and table.md; what a run of an arm learnt and wrote
stands in a folder of its own. A run that is done is not done again.
"""

import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from inspector_pipeline.errors import SettingsError
from inspector_pipeline.files.disk import json_text, write_atomically
from inspector_pipeline.files.tables import Row, read_json
from inspector_pipeline.template import QUESTION_MARK

from ..labelling.endpoint import model_label
from ..labelling.generate import LocalConfig, chat_tokenizer
from ..rows.records import read_records, write_records
from ..runs.manifest import Manifest, manifest_path
from ..students.choose import ARMS, read_gold, read_pool, refuse_leaks
from ..students.report import Outcome, grade, summarize, table
from ..students.train import StudentConfig, answer, student, too_long, train_student

logger = logging.getLogger(__name__)

STAGE = "ablation"
UNTRAINED = "untrained"
ADAPTER_FILES = ("adapter_model.safetensors", "adapter_config.json", "training.json")


@dataclass(frozen=True)
class Config:
    """Settings of the ablation stage.

    Attributes:
        scored: Rows with question, prediction and a score, as `inspector score` writes them. Of a big job's folder:
            `inspector filter FOLDER --top 1 --output scored.jsonl` puts its rows into one file.
        questions: Test questions with final_answer, or answer, the gold solution; none of them among the scored rows.
        output: Folder to write.
        model: The student: Hub id, folder or `pypi:` id of a model with a chat template.
        by: Key of the score to rank by, such as total_score or expected_correctness.
        share: Of the rows that `top` and `random` get, above 0 and below 1.
        arms: What to train on: random, top, all.
        seeds: Each arm is run with each of these; a seed decides all chance in the training, and what `random` draws.
        prompt: User message to the student; {question} stands for the question.
        training: How the student is trained.
        local: How it runs here; batch_size counts test questions.
        max_new_tokens: Longest answer.
        bootstraps: Resamples of the test questions for the intervals of differences.
    """

    scored: str
    questions: str
    output: str
    model: str
    by: str = "total_score"
    share: float = 0.2
    arms: tuple[str, ...] = ARMS
    seeds: tuple[int, ...] = (731,)
    prompt: str = QUESTION_MARK
    training: StudentConfig = field(default_factory=StudentConfig)
    local: LocalConfig = field(default_factory=LocalConfig)
    max_new_tokens: int = 512
    bootstraps: int = 2000

    def __post_init__(self) -> None:
        """Refuse settings that are out of range.

        Raises:
            SettingsError: One is.
        """
        if not 0 < self.share < 1:
            raise SettingsError(f"share expects a number above 0 and below 1, but got {self.share:g}.")
        if not self.arms or not set(self.arms) <= set(ARMS) or len(set(self.arms)) < len(self.arms):
            raise SettingsError(f"arms expects some of {', '.join(ARMS)}, but got {', '.join(self.arms) or 'none'}.")
        if not self.seeds or len(set(self.seeds)) < len(self.seeds):
            raise SettingsError(f"seeds expects different numbers, one at least, but got {list(self.seeds)}.")
        if QUESTION_MARK not in self.prompt:
            raise SettingsError(f"prompt expects {QUESTION_MARK} in it, but got {self.prompt!r:.80}.")


def run(config: Config) -> None:
    """Run the stage.

    Raises:
        DataFileError: A file cannot be read, no row has a score, a question has no gold answer, or a test question is
            trained on.
        SettingsError: An arm would have no rows, or too few for the training.
        BackboneError: The student cannot be used.
    """
    output = Path(config.output)
    manifest = Manifest.of(STAGE, replace(config, model=model_label(config.model)), (config.scored, config.questions))
    if manifest.is_done(output):
        return
    questions, pool = read_gold(config.questions), read_pool(config.scored, config.by)
    refuse_leaks(pool, questions)
    limit = config.training.max_length
    long = too_long(chat_tokenizer(config.model, config.local.revision), config.prompt, pool.rows, limit)
    pool = pool.without(dict.fromkeys(long, f"it has more than {limit} tokens"))
    chosen = {(arm, seed): pool.choose(arm, config.share, seed) for seed in config.seeds for arm in config.arms}
    for rows in chosen.values():  # before the first is trained
        config.training.n_steps(len(rows))
    outcomes = [Outcome(UNTRAINED, None, None, None, _replies(config, questions, output / UNTRAINED, None))]
    for (arm, seed), rows in chosen.items():
        adapter = output / f"{arm}-{seed}" / "adapter"
        summary = _train(config, [pool.rows[i] for i in rows], arm, seed, adapter)
        replies = _replies(config, questions, adapter.parent, adapter)
        outcomes.append(Outcome(arm, seed, pool.described(rows), summary, replies))
    results = {
        "student": _student(config),
        "ranked_by": config.by,
        "share": config.share,
        "held_equal": config.training.held_equal,
        "rows": {"used": len(pool.rows), "left_out": dict(pool.left_out)},
        **summarize(outcomes, config.bootstraps),
    }
    files = [output / "results.json", output / "table.md"]
    write_atomically(files[0], json_text(results))
    write_atomically(files[1], table(results))
    manifest.write(output, files)
    logger.info("%s\nWrote %s and %s.", table(results), *files)


def _student(config: Config) -> dict[str, str | None]:
    return {"model": model_label(config.model), "revision": config.local.revision, "dtype": config.local.dtype}


def _train(config: Config, rows: Sequence[Row], arm: str, seed: int, adapter: Path) -> dict[str, Any]:
    """Train, or read what a training that is done says of itself."""
    share = None if arm == "all" else config.share
    settings = {"arm": arm, "seed": seed, "by": config.by, "share": share, "prompt": config.prompt, **_student(config)}
    manifest = Manifest.of(STAGE, {**settings, "training": asdict(config.training)}, (config.scored,))
    if not manifest.vouches_for(adapter):
        logger.info("Training on %d rows (%s, seed %d).", len(rows), arm, seed)
        with student(config.model, config.local) as loaded:
            summary = train_student(loaded, rows, config.prompt, config.training, seed, adapter)
        write_atomically(adapter / "training.json", json_text(summary))
        manifest.write(adapter, [adapter / name for name in ADAPTER_FILES])
    found: dict[str, Any] = read_json(adapter / "training.json")
    return found


def _replies(config: Config, questions: Sequence[Row], folder: Path, adapter: Path | None) -> list[Row]:
    """Ask and grade, or read the replies of a test that is done."""
    settings = {
        "model": model_label(config.model),
        "local": asdict(config.local),
        "prompt": config.prompt,
        "max_new_tokens": config.max_new_tokens,
    }
    inputs = (config.questions, manifest_path(adapter) if adapter else None)
    manifest, output = Manifest.of(STAGE, settings, inputs), folder / "replies.jsonl"
    if not manifest.vouches_for(output):
        logger.info("Testing %s on %d questions.", folder.name, len(questions))
        texts = [row["question"] for row in questions]
        with student(config.model, config.local, adapter) as loaded:
            found = answer(loaded, texts, config.prompt, config.max_new_tokens, config.local.batch_size)
        write_records(map(grade, questions, found), output)
        manifest.write(output, [output])
    return read_records(output)
