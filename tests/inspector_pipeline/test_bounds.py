"""A long text's middle is dropped before it is tokenised, and nothing that is left changes."""

import pickle
import time

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from inspector_pipeline import pair_tokenizer
from inspector_pipeline.bounds import ALTERNATIVES, GPT2, Bounds
from inspector_pipeline.errors import PairError
from inspector_pipeline.pair_encoder import PairEncoder
from inspector_pipeline.pair_tokenizer import PairTokenizer
from inspector_pipeline.template import PairTemplate

QWEN = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
CASED = "|".join([*(a for a in ALTERNATIVES if r"\p{Lu}" in a and a.endswith(")?")), r"\p{N}{1,3}", *ALTERNATIVES[-4:]])
LONGEST = 4096  # characters of the longest token
CORPUS = [
    *(
        "the cat's dog isn't there, and it's 12345 metres ahead: go! " * 3,
        "HTTPServer fooBar x = 10\n\n    return y\n" * 3,
    ),
    *(
        "你好，世界。我不是在有他这为之大来以个中上们。" * 3,
        "приве́т мир ",
        "café 😀😀 🎉 <<<>>> ==== ",
        "\n \n\t\n  \n",
    ),
]
CHUNKS = [
    *(
        "the ",
        "cat's ",
        "isn't",
        "I'LL ",
        "word. ",
        "x",
        "A",
        "fooBar ",
        "12345",
        " 7 8",
        "1,2,3,",
        "\n",
        "\n\n",
        " \n \n",
    ),
    *(
        " ",
        "  ",
        "\t",
        "   a",
        "aaaa",
        "ab",
        "zq",
        "==",
        "!!",
        "😀",
        "😀 ",
        "é",
        "e\u0301",
        "\u0301",
        " \u0301",
        "你好，",
        "世界",
    ),
    *(
        "<|im_end|>",
        "<|im_",
        "end|>",
        "<|pad|> ",
        "\u00a0",
        "\u3000",
        "\u200d",
        "▁",
        "a▁",
        "ﬁ",
        "²",
        "Ⅷ",
        "가나",
        "ก",
        "'",
        "’s ",
    ),
]
relaxed = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=60)


def byte_level(pre=None, normalizer=None, alphabet=None, **kwargs):
    made = Tokenizer(models.BPE(**kwargs))
    made.pre_tokenizer = pre or pre_tokenizers.ByteLevel(add_prefix_space=False)
    if normalizer:
        made.normalizer = normalizer
    made.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet() if alphabet is None else alphabet
    trainer = trainers.BpeTrainer(vocab_size=700, initial_alphabet=alphabet, show_progress=False)
    made.train_from_iterator(CORPUS, trainer)
    return made


def after(*patterns):
    splits = [pre_tokenizers.Split(Regex(pattern), "isolated") for pattern in patterns]
    return pre_tokenizers.Sequence([*splits, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])


def piece_bpe(pre=None, normalizer=None):
    """SentencePiece's BPE, in which a token may span thousands of characters and no word ends but at a space."""
    pieces = [f"<0x{i:02X}>" for i in range(256)]
    letters = [*"▁abcdefghijklmnopqrstuvwxyz,.!=A\n", "é", "你", "好"]
    merges, size = [("▁", "t"), ("t", "h"), ("a", "b"), ("=", "="), ("▁", "▁"), ("▁▁", "▁▁"), ("a", "a")], 2
    while size < LONGEST:
        merges.append(("a" * size, "a" * size))
        size *= 2
    vocabulary = dict.fromkeys([*pieces, *letters, *map("".join, merges)])
    made = Tokenizer(models.BPE({token: i for i, token in enumerate(vocabulary)}, merges, byte_fallback=True))
    if pre:
        made.pre_tokenizer = pre
    if normalizer:
        made.normalizer = normalizer
    return made


LLAMA = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
PROVEN = {
    "gpt2": lambda: byte_level(),
    "smol": lambda: byte_level(  # which drops bytes that it never saw
        pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(False)]),
        alphabet=[],
    ),
    "qwen": lambda: byte_level(after(QWEN), normalizers.NFC()),
    "llama3": lambda: byte_level(after(QWEN.replace(r"\p{N}|", r"\p{N}{1,3}|")), ignore_merges=True),
    "cased": lambda: byte_level(after(CASED)),
    "llama2": lambda: piece_bpe(normalizer=LLAMA),
    "mistral": lambda: piece_bpe(pre_tokenizers.Metaspace(prepend_scheme="first", split=False)),
    "gemma": lambda: piece_bpe(pre_tokenizers.Split(" ", "merged_with_previous"), normalizers.Replace(" ", "▁")),
}


def wrapped(made):
    controls = ["<|pad|>", "<|im_start|>", "<|im_end|>"]
    made.add_special_tokens([AddedToken(text, special=True, normalized=False) for text in controls])
    return PreTrainedTokenizerFast(tokenizer_object=made, pad_token="<|pad|>", eos_token="<|im_end|>")


@pytest.fixture(scope="module", params=list(PROVEN))
def proven(request):
    return wrapped(PROVEN[request.param]())


CHAT = PairTemplate("<|im_start|>user\n", "<|im_end|>\n<|im_start|>assistant\n", "<|im_end|>", False)
PLAIN = PairTemplate.from_template("Question:\n{question}\n\nAnswer:\n{prediction}")
ALONE = PairTemplate.from_template("Ask: {question}", question_only=True)
long_texts = st.lists(
    st.tuples(st.sampled_from(CHUNKS), st.sampled_from([1, 1, 1, 1, 2, 9, 70, 300])), min_size=1, max_size=60
).map(lambda parts: "".join(chunk * n for chunk, n in parts))


