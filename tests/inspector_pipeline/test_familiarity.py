"""What a judge says of pairs unlike those that it was fitted on, and of questions that were among them."""

import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from support.models import PAIRS, aspect, familiar, feature, fill_known
from support.results import alike

from inspector_pipeline import InspectorConfig, InspectorModel, JudgeConfigError, PairTemplate, load_judge
from inspector_pipeline.familiarity import (
    STATISTICS,
    question_number,
    text_statistics,
    why_unfamiliar,
    word_number,
)

READ = [feature(3, "response_mean", "rms_normed"), feature(1, "last")]
ASPECTS = [aspect("a", READ, "ordinal"), aspect("b", [feature(2)], "votes", classes=(3, 4, 5))]
KEYS = ("unfamiliar", "unfamiliar_reason", "seen")
KNOWN = [word_number(word) for word in ("the", "sum", "is", "of", "and")]

EXAMPLES = {
    "characters": ("q", "  four + 5\n", 8),
    "digits": ("q", "12 ab", 0.5),
    "digits of other scripts": ("q", "٣٤ x", 2 / 3),
    "letters": ("q", "ab 1 +", 0.5),
    "copied": ("How many apples does Tom have?", "how many apples does: Tom have 3", 3 / 4),
    "copied, an echo": ("What is 7 times 6?", "What is 7 times 6?", 1),
    "copied, shorter than a run": ("What is 7 times 6?", "7 times", 1),
    "copied, words in another order": ("What is 7 times 6?", "6 times 7 is", 0),
    "mentioned": ("Why do 3 apples and 12 pears weigh so much?", "Since 12 APPLES do", 2 / 5),
    "repeated": ("q", "so it is so it is so it is", 1 - 3 / 6),
    "repeated, nothing": ("q", "so it is 42.", 0),
    "new_words": ("Does Tom add?", "The sum of Tom and Xqzzt is 5", 1 / 7),
    "new_words, without words": ("q", "42 !", 0),
    "new_words, another language": ("Was?", "Die Summe ist groß", 1),
    "question_characters": (" ab ", "x", 2),
    "question_digits": ("1 and 2", "x", 2 / 5),
    "question_new_words": ("the sum of frogs", "x", 1 / 4),
}


@pytest.mark.parametrize("example", EXAMPLES)
def test_each_statistic_of_hand_written_texts(example):
    question, response, value = EXAMPLES[example]
    found = text_statistics(question, response, KNOWN)
    assert set(STATISTICS) - set(found) <= {"mentioned"}
    assert found[example.split(",")[0].split(" of ")[0]] == pytest.approx(value)


@pytest.mark.parametrize("text", ["?!", "的", "x" * 50_000, "\u0301", "12", "½ ²", "a\n\n\n", "😀"])
def test_any_text_can_be_measured(text):
    shares = {name: value for name, value in text_statistics(text, text, KNOWN).items() if "characters" not in name}
    assert all(0 <= value <= 1 for value in shares.values()), shares


REASONS = [  # without their end
    ("characters", (38, 2410), 1, "the response has 1 character; at least 38 characters"),
    ("characters", (38, 2410), 3e3, "the response has 3,000 characters; at most 2,410 characters"),
    ("copied", (None, 0.315), 0.87, "87 % of the response repeats the question; at most 31.5 %"),
]


def test_texts_of_megabytes_are_measured_by_their_beginning_and_their_length():
    start = "known words and 12 " * 6000
    short, long = (text_statistics(start, start + more, KNOWN) for more in ("", "other 9 " * 500_000))
    assert long.pop("characters") - short.pop("characters") == pytest.approx(4_000_000, abs=2)
    assert long == short


