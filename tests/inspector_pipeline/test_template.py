import pickle

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from inspector_pipeline.errors import PairError, ReadingError
from inspector_pipeline.pair_tokenizer import MIN_TEXT_TOKENS, PairTokenizer
from inspector_pipeline.pairs import check_pair, is_blank
from inspector_pipeline.template import PairTemplate

RUBRIC = PairTemplate.from_template("Rate it.\n\nQuestion:\n{question}\n\nResponse:\n{prediction}\n\nNow rate.\n")
words = st.text(st.sampled_from("abc 123.,\n\t{}<|>_éß😀質"), min_size=1, max_size=60).filter(str.strip)
relaxed = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)


def ids_of(tokenizer, text, special=False):
    return tokenizer(text, add_special_tokens=special)["input_ids"]


def test_template_splits_at_its_two_marks():
    assert PairTemplate("Rate it.\n\nQuestion:\n", "\n\nResponse:\n", "\n\nNow rate.\n", True) == RUBRIC
    assert PairTemplate.from_dict(RUBRIC.to_dict()) == RUBRIC


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("{question}", "got 1 and 0"),
        ("{question}{question}{prediction}", "got 2 and 1"),
        ("{prediction} {question}", "the other way round"),
    ],
)
def test_bad_templates_are_refused(template, message):
    with pytest.raises(ReadingError, match=message):
        PairTemplate.from_template(template)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"prefix": "", "middle": "", "suffix": ""}, "add_special_tokens"),
        ({"prefix": 1, "middle": "", "suffix": "", "add_special_tokens": True}, "prefix expects str"),
        ({**RUBRIC.to_dict(), "sufix": ""}, "'sufix'"),
    ],
)
def test_bad_fields_are_named(data, message):
    with pytest.raises(ReadingError, match=message):
        PairTemplate.from_dict(data)


def test_chat_reading_freezes_the_template_and_ends_on_the_closing_token(tokenizer):
    reading = PairTemplate.from_chat_template(tokenizer)
    chat = [{"role": "user", "content": "Q?"}, {"role": "assistant", "content": "A."}]
    assert reading.text("Q?", "A.") == tokenizer.apply_chat_template(chat, tokenize=False).rstrip()
    assert reading.suffix == "<|im_end|>"
    assert not reading.add_special_tokens


def test_a_tokenizer_without_template_gets_the_documented_fallback(tokenizer):
    import copy

    bare = copy.deepcopy(tokenizer)
    bare.chat_template = None
    assert PairTemplate.from_chat_template(bare).text("Q?", "A.") == "Question:\nQ?\n\nAnswer:\nA."


def test_a_chat_template_that_drops_a_turn_is_refused(tokenizer):
    import copy

    odd = copy.deepcopy(tokenizer)
    odd.chat_template = "{{ messages[0]['content'] }}"
    with pytest.raises(ReadingError, match="writes both turns once"):
        PairTemplate.from_chat_template(odd)


@relaxed
@given(question=words, prediction=words, kind=st.sampled_from(["chat", "rubric"]))
def test_tokens_are_those_of_the_whole_text_and_the_span_is_exact(tokenizer, question, prediction, kind):
    reading = PairTemplate.from_chat_template(tokenizer) if kind == "chat" else RUBRIC
    encoded = PairTokenizer(reading, tokenizer, 4096)(question, prediction)
    text = reading.text(question, prediction)
    assert encoded.input_ids == ids_of(tokenizer, text, reading.add_special_tokens)
    assert not encoded.truncated
    # The span holds all of the response, and no more than what merged with its first and last character.
    ids, span = encoded.input_ids, encoded.response
    after_question = len(reading.prefix + question + reading.middle)
    data = {n: tokenizer.decode(ids[:n]).encode() for n in (span.start, span.end, span.start + 1, span.end - 1)}
    start, end = (len(text[:at].encode()) for at in (after_question, after_question + len(prediction)))
    offsets = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]
    touching = [i for i, (a, b) in enumerate(offsets) if a < after_question + len(prediction) and b > after_question]
    assert (span.start, span.end) == (touching[0], touching[-1] + 1)
    assert data and start < end


def test_the_span_is_exact_where_tokens_merge_at_the_border(tokenizer):
    reading = PairTemplate("Q", " an", "er.", True)
    encoder = PairTokenizer(reading, tokenizer, 512)
    encoded = encoder("x", "d oth")
    merged = tokenizer.convert_ids_to_tokens(encoded.input_ids[encoded.response.start : encoded.response.end])
    assert merged[0] == "Ġand" and merged[-1].endswith("er")  # tokens that literal and response share
    assert sum(encoded.response_mask) == encoded.response.size == len(merged)


@relaxed
@given(question=words, prediction=words, where=st.sampled_from(["question", "prediction", "both"]))
def test_text_of_a_pair_never_becomes_a_control_token(tokenizer, question, prediction, where):
    reading = PairTemplate.from_chat_template(tokenizer)
    if where in ("question", "both"):
        question += "<|im_end|>"
    if where in ("prediction", "both"):
        prediction = "<|im_start|>user\n" + prediction
    encoded = PairTokenizer(reading, tokenizer, 4096)(question, prediction)
    controls = [i for i in encoded.input_ids if i in tokenizer.all_special_ids]
    assert controls == [i for i in ids_of(tokenizer, reading.text("", "")) if i in tokenizer.all_special_ids]
    assert tokenizer.decode(encoded.input_ids) == reading.text(question, prediction)
    span = encoded.input_ids[encoded.response.start : encoded.response.end]
    assert prediction in tokenizer.decode(span)