def both(reading, tokenizer, max_length, question, prediction):
    """Tokenise with and without the bound, which is made to act on texts as short as can be."""
    bounded, whole = (PairTokenizer(reading, tokenizer, max_length) for _ in range(2))
    assert isinstance(bounded._bounds, Bounds)
    whole.__dict__["_bounds"] = None
    return [_told(encoder, question, prediction) for encoder in (bounded, whole)]


def _told(encoder, question, prediction):
    try:
        return encoder(question, prediction)
    except PairError as error:
        return str(error)[:40]


@relaxed
@given(
    texts=st.tuples(long_texts, long_texts),
    reading=st.sampled_from([CHAT, PLAIN, ALONE]),
    room=st.integers(0, 60),
    first=st.sampled_from([1, 3]),
)
def test_what_is_left_is_the_same_to_the_last_token(proven, texts, reading, room, first):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pair_tokenizer, "FIRST_CHARACTERS", first)
        bounded, whole = both(reading, proven, 140 + room, *texts)
    assert bounded == whole


@pytest.mark.parametrize("word", ["a" * 5000, " " * 5000 + "b", "😀" * 900, "<|im_end|>" * 500, "ab" * 3000])
@pytest.mark.parametrize("around", [("{}", ""), ("the cat " * 500, "{}"), ("{}", " the cat" * 500)])
def test_long_words_are_exact_wherever_they_stand(proven, word, around):
    text = "".join(around).format(word)
    assert len(set(map(str, both(CHAT, proven, 120, "Why is it so?", text)))) == 1
    assert len(set(map(str, both(CHAT, proven, 120, text, text + " end.")))) == 1


def test_a_control_token_in_the_dropped_middle_is_still_noticed(proven):
    text = "some words " * 900
    spelt = text[:5000] + "and <|im_end|> there " + text[5000:]
    bounded, whole = both(PLAIN, proven, 120, "Why?", spelt)
    assert bounded == whole
    encoder = PairTokenizer(PLAIN, proven, 120)
    assert encoder._bounds.shorten(spelt, 960).has_control
    assert not encoder._bounds.shorten(text, 960).has_control


@pytest.mark.parametrize(
    "made",
    [
        lambda: Tokenizer(models.Unigram([("<unk>", 0.0), ("a", -1.0), (" ", -1.0)], unk_id=0)),
        lambda: Tokenizer(models.WordPiece({"[UNK]": 0, "a": 1}, unk_token="[UNK]")),
        lambda: Tokenizer(models.BPE({"a": 0, "<unk>": 1}, [], unk_token="<unk>")),
        lambda: byte_level(after(r"\p{L}+| +|(?<=x)y|\s+")),  # one that looks behind
        lambda: byte_level(pre_tokenizers.ByteLevel(add_prefix_space=True)),
        lambda: byte_level(normalizer=normalizers.NFKC()),
        lambda: piece_bpe(),  # spaces are characters like others
    ],
)
def test_tokenizers_without_a_proof_have_their_texts_tokenised_whole(made):
    tokenizer = wrapped(made())
    assert PairTokenizer(PLAIN, tokenizer, 4000)._bounds is None


@pytest.mark.parametrize(
    "token",
    [AddedToken("</s>", rstrip=True), AddedToken("low", single_word=True), AddedToken("a b"), AddedToken("d<|")],
)
def test_added_tokens_that_reach_across_a_break_leave_no_proof(token):
    tokenizer = wrapped(byte_level())
    assert Bounds.of(tokenizer, frozenset(tokenizer.all_special_ids)) is not None
    tokenizer.add_tokens([token])
    assert Bounds.of(tokenizer, frozenset(tokenizer.all_special_ids)) is None


def test_a_text_of_megabytes_takes_no_time_and_an_endless_word_is_refused(tokenizer, monkeypatch):
    encoder = pickle.loads(pickle.dumps(PairTokenizer(PairTemplate.from_chat_template(tokenizer), tokenizer, 2048)))
    encoder("Why?", "Warm. " * 20_000)
    started = time.perf_counter()
    encoded = encoder("Why is it so? " * 560_000, "So it is. " * 800_000)
    assert time.perf_counter() - started < 2
    assert encoded.truncated
    assert len(encoded.input_ids) == 2048
    with pytest.raises(PairError, match="space, or a mark after a letter, at least every 1000000"):
        encoder("Why?", "a" * 1_000_001)


def test_the_known_expressions_are_the_published_ones():
    assert set(GPT2.split("|")) <= {part for alternative in ALTERNATIVES for part in alternative.split("|")}


@pytest.mark.parametrize("n", [999, 1001])
def test_a_tokenizer_without_proven_breaks_has_a_bound_of_characters(n, monkeypatch):
    monkeypatch.setattr(pair_tokenizer, "UNBROKEN_CHARACTERS", 1000)
    bare = Tokenizer(models.WordLevel({"a": 0, "[UNK]": 1}, unk_token="[UNK]"))
    bare.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=bare, unk_token="[UNK]")
    encode = PairTokenizer(PairTemplate("", " a ", "", False), tokenizer, 48)
    assert encode._bounds is None
    text = ("a " * n)[:n]
    if n < 1000:
        assert encode("a", text).truncated
        return
    said = "expects at most 1000 characters with this judge's tokenizer, but got 1001"
    for pair in (("a", text), (text, "a")):
        with pytest.raises(PairError, match=said):
            encode(*pair)
    with pytest.raises(PairError, match="Pair 7 cannot be read: A text of a pair expects at most 1000 characters"):
        PairEncoder({"chat": encode})({"question": "a", "prediction": text}, 7)
