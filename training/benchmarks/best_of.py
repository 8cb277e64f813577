"""Best-of-8: eight responses to each of a few long questions, scored together, as unrelated pairs, and one by one."""

from collections.abc import Callable
from itertools import cycle, islice
from typing import Any

from inspector_pipeline.packing import prefix_tree
from inspector_pipeline.pipeline_inspector import InspectorPipeline

from .inputs import Inputs, Pair
from .measure import Measurement, measure
from .ours import Result, scores_of, work_of

RESPONSES = 8
QUESTION_TOKENS = 300

MODES: dict[str, Callable[[InspectorPipeline, list[Pair]], list[Result]]] = {
    # one call; what pairs have in common at their beginning, the question foremost, is read once
    "together": lambda judge, pairs: judge(pairs),
    # one call; every pair is read whole, in the same batches as pairs of different questions
    "unrelated": lambda judge, pairs: judge(pairs, share_prefixes=False),
    # a call for each pair
    "alone": lambda judge, pairs: [judge(pair) for pair in pairs],
}


def best_of(inputs: Inputs, dtype: str, mode: str) -> Measurement:
    """Score eight responses a question.

    Args:
        inputs: The run's.
        dtype: Of the judge.
        mode: One of `MODES`.
    """
    pairs = best_of_pairs(inputs)
    loaded = inputs.load_judge(dtype)
    run = MODES[mode]

    def details(results: list[Result]) -> dict[str, Any]:
        told = {"questions": inputs.config.best_of_questions, "responses": RESPONSES}
        return {**scores_of(results), **told, "times_fewer_tokens": times_fewer_tokens(loaded, pairs)}

    return measure(
        lambda: run(loaded, pairs),
        work_of(inputs, loaded, pairs, dtype),
        repetitions=inputs.config.repetitions,
        warm_up=lambda: run(loaded, pairs[:2]),
        details=details,
    )


def times_fewer_tokens(loaded: InspectorPipeline, pairs: list[Pair]) -> float:
    """Return how many times fewer tokens are read together than one by one: about what there is to gain."""
    alone = together = 0
    for encoder in loaded.encode.encoders.values():
        sequences, opening = [encoder(**pair).input_ids for pair in pairs], len(encoder.opening_ids)
        alone += sum(len(ids) - opening for ids in sequences)
        together += sum(len(node.ids) for node in prefix_tree(sequences, opening).nodes)
    return alone / together


def best_of_pairs(inputs: Inputs) -> list[Pair]:
    """Join the set's questions until they are long enough, and give each eight of the set's responses."""
    stream = cycle(inputs.all_pairs)
    pairs = []
    for _ in range(inputs.config.best_of_questions):
        question = ""
        while len(inputs.tokenizer(question)["input_ids"]) < QUESTION_TOKENS:
            question = f"{question}\n\n{next(stream)['question']}".strip()
        pairs += [{"question": question, "prediction": pair["prediction"]} for pair in islice(stream, RESPONSES)]
    return pairs
