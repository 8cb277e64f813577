"""Feedback first (LAGER's reasoning condition): the whole model justifies its score, which is read as it stands."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from transformers import AutoModelForCausalLM, PreTrainedModel
from transformers.utils import logging as hf_logging

from inspector_pipeline.backbone import backbone_location
from inspector_pipeline.batches import collate, plan_batches
from inspector_pipeline.encoded import EncodedPair
from inspector_pipeline.errors import BackboneError, SettingsError
from inspector_pipeline.files.tables import Row
from inspector_pipeline.heads import aggregate
from inspector_pipeline.pair_tokenizer import PairTokenizer
from inspector_pipeline.pairs import check_pair
from inspector_pipeline.pipeline_inspector import InspectorPipeline
from inspector_pipeline.template import PairTemplate

from .logits import logits_of_encoded, score_tokens_of

MARKER = re.compile(r"(score|\[result\])\W*$", re.IGNORECASE)  # what stands before a score
MORE_NUMBER = re.compile(r"[.,]?\d")  # what would make the token a part of another number
MORE_WORDS = re.compile(r" ?\w")  # and what makes a letter no score: "A good answer"
NO_SCORE = "the reply gives no score"


def load_causal(judge: InspectorPipeline) -> PreTrainedModel:
    """Load the whole model that a judge's backbone is, in the judge's dtype.

    Raises:
        BackboneError: It has no LM head.
    """
    config = judge.model.config
    location, pinned = backbone_location(config.backbone_id, config.backbone_revision, None)
    model, info = AutoModelForCausalLM.from_pretrained(
        location, dtype=judge.model.dtype, output_loading_info=True, **pinned
    )
    if info["missing_keys"]:
        raise BackboneError(
            f"Feedback expects a whole causal model, but {config.backbone_id} lacks {sorted(info['missing_keys'])[0]}."
        )
    return model.eval().to(judge.model.device)


def score_after_feedback(
    judge: InspectorPipeline,
    model: PreTrainedModel,
    readings: Mapping[str, PairTemplate],
    pairs: Sequence[Row],
    *,
    max_new_tokens: int = 256,
    batch_size: int | None = None,
) -> list[dict[str, Any]]:
    """Let the model write feedback on every pair for every aspect, and read the score in it.

    Args:
        judge: A judge of score tokens with its backbone.
        model: The whole model of that backbone.
        readings: Aspect -> reading that ends where the reply begins; for every aspect of the judge.
        pairs: Rows with question and prediction.
        max_new_tokens: Longest reply.
        batch_size: Replies written at once; None fills batches up to a token budget.

    Returns:
        For each pair a judge's result, with `feedback` (aspect -> reply) and `reasons` (aspect -> why there is no
        score). Without a score an aspect's score, expectation and probabilities are None, and so is the total where
        that aspect counts.

    Raises:
        SettingsError: An aspect has no reading.
        PairError: A pair cannot be scored.
    """
    names = [aspect.name for aspect in judge.model.aspects]
    if set(names) != readings.keys():
        raise SettingsError(
            f"Feedback expects a reading for each of the judge's aspects, {', '.join(names)}, but got "
            f"{', '.join(readings)}."
        )
    for index, pair in enumerate(pairs):
        check_pair(pair, index)
    results: list[dict[str, Any]] = [
        {"scores": {}, "total_score": None, "expected": {}, "expected_total": None, "probabilities": {}}
        | {"truncated": False, **dict.fromkeys(("unfamiliar", "unfamiliar_reason", "seen"))}
        | {"feedback": {}, "reasons": {}}
        for _ in pairs
    ]
    for name in names:
        encoder = PairTokenizer(readings[name], judge.tokenizer, judge.model.config.max_length)
        encoded = [encoder(pair["question"], pair["prediction"]) for pair in pairs]
        replies = generate_replies(model, judge.tokenizer, encoded, max_new_tokens, batch_size)
        found = _read_scores(judge, name, encoded, replies)
        for result, pair_read, reply, (score, expected, shares) in zip(results, encoded, replies, found, strict=True):
            result["feedback"][name] = judge.tokenizer.decode(reply, skip_special_tokens=True)
            result["truncated"] |= pair_read.truncated
            result["scores"][name], result["expected"][name], result["probabilities"][name] = score, expected, shares
            if score is None:
                result["reasons"][name] = NO_SCORE
    counted = [aspect.name for aspect in judge.model.aspects if aspect.counts_in_total]
    for result in results:
        for key, kind in (("total_score", "scores"), ("expected_total", "expected")):
            values = [result[kind][name] for name in counted]
            result[key] = None if None in values else sum(values)
        if not counted:
            result["expected_total"] = None
    return results


def _read_scores(
    judge: InspectorPipeline, name: str, encoded: Sequence[EncodedPair], replies: Sequence[list[int]]
) -> list[tuple[int | None, float | None, dict[int, float] | None]]:
    """Read one aspect's score, expectation and probabilities where replies give a score, else three times None."""
    aspect, head = score_tokens_of(judge, name)
    places = [score_position(reply, aspect.head.token_ids, judge.tokenizer) for reply in replies]
    found: list[tuple[int | None, float | None, dict[int, float] | None]] = [(None, None, None) for _ in replies]
    scored = [(i, place) for i, place in enumerate(places) if place is not None]
    if not scored:
        return found
    read = [replace(encoded[i], input_ids=encoded[i].input_ids + replies[i][:place]) for i, place in scored]
    logits = torch.tensor(logits_of_encoded(judge, name, read), dtype=torch.float32)
    decision = head.decide(aggregate(logits.to(head.weight.device), head.layer_weights, head.aggregation))
    decided = zip(scored, decision.class_index.tolist(), decision.probabilities.tolist(), strict=True)
    for (i, _), index, probabilities in decided:
        shares = dict(zip(aspect.classes, probabilities, strict=True))
        found[i] = aspect.classes[index], sum(score * share for score, share in shares.items()), shares
    return found


