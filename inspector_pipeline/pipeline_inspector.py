"""The `inspector-judge` pipeline: pairs in, one result a pair out, always of the same shape."""

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import islice
from typing import Any, TypeVar, cast

import torch
from torch.utils.data import DataLoader, IterableDataset
from transformers import AutoModel, Pipeline
from transformers.utils import logging as hf_logging

from .batches import WINDOW_ROWS, windows
from .encoded import EncodedPair
from .engine import FeatureReader
from .errors import BackboneError, PairError
from .explain import Explainer, Explanations
from .familiarity import FactFinder, PairFacts, why_unfamiliar
from .pair_encoder import PairEncoder
from .pair_tokenizer import PairTokenizer
from .pairs import EXPECTED, check_pair
from .progress import Progress, Sizes, Tally
from .results import EXPLANATION, SETS
from .rows import SAMPLE_ROWS, RowReader

TASK = "inspector-judge"

T = TypeVar("T")
Encode = Callable[..., dict[str, EncodedPair]]
_PROGRESS_DELAY_S = 2.0  # shorter jobs show no bar


class InspectorPipeline(Pipeline):
    """Score (question, response) pairs.

    Takes a dict, a list, a generator or other iterable, a torch Dataset (KeyDataset) or a `datasets.Dataset` of
    `{"question", "prediction"}`, or of rows as other tools write them (rows.py), with one response each; a judge whose
    readings all hold the question alone needs no prediction, one that reads a reference or a context needs these. A
    dict gives one result, a list a list, everything else an iterator, all in input order. A result is always

        {"scores": {aspect: int}, "total_score": int, "expected": {aspect: float},
         "expected_total": float | None, "probabilities": {aspect: {class: float}}, "truncated": bool,
         "unfamiliar": bool | None, "unfamiliar_reason": str | None, "seen": bool | None}

    where `total_score` sums the aspects that count, `expected` is the mean score under `probabilities`,
    `expected_total` the sum of those that count (None where none does), and `truncated` says whether the pair was
    longer than the judge's limit and was cut. `unfamiliar` says whether the pair is unlike what the judge was fitted
    on, `unfamiliar_reason` why, and `seen` whether the judge was fitted on its question; they are None where the judge
    cannot say. A judge that was calibrated with score sets adds `score_sets`, {aspect: [class, ...]}.

    Args of a call, or of the constructor as defaults:
        batch_size: Pairs to read ahead and score together, in input order; None (the default) is 256, of which passes
            form up to a token budget, which is the fastest. Give 1 to score a live stream.
        num_workers: Processes that tokenise; 0 tokenises in this one.

    A call also takes `share_prefixes`: whether tokens that pairs scored together have in common at their beginning (one
    question with many responses, say) are read once. True by default; in float32 it changes no score. `columns` says
    which of the rows' columns hold the texts where names do not, as in `{"question": "q", "prediction": "a"}`; `strict`
    refuses rows with a reference or a context that the judge does not read; and `explain` asks for an `explanation`,
    aspect -> what each token adds to its decision value (`Explainer.explain`).

    Example:
        >>> import inspector_pipeline
        >>> from transformers import pipeline
        >>> judge = pipeline("inspector-judge")  # doctest: +SKIP
        >>> judge({"question": "What is 2 + 2?", "prediction": "2 + 2 = 4."})["scores"]  # doctest: +SKIP
    """

    _load_tokenizer = None  # a judge of probes only has none of its own
    _load_processor = False
    _load_image_processor = False
    _load_video_processor = False
    _load_feature_extractor = False

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """Take a judge and its tokenizer; a judge without one uses its backbone's."""
        super().__init__(*args, **kwargs)
        self.tokenizer: Any
        if self.tokenizer is None:
            self.tokenizer = self.model.load_tokenizer()
        config = self.model.config
        self.encode = PairEncoder(
            {
                name: PairTokenizer(template, self.tokenizer, config.max_length, self.model.finders(name))
                for name, template in config.parsed_readings.items()
            },
            _fact_finder(self.model),
        )
        self._familiar = config.parsed_familiar
        self._sets = {name: one for name, one in config.parsed_calibration.items() if one.coverage is not None}
        self._aspects = config.parsed_aspects
        self._said: set[str] = set()
        self._reader: tuple[tuple[Any, ...], FeatureReader] | None = None
        self._turn = threading.Lock()  # passes and the reader's making have a state; threads take turns

    def __call__(
        self,
        inputs: Any,
        *args: Any,
        num_workers: int | None = None,
        batch_size: int | None = None,
        share_prefixes: bool = True,
        columns: Mapping[str, str] | None = None,
        strict: bool = False,
        explain: bool = False,
        **kwargs: Any,
    ) -> Any:
        """Score one pair or many; see the class.

        Raises:
            PairError: A pair is not what a judge accepts. For a list, all are checked before any is scored.
            DataFileError: Rows may be meant in several ways; the message lists them.
            TypeError: An argument is unknown.
        """
        if args:
            raise TypeError(
                f"InspectorPipeline expects pairs as its one positional argument, but got {len(args)} more."
            )
        self._sanitize_parameters(**kwargs)
        batch_size = self._batch_size if batch_size is None else batch_size
        num_workers = (self._num_workers or 0) if num_workers is None else num_workers
        if batch_size is not None and (not isinstance(batch_size, int) or batch_size < 1):
            raise ValueError(f"batch_size expects a positive whole number or None, but got {batch_size!r}.")
        options: dict[str, Any] = {"share_prefixes": share_prefixes, "explain": explain}
        keep = {"keep_places": True} if explain else {}
        reader = self.row_reader(columns, strict=strict, several=False)
        if isinstance(inputs, Mapping):
            return next(self.get_iterator([inputs], 0, 1, {"read": reader.read, **keep}, options, {}))
        if isinstance(inputs, list):
            reader.settle(inputs[:SAMPLE_ROWS])
            if not reader.is_as_named:
                inputs = [reader.read(row) if isinstance(row, Mapping) else row for row in inputs]
            for index, pair in enumerate(inputs):
                check_pair(pair, index, self.encode.keys)
            tally = Tally(len(inputs), [*map(Sizes(self.encode.keys, self.encode.encoders.values()), inputs)])
            is_silent = not hf_logging.is_progress_bar_enabled()
            with Progress("score", tally, delay=_PROGRESS_DELAY_S, disable=is_silent) as bar:
                options["progress"] = bar
                return list(self.get_iterator(inputs, num_workers, batch_size, {"checked": True, **keep}, options, {}))
        if type(inputs).__module__.split(".")[0] == "pandas":
            raise PairError("A judge expects rows as dicts, but got a pandas object. Pass df.to_dict('records').")
        if isinstance(inputs, (str, bytes, tuple, set)) or not (
            hasattr(inputs, "__getitem__") or isinstance(inputs, Iterable)
        ):
            raise PairError(
                f"A judge expects {EXPECTED}, or a list, generator or dataset of such pairs, but got "
                f"{type(inputs).__name__}: {inputs!r:.80}."
            )
        results = self.get_iterator(inputs, num_workers, batch_size, {"read": reader.read, **keep}, options, {})
        return _SizedResults(results, len(inputs)) if hasattr(inputs, "__len__") else results

    def row_reader(self, columns: Mapping[str, str] | None = None, **options: Any) -> RowReader:
        """Make what reads rows for this judge; what it takes for what is said once in the pipeline's life."""
        return RowReader(columns, self.encode.keys, where="The rows", said=self._said, **options)

    def _sanitize_parameters(self, **kwargs: Any) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
        """Refuse what is not an argument of this pipeline."""
        kwargs.pop("local_files_only", None)  # pipeline() hands on this one, which it has used already
        if kwargs:
            raise TypeError(
                "InspectorPipeline knows the arguments columns, strict, batch_size, num_workers, share_prefixes and "
                f"explain, but got {', '.join(kwargs)}."
            )
        return {}, {}, {}

    def preprocess(self, input_: Any, index: int | None = None, **options: Any) -> dict[str, EncodedPair]:
        """Check a pair, where that is not done, and tokenise it under every reading; the options are the encoder's."""
        return self.encode(input_, index, **options)

    def _forward(self, input_tensors: dict[str, Any]) -> dict[str, Any]:
        """Run the judge on a window of encoded pairs; what comes back is on the host, as plain numbers."""
        with self._turn:
            return self._forward_alone(input_tensors)

    def _forward_alone(self, input_tensors: dict[str, Any]) -> dict[str, Any]:
        explanations, reader = input_tensors["explanations"], self.reader
        reader.on_pass = input_tensors["on_pass"]
        features = reader(
            input_tensors["pairs"],
            share_prefixes=input_tensors["share_prefixes"],
            shares=explanations and explanations.shares,
        )
        found = {
            check.pooling: [bool(pair[check.reading].checks[check.pooling]) for pair in input_tensors["pairs"]]
            for check in self.model.checks
        }
        output = self.model.decide(features | self.model.checked(found))
        if explanations is not None:
            explanations.decision_values = [values.tolist() for values in output.decision_values]
        finite = torch.stack([values.isfinite().all(dim=1) for values in output.decision_values]).all(dim=0)
        columns = [output.scores, finite.unsqueeze(1), output.expected, *output.probabilities]
        # float64 holds the scores and float32 numbers exactly; joined, they cross to the host in one copy.
        joined = torch.cat([column.double() for column in columns], dim=1).cpu()
        scores, finite, expected, *probabilities = torch.split(joined, [column.shape[1] for column in columns], dim=1)
        return {
            "distance": [None] * len(scores) if output.distance is None else output.distance.tolist(),
            "scores": self._levels(scores),
            "finite": finite.flatten().bool().tolist(),
            "expected": expected.tolist(),
            "probabilities": [values.tolist() for values in probabilities],
        }

    def _levels(self, scores: torch.Tensor) -> list[Any]:
        """Return what results call the classes, (rows, aspects): whole numbers, others, or words."""
        if all(aspect.has_plain_scores for aspect in self._aspects):
            return scores.long().tolist()
        columns = []
        for aspect, column in zip(self._aspects, scores.T, strict=True):  # float32 holds 0.1 not exactly
            places = (column[:, None] - torch.tensor(aspect.classes, dtype=column.dtype)).abs().argmin(dim=1)
            columns.append([aspect.levels[place] for place in places.tolist()])
        return list(zip(*columns, strict=True))

    @property
    def reader(self) -> FeatureReader:
        """What reads features for this judge; made again when the backbone or its weights change."""
        backbone = self.model.loaded_backbone
        state = (id(backbone), backbone.device, *(parameter._version for parameter in backbone.parameters()))
        if self._reader is None or self._reader[0] != state:
            reader = FeatureReader(
                backbone,
                self.model.final_norm,
                self.model.features,
                self.encode.encoders,
                rms_norm_eps=self.model.config.rms_norm_eps,
                pad_id=self.tokenizer.pad_token_id or 0,
            )
            self._reader = state, reader
        return self._reader[1]

    def postprocess(self, model_outputs: dict[str, Any]) -> dict[str, Any]:
        """Shape one pair's result from plain numbers.

        Raises:
            BackboneError: The judge gave no finite number, as float16 may where states overflow.
        """
        expected, probabilities = model_outputs["expected"], model_outputs["probabilities"]
        if not model_outputs["finite"]:
            raise BackboneError(
                f"A judge expects finite states, but got expected scores {expected} in {self.model.dtype}. Load "
                "it with dtype=torch.float32 or torch.bfloat16."
            )
        facts, own, reason = model_outputs["facts"], self._familiar, None
        if own is not None:
            reason = why_unfamiliar(own.text, own.threshold, facts.statistics, model_outputs["distance"])
        scores = dict(zip((aspect.name for aspect in self._aspects), model_outputs["scores"], strict=True))
        by_aspect = dict(zip(scores, expected, strict=True))
        counting = [aspect.name for aspect in self._aspects if aspect.counts_in_total]
        shares = {
            aspect.name: dict(zip(aspect.levels, values, strict=True))
            for aspect, values in zip(self._aspects, probabilities, strict=True)
        }
        sets = {name: one.score_set(shares[name]) for name, one in self._sets.items()}
        return {
            "scores": scores,
            "total_score": sum(a.number(scores[a.name]) for a in self._aspects if a.counts_in_total),
            "expected": by_aspect,
            "expected_total": sum(by_aspect[name] for name in counting) if counting else None,
            "probabilities": shares,
            "truncated": model_outputs["truncated"],
            "unfamiliar": None if self._familiar is None else reason is not None,
            "unfamiliar_reason": reason,
            "seen": facts.seen,
            **({SETS: sets} if sets else {}),
        }

    def get_iterator(
        self,
        inputs: Any,
        num_workers: int,
        batch_size: int | None,
        preprocess_params: dict[str, Any],
        forward_params: dict[str, Any],
        postprocess_params: dict[str, Any],
    ) -> Iterator[dict[str, Any]]:
        """Score any iterable of pairs in input order; passes form inside windows of input rows."""
        sized = (
            hasattr(inputs, "__getitem__") and hasattr(inputs, "__len__") and not isinstance(inputs, IterableDataset)
        )
        encode: Encode = partial(self.encode, **preprocess_params)
        pairs: Iterable[dict[str, EncodedPair]]
        if num_workers and sized:
            row = partial(_encode_row, inputs, encode)
            pairs = DataLoader(cast(Any, range(len(inputs))), batch_size=None, num_workers=num_workers, collate_fn=row)
        elif num_workers:
            # More than one worker would each walk the whole stream.
            pairs = DataLoader(_EncodedStream(inputs, encode), batch_size=None, num_workers=1)
        else:
            rows = (inputs[i] for i in range(len(inputs))) if sized else inputs
            pairs = (encode(row, index) for index, row in enumerate(rows))
        ahead = windows(pairs, batch_size or WINDOW_ROWS)
        # Rows that are read by number can be read ahead; reading a stream ahead would disturb its owner.
        progress: Progress | None = forward_params.get("progress")
        options = {key: value for key, value in forward_params.items() if key != "progress"}
        for window in _one_ahead(ahead) if sized else ahead:
            if progress is not None:
                progress.begin(len(window), sum(len(one.input_ids) for pair in window for one in pair.values()))
                options["on_pass"] = progress.passed
            yield from self.score_encoded(window, **options)

    def score_encoded(
        self,
        window: list[dict[str, EncodedPair]],
        *,
        share_prefixes: bool = True,
        explain: bool = False,
        on_pass: Callable[[int], None] | None = None,
    ) -> Iterator[dict[str, Any]]:
        """Score pairs that `encode` gave, together.

        Args:
            window: At most a few hundred pairs, all of which are in memory at once.
            share_prefixes: As in a call.
            explain: As in a call; the pairs were encoded with `keep_places`.
            on_pass: Told after each pass of the tokens of the pairs that it read.

        Yields:
            A result a pair, in order. They depend on nothing but this window.

        Raises:
            BackboneError: A pair's states are not finite.
        """
        explanations = Explanations(Explainer(self.model)) if explain else None
        inputs = {"pairs": window, "share_prefixes": share_prefixes, "explanations": explanations, "on_pass": on_pass}
        output = self.forward(inputs)
        output["probabilities"] = zip(*output["probabilities"], strict=True)
        output["truncated"] = [any(encoded.truncated for encoded in pair.values()) for pair in window]
        unknown = PairFacts(None, None)
        output["facts"] = [getattr(pair, "facts", None) or unknown for pair in window]
        for row, values in enumerate(zip(*output.values(), strict=True)):
            result = self.postprocess(dict(zip(output, values, strict=True)))
            if explanations is not None:
                result[EXPLANATION] = explanations.of(row, window[row])
            yield result

    def save_pretrained(self, save_directory: Any, *, fused: bool = True, **kwargs: Any) -> None:
        """Write the judge and what runs it.

        Args:
            save_directory: Folder; made where it is missing.
            fused: True writes truncated backbone, probes and tokenizer; False the probes alone, to which backbone and
                tokenizer are loaded by the backbone's id.
            **kwargs: For the model's and the tokenizer's `save_pretrained`.
        """
        if fused:
            super().save_pretrained(save_directory, **kwargs)
        else:
            tokenizer, self.tokenizer = self.tokenizer, None
            try:
                super().save_pretrained(save_directory, fused=False, **kwargs)
            finally:
                self.tokenizer = tokenizer


