"""What one might take instead of a judge, for speed alone: weights are random, which changes no time.

- `reward`: a reward model of Qwen3-0.6B's shape, `modernbert`: an encoder of ModernBERT-base's, `minilm`: one of
  all-MiniLM-L6's, all three through transformers' text-classification pipeline, as one would run them;
- `model2vec`: static embeddings, and `tfidf`: words and pairs of words, each with a logistic regression.
"""

from collections.abc import Callable
from typing import Any, cast

import numpy as np
import torch
from transformers import AutoModelForSequenceClassification, BertConfig, ModernBertConfig, Qwen3Config, pipeline

from .inputs import Inputs
from .measure import Measurement, Work, measure

CONFIGS: dict[str, tuple[Any, dict[str, int]]] = {
    "reward": (
        Qwen3Config,
        {
            "hidden_size": 1024,
            "intermediate_size": 3072,
            "num_hidden_layers": 28,
            "num_attention_heads": 16,
            "num_key_value_heads": 8,
            "head_dim": 128,
            "num_labels": 1,
        },
    ),
    "modernbert": (
        ModernBertConfig,
        {"hidden_size": 768, "intermediate_size": 1152, "num_hidden_layers": 22, "num_attention_heads": 12},
    ),
    "minilm": (
        BertConfig,
        {
            "hidden_size": 384,
            "intermediate_size": 1536,
            "num_hidden_layers": 6,
            "num_attention_heads": 12,
            "max_position_embeddings": 2048,
        },
    ),
}
STATIC_SIZE = 256  # numbers of a token of model2vec


def peer(inputs: Inputs, name: str) -> Measurement:
    """Classify the run's pairs with what one might take instead of a judge; the weights are random, by the seed.

    Args:
        inputs: The run's.
        name: `reward`, a reward model of Qwen3-0.6B's shape, `modernbert`, an encoder of ModernBERT-base's, or
            `minilm`, one of all-MiniLM-L6's, all three through transformers' text-classification pipeline; `model2vec`,
            static embeddings, or `tfidf`, each with a logistic regression.
    """
    texts = [f"{pair['question']}\n\n{pair['prediction']}" for pair in inputs.pairs]
    classify = _text_classifier(inputs, name) if name in CONFIGS else _regression(inputs, name, texts)
    lengths = [len(ids) for ids in inputs.tokenizer(texts)["input_ids"]]
    chat = sum(inputs.chat_lengths(inputs.pairs))
    return measure(
        lambda: classify(texts),
        Work("float32", pairs=len(texts), tokens=sum(lengths), chat_tokens=chat, flops=0),
        repetitions=inputs.config.repetitions,
        warm_up=lambda: classify(texts[:2]),
    )


def _text_classifier(inputs: Inputs, name: str) -> Callable[[list[str]], Any]:
    torch.manual_seed(inputs.config.seed)
    kind, sizes = CONFIGS[name]
    tokenizer = inputs.tokenizer
    tokenizer.padding_side = "right"
    ids = {f"{role}_token_id": tokenizer.pad_token_id for role in ("pad", "bos", "eos", "cls", "sep")}
    config = kind(vocab_size=inputs.backbone_config.vocab_size, **sizes, **ids)
    model = AutoModelForSequenceClassification.from_config(config, dtype=torch.float32).eval()
    classifier = pipeline("text-classification", model=model, tokenizer=tokenizer, device="cpu")
    return lambda texts: classifier(texts, batch_size=inputs.config.batch_size, truncation=True, max_length=2048)


def _regression(inputs: Inputs, name: str, texts: list[str]) -> Callable[[list[str]], Any]:
    # here, and not above: what they take is no memory of the other cases
    from model2vec import StaticModel
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    labels = [i % 2 for i in range(len(texts))]
    if name == "tfidf":
        model = make_pipeline(TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True), LogisticRegression())
        return cast(Callable[[list[str]], Any], model.fit(texts, labels).predict_proba)
    generator = np.random.default_rng(inputs.config.seed)
    vectors = generator.standard_normal((inputs.backbone_config.vocab_size, STATIC_SIZE), dtype=np.float32)
    static = StaticModel(vectors, inputs.tokenizer.backend_tokenizer)
    regression = LogisticRegression().fit(static.encode(texts), labels)
    return lambda texts: regression.predict_proba(static.encode(texts))