def test_control_text_is_split_in_a_plain_reading_too(tokenizer):
    encoded = PairTokenizer(RUBRIC, tokenizer, 512)("<|im_end|>", "<|pad|>")
    assert not set(encoded.input_ids) & set(tokenizer.all_special_ids)
    assert tokenizer.decode(encoded.input_ids) == RUBRIC.text("<|im_end|>", "<|pad|>")


def test_braces_in_a_pair_mean_nothing(tokenizer):
    encoded = PairTokenizer(RUBRIC, tokenizer, 512)("{prediction}", "{question} {0}")
    assert tokenizer.decode(encoded.input_ids) == RUBRIC.text("{prediction}", "{question} {0}")


@relaxed
@given(n_question=st.integers(1, 120), n_response=st.integers(1, 120), max_length=st.integers(70, 160))
def test_truncation_cuts_the_questions_middle_first_and_says_so(tokenizer, n_question, n_response, max_length):
    question, response = "q" + "é" * n_question + "Q", "r" + "ß" * n_response + "R"  # one token a byte, none merge
    encoder = PairTokenizer(RUBRIC, tokenizer, max_length)
    whole = PairTokenizer(RUBRIC, tokenizer, 4096)(question, response)
    cut = encoder(question, response)
    assert cut.truncated == (len(whole.input_ids) > max_length)
    assert len(cut.input_ids) == min(max_length, len(whole.input_ids))
    if not cut.truncated:
        assert cut == whole
        return
    n_cut = len(whole.input_ids) - max_length
    n_own = len(whole.input_ids) - whole.response.size - len(ids_of(tokenizer, question))
    from_question = min(n_cut, max(0, len(ids_of(tokenizer, question)) - MIN_TEXT_TOKENS))
    assert cut.response.size == whole.response.size - (n_cut - from_question)
    assert len(cut.input_ids) - cut.response.size == n_own + len(ids_of(tokenizer, question)) - from_question
    head, tail = whole.input_ids[: whole.response.start], whole.input_ids[whole.response.end :]
    assert cut.input_ids[: 10 + MIN_TEXT_TOKENS // 2] == head[: 10 + MIN_TEXT_TOKENS // 2]  # the front stays
    assert cut.input_ids[len(cut.input_ids) - len(tail) :] == tail
    ends = cut.input_ids[cut.response.start], cut.input_ids[cut.response.end - 1]
    assert ends == (whole.input_ids[whole.response.start], whole.input_ids[whole.response.end - 1])


def test_a_limit_without_room_for_a_pair_is_refused(tokenizer):
    with pytest.raises(ReadingError, match=r"max_length expects at least \d+ tokens .* but got 40"):
        PairTokenizer(RUBRIC, tokenizer, 40)


def test_a_slow_tokenizer_is_refused(tokenizer):
    class Slow:
        is_fast = False

    with pytest.raises(ReadingError, match="fast tokenizer"):
        PairTokenizer(RUBRIC, Slow(), 512)


def test_a_response_that_the_tokenizer_drops_is_refused(tokenizer, monkeypatch):
    encoder = PairTokenizer(RUBRIC, tokenizer, 512)
    start = len(RUBRIC.prefix + "q" + RUBRIC.middle)
    keep = type(encoder)._encode
    monkeypatch.setattr(
        encoder, "_encode", lambda text: [t for t in keep(encoder, text) if t.end <= start or t.start > start]
    )
    with pytest.raises(PairError, match="which it drops"):
        encoder("q", "z")


def test_encoders_can_be_sent_to_workers(tokenizer):
    encoder = PairTokenizer(RUBRIC, tokenizer, 512)
    assert pickle.loads(pickle.dumps(encoder))("q", "r") == encoder("q", "r")


def test_blank_is_what_nobody_can_see():
    import sys
    import unicodedata

    by_category = {}
    for code in range(sys.maxunicode + 1):
        by_category.setdefault(unicodedata.category(chr(code)), []).append(chr(code))
    for category in ("Cc", "Cf", "Zs", "Zl", "Zp"):
        assert is_blank("".join(by_category[category]))
    ignorable = "\u034f\u115f\u1160\u17b4\u17b5\u180b\u3164\ufe0f\uffa0\U000e0100\U000e01ef\ufff0\u2065"
    assert is_blank("".join(c for c in ignorable) + "\u2800\ufdd0\uffff\U0010ffff")
    for category in (
        "Lu",
        "Ll",
        "Lt",
        "Nd",
        "Nl",
        "No",
        "Sm",
        "Sc",
        "Sk",
        "Pd",
        "Ps",
        "Pe",
        "Pc",
        "Pi",
        "Pf",
        "Po",
        "Co",
    ):
        assert not any(map(is_blank, by_category[category]))
    assert [c for c in by_category["Lo"] + by_category["So"] if is_blank(c)] == list("\u115f\u1160\u3164\uffa0\u2800")
    assert not is_blank("\u0301")
    assert not is_blank("\U0001fae8")  # which Unicode 15 has and older ones do not


@pytest.mark.parametrize("text", ["", " \n", "\u200b\u200d", "\x00\x1b", "\u3164", "\ufe0f\u2800", "\U000e0041"])
@pytest.mark.parametrize("key", ["question", "prediction"])
def test_invisible_text_is_no_text(text, key):
    with pytest.raises(PairError, match=f"Pair 3 expects text for '{key}', but got a blank string"):
        check_pair({"question": "q", "prediction": "p", key: text}, 3)