def generate_replies(
    model: PreTrainedModel,
    tokenizer: Any,
    prompts: Sequence[EncodedPair],
    max_new_tokens: int = 256,
    batch_size: int | None = None,
) -> list[list[int]]:
    """Continue prompts greedily.

    Args:
        model: A causal model.
        tokenizer: Its tokenizer.
        prompts: Token ids.
        max_new_tokens: Longest reply.
        batch_size: Replies written at once; None fills batches up to a token budget.

    Returns:
        The new token ids of each, up to the token that ends the reply.
    """
    replies: list[list[int]] = [[] for _ in prompts]
    ends = model.generation_config.eos_token_id if model.generation_config else None
    stop = {ends} if isinstance(ends, int) else set(ends or ())
    pad_id = tokenizer.pad_token_id or 0
    batches = plan_batches([len(prompt.input_ids) + max_new_tokens for prompt in prompts], batch_size)
    for batch in hf_logging.tqdm(batches, desc="feedback", unit="batch", delay=2.0):
        arguments = collate([prompts[i] for i in batch], pad_id, padding_side="left")
        ids, mask = (arguments[name].to(model.device) for name in ("input_ids", "attention_mask"))
        with torch.inference_mode():
            options = {"max_new_tokens": max_new_tokens, "do_sample": False, "pad_token_id": pad_id}
            written = model.generate(input_ids=ids, attention_mask=mask, **options)[:, ids.shape[1] :]
        for i, reply in zip(batch, written.tolist(), strict=True):
            end = next((place for place, token in enumerate(reply) if token in stop), len(reply))
            replies[i] = reply[:end]
    return replies


def score_position(reply: Sequence[int], token_ids: Sequence[int], tokenizer: Any) -> int | None:
    """Find the last score that a reply gives.

    A score is one of the score tokens after the word "score", or "[RESULT]", and nothing but punctuation; a token that
    goes on as another number, such as the 4 of 4.5, is none, and neither is a letter that words follow.

    Args:
        reply: Token ids.
        token_ids: The score tokens.
        tokenizer: What decodes them.

    Returns:
        The score token's place in the reply, or None.
    """
    for place in range(len(reply) - 1, -1, -1):
        if reply[place] not in token_ids:
            continue
        before, after = tokenizer.decode(reply[:place]), tokenizer.decode(reply[place + 1 :])
        more = MORE_WORDS if tokenizer.decode([reply[place]]).strip().isalpha() else MORE_NUMBER
        if MARKER.search(before) and not more.match(after):
            return place
    return None
