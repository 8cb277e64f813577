"""What a judge reads of texts by rule: the same at every door, in any company, and explained where it was found."""

import json

import pytest
import torch
from support.models import PAIRS, aspect, chat_reading, feature
from transformers import AutoModelForSequenceClassification

from inspector_pipeline import JudgeConfigError, PairTemplate, load_judge
from inspector_pipeline.batches import collate
from inspector_pipeline.checks import FINDERS, check_vectors
from inspector_pipeline.encoded import CHECKS, WRONG_SUMS, Span
from inspector_pipeline.heads import probe_key

CHECK = feature(0, WRONG_SUMS)
STATE = feature(2, "response_mean", "rms_normed")
QUESTION = "Ann has 3 pens and buys 4. How many has she?"
RIGHT = {"question": QUESTION, "prediction": "She has 3 + 4 = 7 pens, twice that is 2 * 7 = 14."}
WRONG = {"question": QUESTION, "prediction": "She has 3 + 4 = 8 pens, twice that is 2 * 8 = 17."}
ASPECTS = [
    aspect("right", [STATE, CHECK], "ordinal", (0, 1)),
    aspect("style", [STATE], classes=(1, 2, 3), counts=False),
]


@pytest.fixture
def checking(make_judge):
    """A judge, one of whose aspects reads a check, and how far that moves its value."""
    judge = load_judge(make_judge(ASPECTS, format_version=7), device="cpu")
    weight = judge.model.probes[probe_key("right")].weight.detach()
    return judge, float(weight[0, 1].sum())


def values(judge, pairs):
    batch = collate([judge.encode(pair)["chat"] for pair in pairs], 0)
    with torch.no_grad():
        return judge.model(**batch), batch


def test_a_check_is_ones_where_it_found_something():
    assert FINDERS[WRONG_SUMS]("2 + 2 = 4") == [] and FINDERS[WRONG_SUMS]("So 2 + 2 = 5.") == [Span(3, 12)]
    assert set(FINDERS) == set(CHECKS) == {WRONG_SUMS}
    expected = torch.tensor([[1.0, 1.0, 1.0], [0.0, 0.0, 0.0]])
    assert check_vectors([True, False], 3).equal(expected)
    assert check_vectors(torch.tensor([2, 0]), 3).equal(expected)


def test_what_it_finds_moves_the_value_by_its_weight_and_no_other_aspect(checking):
    judge, weight = checking
    output, batch = values(judge, [WRONG, RIGHT])
    assert batch[WRONG_SUMS].tolist() == [True, False]
    with torch.no_grad():
        without = judge.model(**{**batch, WRONG_SUMS: torch.tensor([0, 0])})
    moved = output.decision_values[0] - without.decision_values[0]
    assert moved[:, 0].tolist() == pytest.approx([weight, 0.0], abs=1e-4) and abs(weight) > 0.01
    assert output.decision_values[1].equal(without.decision_values[1])


def test_every_door_reads_it_in_any_company(checking):
    judge, _ = checking
    pairs = [*PAIRS, WRONG, RIGHT]
    together = judge(pairs)
    output, _ = values(judge, pairs)
    found = [result["expected"]["right"] for result in together]
    assert found == pytest.approx(output.expected[:, 0].tolist(), abs=1e-4)
    assert [judge(pair)["expected"]["right"] for pair in pairs] == pytest.approx(found, abs=1e-4)
    workers = judge([*reversed(pairs)], num_workers=1)
    assert [result["expected"]["right"] for result in reversed(workers)] == pytest.approx(found, abs=1e-4)


def test_a_check_is_looked_for_once_beside_the_reading_that_it_belongs_to(make_judge, tokenizer):
    plain = PairTemplate.from_template("{question} {prediction}").to_dict()
    other = aspect("other", [feature(1, "mean", reading="plain")], classes=(0, 1), counts=False)
    readings = {"chat": chat_reading(tokenizer), "plain": plain}
    judge = load_judge(make_judge([ASPECTS[0], other], readings, format_version=7), device="cpu")
    encoded = judge.encode(WRONG)
    assert len(encoded["chat"].checks[WRONG_SUMS]) == 2 and not encoded["plain"].checks
    batches = {name: collate([encoded[name]], 0) for name in readings}
    inputs = {key: {name: batches[name][key] for name in readings} for key in batches["plain"]}
    with torch.no_grad():
        output = judge.model(**inputs, wrong_sums=batches["chat"][WRONG_SUMS])
    assert judge(WRONG)["expected"]["right"] == pytest.approx(float(output.expected[0, 0]), abs=1e-4)


