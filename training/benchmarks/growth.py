"""How time and memory grow with the number of pairs and with their length: one stream of pairs a process, once."""

from .inputs import Inputs
from .measure import Measurement, measure
from .ours import work_of

PAIRS_PER_LENGTH = 16


def growth(inputs: Inputs, pairs: int | None, length: int) -> Measurement:
    """Score made-up pairs of one length, as a stream of which nothing is kept.

    Args:
        inputs: The run's.
        pairs: How many; None for as many as every length gets.
        length: Tokens of each in the chat reading.
    """
    dtype = inputs.config.growth_dtype
    loaded = inputs.load_judge(dtype)
    made = list(inputs.pairs_of(length, pairs or PAIRS_PER_LENGTH))

    def run() -> int:
        return sum(1 for _ in loaded(iter(made)))

    work = work_of(inputs, loaded, made, dtype)
    return measure(
        run,
        work,
        repetitions=1,
        warm_up=lambda: loaded(made[:2]),
        details=lambda n: {"length": length, "scored": n, "mean_tokens": work.chat_tokens / work.pairs},
    )
