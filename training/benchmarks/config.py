"""Settings of the benchmark, and the list of its cases."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from inspector_pipeline.errors import SettingsError

DTYPES = ("float32", "bfloat16")
RESPONSES, QUESTION_TOKENS = 8, 300  # of best-of-8
PEERS = ("reward", "modernbert", "minilm", "model2vec", "tfidf")  # other judges that one might take, see peers.py
BEST_OF_LENGTH = 512  # tokens of a pair of best-of-8 in the group `device`
AT_LEAST_ONE = (
    "pairs",
    "reference_pairs",
    "repetitions",
    "reference_repetitions",
    "batch_size",
    "long_pairs",
    "best_of_questions",
    "device_tokens",
)


@dataclass(frozen=True)
class BenchmarkConfig:
    """Settings of the benchmark.

    Attributes:
        probing_set: Labelled pairs in the published format (JSON); its prompts hold the five rubrics. The cases of a
            `device` do without: where it is not given, the words of the package's examples.
        output: Folder to write to; a case that is there already is not run again.
        questions: The dataset's questions (JSON Lines); pairs with other questions are dropped.
        judge: Folder or Hub id of the judge to measure; the embedded one where not given. The other cases run its whole
            backbone.
        other_judges: Further judges of the same backbone that score the same pairs.
        cases: Names or groups of the cases to run; all where not given.
        pairs: How many of the set's first pairs every case of a throughput table reads.
        reference_pairs: How many of these the reference procedure reads, which is slow; 16 fill one of its batches.
        repetitions: Timed repetitions of a case, after one that is not; medians are reported.
        reference_repetitions: Those of the reference procedure, which gets no repetition before them.
        batch_size: Rows of a batch of the padded cases (reference, plain, encoder).
        threads: Threads of a case; as many as there are cores where not given.
        long_pairs: Pairs of 256 tokens or more for the share of the matrix-product ceiling.
        drift_pairs: Pairs of the set on which bfloat16 and shared prefixes are compared with plain float32; 0 for all.
        best_of_questions: Questions of about 300 tokens with eight responses each.
        growth_pairs: Numbers of pairs of 64 tokens for the growth of time and memory.
        growth_lengths: Tokens of a pair for the same.
        growth_dtype: Of the growth cases.
        seed: Of the rubric judge's probes and of all random weights.
        device: Where given (cpu, cuda, cuda:1, mps, ...), the judge alone is measured there, and its scores are
            compared with those of float32 on the CPU; `cases` are then those of the group `device`.
        device_tokens: Tokens of the pairs of such a case, which decide how many pairs it scores.
        device_lengths: Tokens of a pair in these cases.
    """

    output: str
    probing_set: str | None = None
    questions: str | None = None
    judge: str | None = None
    other_judges: tuple[str, ...] = ()
    cases: tuple[str, ...] | None = None
    pairs: int = 16
    reference_pairs: int = 16
    repetitions: int = 3
    reference_repetitions: int = 1
    batch_size: int = 16
    threads: int | None = None
    long_pairs: int = 16
    drift_pairs: int = 200
    best_of_questions: int = 4
    growth_pairs: tuple[int, ...] = (10, 100, 1_000, 10_000)
    growth_lengths: tuple[int, ...] = (64, 128, 256, 512, 1_024, 2_048)
    growth_dtype: Literal["float32", "bfloat16"] = "bfloat16"
    seed: int = 0
    device: str | None = None
    device_tokens: int = 131_072
    device_lengths: tuple[int, ...] = (64, 256, 512, 2_048)

    def __post_init__(self) -> None:
        """Refuse numbers that nothing could be measured with.

        Raises:
            SettingsError: A number is too small, or two judges have one name.
        """
        names = [Path(name).name for name in self.other_judges]
        if len(set(names)) < len(names):
            raise SettingsError(f"other_judges expects judges of different names, but got {', '.join(names)}.")
        for name in (*AT_LEAST_ONE, *([] if self.threads is None else ["threads"])):
            if getattr(self, name) < 1:
                raise SettingsError(f"{name} expects 1 or more, but got {getattr(self, name)}.")
        if self.drift_pairs < 0:
            raise SettingsError(f"drift_pairs expects 0 (all) or more, but got {self.drift_pairs}.")


@dataclass(frozen=True)
class Case:
    """One thing that is measured.

    Attributes:
        name: Also the name of its file.
        group: What it belongs to, and the name of the function that measures it; `--cases` takes either.
        arguments: The function's further arguments, as JSON holds them.
    """

    name: str
    group: str
    arguments: dict[str, Any] = field(default_factory=dict)


def all_cases(config: BenchmarkConfig) -> list[Case]:
    """List every case, in the order in which they run: the ones that are compared stand close together."""
    if config.device is not None:
        works = [(f"{n}", {"length": n}) for n in config.device_lengths]
        works.append((f"best-of-{RESPONSES}", {"length": BEST_OF_LENGTH, "responses": RESPONSES}))
        measured = [Case(f"device-{name}", "device", arguments) for name, arguments in works]
        return [*_in_both_dtypes(measured), Case("device_parity", "device_parity")]
    same_pairs = [
        Case("judge", "judge"),
        *(Case(f"judge-{Path(name).name}", "judge", {"name": name}) for name in config.other_judges),
        *(Case(group, group) for group in ("rubric", "plain", "encoder")),
    ]
    int8 = Case("judge-int8", "judge", {"dtype": "float32", "engine": "torch-int8"})
    batches = dict.fromkeys((1, config.batch_size))
    responses = [Case(f"best_of_8-{m}", "best_of_8", {"mode": m}) for m in ("together", "unrelated", "alone")]
    long = [Case(f"ceiling-{layers}", "ceiling", {"layers": layers}) for layers in ("judge", "qwen3")]
    return [
        Case("start", "start"),
        *_in_both_dtypes(same_pairs),
        int8,
        *(Case(f"peer-{name}", "peer", {"name": name}) for name in PEERS),
        *(Case(f"reference-batch-{size}", "reference", {"batch_size": size}) for size in batches),
        *_in_both_dtypes(responses),
        *_in_both_dtypes([*long, Case("profile", "profile")]),
        *(Case(f"growth-pairs-{n}", "growth", {"pairs": n, "length": 64}) for n in config.growth_pairs),
        *(Case(f"growth-length-{n}", "growth", {"pairs": None, "length": n}) for n in config.growth_lengths),
        Case("drift", "drift"),
    ]


def _in_both_dtypes(cases: list[Case]) -> list[Case]:
    return [
        Case(f"{case.name}-{dtype}", case.group, {"dtype": dtype, **case.arguments})
        for dtype in DTYPES
        for case in cases
    ]


def chosen_cases(config: BenchmarkConfig) -> list[Case]:
    """Pick the cases that the settings name.

    Raises:
        SettingsError: A name is neither a case nor a group, or there is nothing to score.
    """
    if config.probing_set is None and config.device is None:
        raise SettingsError(
            "probing_set expects labelled pairs in the published format, but none was given. Name such a file, or name "
            "a device to measure the judge there on pairs that are made up."
        )
    cases = all_cases(config)
    if config.cases is None:
        return cases
    known = {name for case in cases for name in (case.name, case.group)}
    unknown = [name for name in config.cases if name not in known]
    if unknown or not config.cases:
        found = repr(unknown[0]) if unknown else "none"
        raise SettingsError(f"cases expects names or groups out of {', '.join(sorted(known))}, but got {found}.")
    return [case for case in cases if {case.name, case.group} & set(config.cases)]