def test_reasons():
    for name, bounds, value, reason in REASONS:
        assert why_unfamiliar({name: bounds}, 1.0, {name: value}, 0.5) == f"{reason} in what it was fitted on"
        assert why_unfamiliar({name: bounds}, 1.0, {name: bounds[1]}, 1.0) is None
        assert why_unfamiliar({name: (None, None)}, 1.0, {name: value}, None) is None
        assert why_unfamiliar({name: bounds}, 1.0, {}, None) is None
    reason = "its hidden states are unlike what it was fitted on (distance 3.1; at most 1.9)"
    assert why_unfamiliar({"digits": (0, 1)}, 1.9, {"digits": 0.5}, 3.1) == reason


def distances(judge, pairs):
    """The distance of pairs by its formula, in float64, from features that are read pair by pair."""
    own = {name: tensor.double().numpy() for name, tensor in judge.model.familiar.state_dict().items()}
    found = []
    for pair in pairs:
        read = judge.reader([judge.encode(pair)])
        x = np.concatenate([read[f].detach().double().numpy()[0] for f in judge.model.familiar_features])
        u = (x - own["center"]) / own["scale"]
        z = u @ own["basis"]
        rest = u - own["basis"] @ z
        found.append(((z / own["deviation"]) ** 2).mean() / 2 + (rest**2).sum() / own["residual"][0] / 2)
    return found


@pytest.fixture
def with_statistics(make_judge):
    text = {"characters": [3, None]}
    changes = familiar(READ, text=text, words=("prime", "so")) | {"n_seen_questions": 2}
    folder = make_judge(ASPECTS, **changes)
    return fill_known(folder, ("prime", "so"), (PAIRS[0]["question"], "Another?"))


@pytest.mark.parametrize("fused", [True, False])
def test_a_judge_with_statistics_round_trips_and_measures_by_the_formula(with_statistics, tmp_path, fused):
    first = load_judge(with_statistics, device="cpu")
    first.save_pretrained(tmp_path / "again", fused=fused)
    judge = load_judge(tmp_path / "again", device="cpu")
    assert judge.model.config.parsed_familiar == first.model.config.parsed_familiar
    together, expected = judge(PAIRS), distances(judge, PAIRS)
    assert alike(together, first(PAIRS))
    assert [result["seen"] for result in together] == [True, False, False]
    assert [result["unfamiliar"] for result in together] == [False, True, False]
    assert "has 2 characters" in together[1]["unfamiliar_reason"] and together[0]["unfamiliar_reason"] is None
    for window in (PAIRS, PAIRS[::-1], PAIRS[1:]):
        with torch.inference_mode():
            found = judge.model.decide(judge.reader([judge.encode(pair) for pair in window])).distance.tolist()
        assert found == pytest.approx([expected[PAIRS.index(pair)] for pair in window], rel=1e-4)
    low, _, high = np.sort(expected)
    judge._familiar = judge._familiar.__class__(**{**vars(judge._familiar), "threshold": (low + high) / 2, "text": {}})
    flags = [result["unfamiliar"] for result in judge(PAIRS)]
    assert flags == [value > (low + high) / 2 for value in expected]
    assert flags == [result["unfamiliar"] for result in judge(iter(PAIRS), num_workers=1)]
    assert "hidden states" in judge(PAIRS[int(np.argmax(expected))])["unfamiliar_reason"]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_casting_leaves_what_was_seen_as_it_is(with_statistics, tmp_path, dtype):
    load_judge(with_statistics, device="cpu").save_pretrained(tmp_path / "fused")
    plain = InspectorModel.from_pretrained(with_statistics).seen_questions
    for folder in (with_statistics, tmp_path / "fused"):
        loaded = InspectorModel.from_pretrained(folder, dtype=dtype)
        assert {buffer.dtype for buffer in loaded.familiar.buffers()} == {torch.float32, torch.int64}
        for model in (loaded, loaded.to(dtype)):
            assert torch.equal(model.seen_questions, plain) and model.familiar.words.dtype == torch.int64
    judge = load_judge(with_statistics, device="cpu", dtype=torch.bfloat16)
    assert [result["seen"] for result in judge(PAIRS)] == [True, False, False]