def _fact_finder(model: Any) -> FactFinder | None:
    """Return what finds out what a judge wants to know of texts; None where it wants nothing."""
    words = None if model.familiar is None else frozenset(model.familiar.words.tolist())
    questions = None if model.seen_questions is None else frozenset(model.seen_questions.tolist())
    return FactFinder(words, questions) if words is not None or questions is not None else None


def _one_ahead(items: Iterator[T]) -> Iterator[T]:
    """Make the next item in another thread while the present one is worked on: tokenising while a pass runs."""
    with ThreadPoolExecutor(max_workers=1) as executor:
        coming = executor.submit(lambda: list(islice(items, 1)))
        while found := coming.result():
            coming = executor.submit(lambda: list(islice(items, 1)))
            yield from found


class _SizedResults(Iterator[dict[str, Any]]):
    """Results of a dataset: an iterator that knows its length, so that tqdm does too."""

    def __init__(self, results: Iterator[dict[str, Any]], length: int) -> None:
        self._results = results
        self._length = length

    def __len__(self) -> int:
        return self._length

    def __next__(self) -> dict[str, Any]:
        return next(self._results)


def _encode_row(rows: Any, encode: Encode, index: int) -> dict[str, EncodedPair]:
    return encode(rows[index], index)


class _EncodedStream(IterableDataset[dict[str, EncodedPair]]):
    def __init__(self, rows: Iterable[Any], encode: Encode) -> None:
        self.rows = rows
        self.encode = encode

    def __iter__(self) -> Iterator[dict[str, EncodedPair]]:
        return (self.encode(row, index) for index, row in enumerate(self.rows))


# What save_pretrained writes into config.json; set here, so that a pipeline which was itself loaded from a repo's code
# writes it too, and no path of this machine goes along.
InspectorPipeline._registered_impl = {TASK: {"impl": InspectorPipeline, "pt": (AutoModel,)}}