def test_a_judge_without_what_a_check_found_refuses(checking):
    judge, _ = checking
    _, batch = values(judge, [WRONG])
    del batch[WRONG_SUMS]
    with pytest.raises(ValueError, match="expects what its checks found, wrong_sums="):
        judge.model(**batch)


def test_a_long_response_is_checked_whole(make_judge):
    judge = load_judge(make_judge([ASPECTS[0]], format_version=7), device="cpu")
    long = {"question": QUESTION, "prediction": "word " * 600 + WRONG["prediction"] + " word" * 600}
    encoded = judge.encode(long)["chat"]
    assert encoded.truncated and len(encoded.checks[WRONG_SUMS]) == 2


def test_it_is_saved_loaded_and_a_reward_model(checking, tmp_path):
    judge, _ = checking
    judge.save_pretrained(tmp_path / "fused")
    assert json.loads((tmp_path / "fused" / "config.json").read_text())["format_version"] == 7
    again = load_judge(tmp_path / "fused", device="cpu")
    expected = [result["expected"]["right"] for result in judge([WRONG, RIGHT])]
    assert [result["expected"]["right"] for result in again([WRONG, RIGHT])] == pytest.approx(expected, abs=1e-5)
    reward = AutoModelForSequenceClassification.from_pretrained(tmp_path / "fused", num_labels=1)
    (reading,) = judge.model.config.parsed_readings.values()
    texts = [reading.text(pair["question"], pair["prediction"]) for pair in (WRONG, RIGHT)]
    batch = judge.tokenizer(texts, padding=True, add_special_tokens=False, return_tensors="pt")
    assert reward(**batch).logits[:, 0].tolist() == pytest.approx(expected, abs=1e-4)


def test_an_explanation_puts_its_share_where_it_found_something(checking):
    judge, weight = checking
    for pair, n in ((WRONG, 2), (RIGHT, 0)):
        own = judge(pair, explain=True)["explanation"]["right"]
        assert own["checks"] == {WRONG_SUMS: pytest.approx(weight if n else 0.0, abs=1e-4)}
        pieces = [*own["question"], *own["response"], *own["template"]]
        total = own["constant"] + sum(share for _, share in pieces)
        assert total == pytest.approx(own["value"], abs=1e-4)
        assert "".join(text for text, _ in own["response"]) == pair["prediction"]
        assert own["constant"] + sum(own["layers"].values()) + sum(own["checks"].values()) == pytest.approx(
            total, abs=1e-4
        )
        equations = [text for text, _ in own["response"] if "=" in text and "+" in text]
        assert equations == (["3 + 4 = 8"] if n else []) or equations[0].strip() == "3 + 4 = 8"
    assert "checks" not in judge(WRONG, explain=True)["explanation"]["style"]


@pytest.mark.parametrize(
    ("features", "message"),
    [
        ([STATE, {**CHECK, "layer": 1}], "expects layer 0 and state raw of a check"),
        ([STATE, {**CHECK, "state": "rms_normed"}], "expects layer 0 and state raw of a check"),
        ([CHECK], "expects at least one feature of hidden states"),
        ([STATE, {**CHECK, "reading": "asked"}], "readings expects only readings that a feature reads.*asked"),
        ([STATE, {**STATE, "reading": "asked"}, {**CHECK, "reading": "asked"}], "A check expects a reading that holds"),
        ([STATE, {**CHECK, "pooling": "right_sums"}], "pooling expects one of mean.*wrong_sums, but got 'right_sums'"),
    ],
)
def test_a_config_with_a_check_out_of_place_is_refused(make_judge, tokenizer, features, message):
    with pytest.raises(JudgeConfigError, match=message):
        readings = {
            "chat": chat_reading(tokenizer),
            "asked": PairTemplate.from_template("{question}", question_only=True),
        }
        readings["asked"] = readings["asked"].to_dict()
        own = {name: readings[name] for name in dict.fromkeys(one["reading"] for one in features)}
        load_judge(make_judge([aspect("right", features, "ordinal", (0, 1))], own, format_version=7))