def test_a_question_is_seen_case_and_white_space_aside(with_statistics):
    judge = load_judge(with_statistics, device="cpu")
    asked = ("what IS\n 2 + 2?", "What is 2 + 3?", "  another?")
    assert [judge({"question": q, "prediction": "5"})["seen"] for q in asked] == [True, False, True]
    assert question_number("A b") == question_number(" a\tB\n") != question_number("ab")


def test_a_judge_without_statistics_says_null_and_stays_as_it_was(make_judge, judge):
    folder = make_judge(ASPECTS)
    results = load_judge(folder, device="cpu")(PAIRS)
    assert all(result[key] is None for result in [*results, judge(PAIRS[0])] for key in KEYS)
    assert not {"familiar", "n_seen_questions"} & json.loads((folder / "config.json").read_text()).keys()
    assert not [name for name in load_file(folder / "model.safetensors") if "familiar" in name or "seen" in name]


def test_a_judge_may_say_only_one_of_both(make_judge):
    seen = fill_known(make_judge(ASPECTS, n_seen_questions=1, format_version=3), (), ("Is 7 prime?",))
    assert [load_judge(seen, device="cpu")(PAIRS[2])[key] for key in KEYS] == [None, None, True]
    only = make_judge(ASPECTS, name="other", **familiar(READ, words=("a",)))
    assert [load_judge(only, device="cpu")(PAIRS[2])[key] for key in KEYS] == [False, None, None]


def test_a_judge_of_questions_measures_the_question(make_judge):
    reading = PairTemplate.from_template("Q: {question}\n", question_only=True).to_dict()
    text = {"characters": [100, None], "question_characters": [5, None]}
    folder = make_judge(ASPECTS, {"chat": reading}, **familiar(READ, text=text, words=("a",)))
    judge = load_judge(folder, device="cpu")
    assert [judge({"question": q})["unfamiliar_reason"] is None for q in ("Is it so?", "Eh?")] == [True, False]


TAMPERED = {
    "no tensor": (lambda state, config: state.pop("familiar.basis"), "expects all weights.*familiar.basis"),
    "no questions": (lambda state, config: state.pop("seen_questions"), "expects all weights.*seen_questions"),
    "another shape": (lambda state, config: state.update({"familiar.center": torch.ones(3)}), "another shape.*center"),
    "no config": (lambda state, config: config.pop("familiar"), "no place for familiar.basis, familiar.center"),
    "no number": (lambda state, config: config.pop("n_seen_questions"), "no place for seen_questions"),
    "nan": (lambda state, config: state["familiar.center"].fill_(torch.nan), "expects finite weights.*center"),
    "zero": (lambda state, config: state["familiar.residual"].zero_(), "expects familiar.residual above 0"),
    "order": (lambda state, config: state.update(seen_questions=state["seen_questions"].flip(0)), "ascending"),
}


@pytest.mark.parametrize("case", TAMPERED)
def test_a_judge_whose_files_and_config_differ_is_refused(with_statistics, case):
    change, message = TAMPERED[case]
    path = with_statistics / "model.safetensors"
    state, config = load_file(path), json.loads((with_statistics / "config.json").read_text())
    change(state, config)
    save_file({name: tensor.contiguous() for name, tensor in state.items()}, path, metadata={"format": "pt"})
    (with_statistics / "config.json").write_text(json.dumps(config))
    with pytest.raises(JudgeConfigError, match=message):
        InspectorModel.from_pretrained(with_statistics)


def test_a_config_with_statistics_round_trips(with_statistics):
    config = InspectorConfig.from_pretrained(with_statistics)
    assert InspectorConfig.from_dict(config.to_dict()).parsed_familiar == config.parsed_familiar
    assert config.parsed_familiar.text == {"characters": (3, None)} and config.n_seen_questions == 2
