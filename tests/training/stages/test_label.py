import dataclasses
import json
import random
import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from inspector_training.labelling.endpoint import EndpointConfig
from inspector_training.labelling.journal import Prices
from inspector_training.labelling.rubrics import FIVE_LEVELS, TWO_LEVELS, Rubric
from inspector_training.labelling.teacher import combine, grading_messages, read_reply, reply_form, response_format
from inspector_training.rows.records import labelled_pairs
from inspector_training.stages.label import Config as LabelConfig
from inspector_training.stages.label import run as label
from support.fault_server import Answer, FaultServer, kill_and_resume, user_text

from inspector_pipeline.errors import DataFileError, EndpointError, SettingsError

LOGIC, FLUENT = FIVE_LEVELS["logicality"], FIVE_LEVELS["fluency"]
POLITE = Rubric("politeness", "Is it polite?", 0, 2, {0: "rude", 2: "kind"})
ROWS = [
    {
        "id": f"q{i}",
        "question": f"What is {i} + {i}?",
        "answer": f"gold {i}",
        "sample": k,
        "prediction": f"It is {i + k}.",
    }
    for i in range(4)
    for k in range(2)
]


def verdict(score, justification="fine"):
    return json.dumps({"justification": justification, "score": score})


def score_of(text):
    """What the scripted teacher thinks of a text: the same each time, whatever is asked beside it."""
    return random.Random(text).randint(1, 5)


def good(body, times):
    return Answer(verdict(score_of(user_text(body) + body["messages"][0]["content"])))


@pytest.fixture
def responses(tmp_path):
    path = tmp_path / "responses.jsonl"

    def write(rows):
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return path

    write(ROWS)
    return write


@pytest.fixture
def config(responses, tmp_path):
    def make(url="http://127.0.0.1:9/v1", endpoint=(), **changes):
        own = {"concurrency": 4, "timeout": 60.0, "attempts": 4, "backoff": 0.01, **dict(endpoint)}
        place = {"responses": str(tmp_path / "responses.jsonl"), "output": str(tmp_path / "labelled.jsonl")}
        chosen = {"teacher": "t", "aspects": ("logicality", "fluency"), **changes}
        return LabelConfig(**{**place, "endpoint": EndpointConfig(url, **own), **chosen})

    return make


def read(path):
    return [json.loads(line) for line in Path(path).read_text(encoding="utf-8").split("\n") if line]


@pytest.mark.parametrize("calls", ["per_aspect", "together"])
def test_every_aspect_of_every_response_is_scored_with_a_justification(config, calls):
    def script(body, times):
        one = {"justification": "as asked", "score": len(body["messages"][1]["content"]) % 5 + 1}
        return Answer(json.dumps({"logicality": one, "fluency": one} if calls == "together" else one))

    with FaultServer(script) as server:
        label(config(server.url, calls=calls))
    rows = read(config().output)
    assert [{key: row[key] for key in ROWS[0]} for row in rows] == ROWS
    n_calls = 1 if calls == "together" else 2
    for row in rows:
        assert set(row["scores"]) == {"logicality", "fluency"}
        assert all(score in range(1, 6) for score in row["scores"].values()) and row["reasons"] == {}
        assert row["justifications"] == {"logicality": "as asked", "fluency": "as asked"} and row["teacher"] == "t"
        tokens = {"prompt_tokens": 100 * n_calls, "completion_tokens": 10 * n_calls, "calls": n_calls}
        assert row["teacher_usage"] == tokens and "agreement" not in row
    assert len(server.requests) == n_calls * len(ROWS)
    assert len(labelled_pairs(rows)) == len(ROWS)


BAD = {
    "prose": ("I would say four.", "not JSON"),
    "empty": ("", "not JSON"),
    "cut off": ('{"justification": "so far so', "not JSON"),
    "list": ("[4]", "expected a JSON object"),
    "number": ("4", "expected a JSON object"),
    "text score": ('{"justification": "x", "score": "4"}', r'score expects an integer from 1 to 5, but got "4"'),
    "float score": ('{"justification": "x", "score": 4.0}', r"but got 4\.0"),
    "true": ('{"justification": "x", "score": true}', "but got true"),
    "null": ('{"justification": "x", "score": null}', "but got null"),
    "too high": ('{"justification": "x", "score": 6}', "but got 6"),
    "too low": ('{"justification": "x", "score": 0}', "but got 0"),
    "NaN": ('{"justification": "x", "score": NaN}', "but got NaN"),
    "huge": ('{"justification": "x", "score": ' + "9" * 5000 + "}", "not JSON"),
    "no score": ('{"justification": "x"}', "but got null"),
    "two scores": ('{"justification": "x", "score": 1, "score": 5}', "a key occurs twice"),
    "no justification": ('{"score": 4}', "justification expects a text, but got null"),
    "blank justification": ('{"justification": " ", "score": 4}', "justification expects a text"),
    "justification of a wrong type": ('{"justification": ["x"], "score": 4}', "justification expects a text"),
    "two objects": (verdict(1) + verdict(5), "not JSON"),
    "deep": ("[" * 100_000, "not JSON"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_is_no_verdict_gives_a_reason_and_no_score(case):
    text, reason = BAD[case]
    found = read_reply(text, [LOGIC])
    assert found.scores == {} and found.justifications == {}
    assert re.search(reason, found.reasons["logicality"])


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 8) | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from(["score", "justification", "fluency"]), inner),
)


@settings(max_examples=60)
@given(JSON)
def test_any_reply_gives_an_integer_in_range_or_a_reason(data):
    for rubrics in ([LOGIC], [LOGIC, FLUENT]):
        found = read_reply(json.dumps(data), rubrics)
        assert found.scores.keys() | found.reasons.keys() == {rubric.name for rubric in rubrics}
        assert not found.scores.keys() & found.reasons.keys()
        assert all(type(score) is int and 1 <= score <= 5 for score in found.scores.values())


@pytest.mark.parametrize(
    "text", [verdict(4), f"\n{verdict(4)} ", f"```json\n{verdict(4)}\n```", verdict(4)[:-1] + ', "x": 1}']
)
def test_valid_replies_are_read(text):
    assert read_reply(text, [LOGIC]).scores == {"logicality": 4}


def test_half_a_surrogate_pair_in_a_justification_does_no_harm():
    assert (
        read_reply('{"justification": "ok \\ud83d", "score": 2}', [LOGIC]).justifications["logicality"] == "ok \ufffd"
    )


@given(st.text(), st.text(), st.none() | st.text())
def test_no_text_can_close_its_own_tag(question, prediction, reference):
    system, user = grading_messages({"question": question, "prediction": prediction}, [LOGIC], reference)
    closing = user["content"].rsplit("\n", 1)[-1]
    mark = closing.removeprefix("</response-").removesuffix(">")
    texts = [question, prediction, *([reference] if reference is not None else [])]
    assert not any(mark in text for text in texts) and mark in system["content"]
    assert user["content"].count(mark) == 2 * len(texts)
    assert all(f"\n{text}\n" in user["content"] for text in texts)


def test_the_prompt_states_scale_levels_and_form():
    system = grading_messages(ROWS[0], [POLITE], None)[0]["content"]
    assert "politeness: Is it polite?" in system and "from 0 (worst) to 2 (best)" in system and "2: kind" in system
    assert reply_form([POLITE]) in system and "reference answer is given" not in system
    schema = response_format([POLITE, LOGIC], "json_schema")["json_schema"]["schema"]
    assert schema["required"] == ["politeness", "logicality"]
    assert schema["properties"]["politeness"]["properties"]["score"] == {"type": "integer", "enum": [0, 1, 2]}


def test_custom_and_binary_aspects_and_the_reference_answer(config):
    with FaultServer(lambda body, times: Answer(verdict(0))) as server:
        label(config(server.url, scale="0-1", aspects=("factuality",), custom_aspects=(POLITE,), show_reference=True))
    assert all(row["scores"] == {"factuality": 0, "politeness": 0} for row in read(config().output))
    assert all("gold" in user_text(body) for body in server.requests)
    assert any(TWO_LEVELS["factuality"].levels[0] in body["messages"][0]["content"] for body in server.requests)
    with FaultServer(good) as server:
        label(config(server.url, output=config().output.replace("labelled", "other")))
    assert not any("gold" in user_text(body) for body in server.requests)


def test_a_bad_reply_is_shown_to_the_teacher_with_its_problem_and_mended(config):
    def script(body, times):
        if len(body["messages"]) == 2:
            return Answer('{"justification": "x", "score": "4"}')
        assert body["messages"][2] == {"role": "assistant", "content": '{"justification": "x", "score": "4"}'}
        return Answer(verdict(4, "mended") if 'but got "4"' in user_text(body) else "")

    with FaultServer(script) as server:
        label(config(server.url))
    for row in read(config().output):
        assert row["scores"] == {"logicality": 4, "fluency": 4}
        assert row["justifications"]["fluency"] == "mended"
        assert row["teacher_usage"] == {"prompt_tokens": 400, "completion_tokens": 40, "calls": 4}


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (Answer("no idea"), "not JSON"),
        (Answer(verdict(7)), "score expects an integer from 1 to 5, but got 7"),
        (Answer('{"justif', finish_reason="length"), "the reply was cut off at max_tokens"),
        (Answer("", finish_reason="content_filter"), "the content filter stopped the reply"),
        (Answer(None, refusal="I will not"), "the teacher refused: I will not"),
        (Answer(status=400, error="too long"), "400.*too long"),
        (Answer(status=500, error="overloaded"), "500.*overloaded"),
    ],
)
def test_what_cannot_be_had_is_null_with_its_reason(config, responses, answer, reason):
    responses(ROWS[:1])
    with FaultServer(lambda body, times: answer) as server:
        label(config(server.url))
    (row,) = read(config().output)
    assert row["scores"] == {"logicality": None, "fluency": None} and row["justifications"] == {}
    assert all(re.search(reason, row["reasons"][aspect]) for aspect in ("logicality", "fluency"))
    assert labelled_pairs([row]) == []


def test_in_one_call_for_all_what_is_valid_stands_when_the_rest_is_not(config):
    def script(body, times):
        first = {"logicality": {"justification": "a", "score": 2}, "fluency": {"justification": "b", "score": 9}}
        again = {"logicality": {"justification": "c", "score": 5}, "fluency": "good"}
        return Answer(json.dumps(first if len(body["messages"]) == 2 else again))

    with FaultServer(script) as server:
        label(config(server.url, calls="together"))
    for row in read(config().output):
        assert row["scores"] == {"logicality": 2, "fluency": None} and row["justifications"] == {"logicality": "a"}
        assert row["reasons"].keys() == {"fluency"}


def test_responses_that_are_missing_or_blank_stay_rows_and_are_never_sent(config, responses):
    failed = {**ROWS[0], "prediction": None, "error": "timed out after 9 s"}
    responses([failed, {**ROWS[1], "prediction": " \n"}, ROWS[2]])
    with FaultServer(good) as server:
        label(config(server.url))
    first, second, third = read(config().output)
    assert first["scores"] == second["scores"] == {"logicality": None, "fluency": None}
    assert first["reasons"]["fluency"] == "no response: timed out after 9 s"
    assert second["reasons"]["fluency"] == "no response: it is blank"
    assert first["teacher_usage"] == {} and None not in third["scores"].values()
    assert len(server.requests) == 2


def test_samples_give_the_lower_median_with_its_agreement_as_weight(config):
    given = [
        Answer(verdict(5, "high")),
        Answer(verdict(2, "low")),
        Answer(verdict(3, "mid")),
        Answer("?"),
        Answer(verdict(3)),
    ]
    order = {}

    def script(body, times):
        seeds = order.setdefault(user_text(body) + body["messages"][0]["content"], [])
        if len(body["messages"]) > 2:
            return Answer("still nothing")
        seeds.append(body["seed"])
        return given[len(seeds) - 1]

    with FaultServer(script) as server:
        label(config(server.url, samples=5, temperature=1.0, weight_by_agreement=True, endpoint={"concurrency": 1}))
    for row in read(config().output):
        assert row["scores"]["fluency"] == 3 and row["justifications"]["fluency"] == "mid"
        assert row["sample_scores"]["fluency"] == [5, 2, 3, None, 3]
        assert row["agreement"] == row["weights"] == {"logicality": 0.5, "fluency": 0.5}
    assert all(len(set(seeds)) == 5 for text, seeds in order.items() if seeds)


@given(st.lists(st.integers(1, 5) | st.none(), min_size=1, max_size=7))
def test_combined_labels(given_scores):
    entries = [
        {"scores": {"a": s}, "justifications": {"a": f"because {s}"}, "reasons": {}}
        if s is not None
        else {"scores": {}, "justifications": {}, "reasons": {"a": "not JSON"}}
        for s in given_scores
    ]
    parsed = sorted(s for s in given_scores if s is not None)
    made = combine("a", entries)
    if 2 * len(parsed) <= len(given_scores):
        assert made["scores"] is made["agreement"] is None and "not JSON" in made["reasons"]
        return
    score = made["scores"]
    assert sum(s < score for s in parsed) <= len(parsed) / 2 >= sum(s > score for s in parsed)
    assert made["agreement"] == sum(s == score for s in parsed) / len(parsed) > 0
    assert made["justifications"] == f"because {score}" and made["reasons"] is None


def test_a_refused_format_names_the_option(config):
    def script(body, times):
        refused = Answer(status=400, error="'response_format.type' must be 'json_object' or 'text'")
        return refused if body.get("response_format", {}).get("type") == "json_schema" else good(body, times)

    with FaultServer(script) as server:
        with pytest.raises(
            EndpointError, match="refuses the format asked for: .*Set structured to json_object or none"
        ):
            label(config(server.url))
        label(config(server.url, structured="json_object"))
        assert server.requests[-1]["response_format"] == {"type": "json_object"}
        label(config(server.url, structured="none"))
    assert "response_format" not in server.requests[-1]


PRICES = Prices(prompt=10.0, completion=50.0)


def test_the_limit_of_cost_is_never_exceeded_and_a_higher_one_goes_on(config):
    usage = {"prompt_tokens": 2000, "completion_tokens": 100}  # 0.025 a call
    with FaultServer(lambda body, times: dataclasses.replace(good(body, times), usage=usage)) as server:
        limited = config(server.url, max_tokens=100, prices=dataclasses.replace(PRICES, max_cost=0.2))
        with pytest.raises(EndpointError, match=r"of prices\.max_cost 0\.2 is spent\. .*run again with a higher"):
            label(limited)
        first = len(server.requests)
        assert 2 <= first <= 8 and not Path(limited.output).exists()
        with pytest.raises(EndpointError, match="is spent"):  # earlier runs count
            label(limited)
        assert len(server.requests) == first
        label(dataclasses.replace(limited, prices=dataclasses.replace(PRICES, max_cost=1.0)))
    assert len(server.requests) == 16 == len(server.counts)
    assert sum(row["teacher_usage"]["prompt_tokens"] for row in read(limited.output)) == 16 * 2000


def test_useless_replies_and_repairs_count_and_uncounted_calls_are_charged_at_most(config, responses, caplog):
    caplog.set_level("INFO")
    responses(ROWS[:1])
    with FaultServer(lambda body, times: Answer("?")) as server:
        label(config(server.url, prices=PRICES))
    assert "4 calls, 400 prompt and 40 completion tokens, at a cost of 0.006" in caplog.text
    with FaultServer(lambda body, times: Answer(verdict(1), usage=None)) as server:
        label(config(server.url, prices=PRICES, output=config().output.replace("labelled", "other")))
    usage = read(config().output.replace("labelled", "other"))[0]["teacher_usage"]
    assert usage["calls_not_counted_by_the_server"] == 2 and usage["completion_tokens"] == 2 * 512


def test_failed_units_alone_are_asked_again(config):
    down = [True]

    def script(body, times):
        return Answer(status=503) if down[0] and "3 + 3" in user_text(body) else good(body, times)

    with FaultServer(script) as server:
        label(config(server.url))
        assert sum(score is None for row in read(config().output) for score in row["scores"].values()) == 4
        down[0] = False
        before = len(server.requests)
        label(config(server.url))
        assert len(server.requests) == before + 4
    assert all(None not in row["scores"].values() and row["reasons"] == {} for row in read(config().output))


def test_labels_of_other_aspects_are_kept(config, responses):
    responses([{**ROWS[0], "scores": {"old": 3}, "reasons": {}, "justifications": {"old": "yes"}}])
    with FaultServer(lambda body, times: Answer(verdict(2))) as server:
        label(config(server.url))
    assert read(config().output)[0]["scores"] == {"old": 3, "logicality": 2, "fluency": 2}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"aspects": ("humour",)}, "aspects expects names out of semantic_consistency, .*, but got 'humour'"),
        ({"custom_aspects": (dataclasses.replace(POLITE, name="fluency"),)}, "expect distinct aspects"),
        ({"aspects": ()}, "expect distinct aspects, but got none"),
        ({"samples": 3}, "samples expects 1, or more with a temperature above 0"),
        ({"weight_by_agreement": True}, "weight_by_agreement expects samples above 1"),
        ({"output": "x"}, r"output expects a name on \.jsonl"),
    ],
)
def test_contradictory_settings_are_refused(config, changes, message):
    with pytest.raises(SettingsError, match=message):
        config(**changes)


def test_a_scale_with_gaps_is_asked_for_and_read_as_it_is():
    gaps = Rubric("tone", "Is it kind?", values=(0, 50, 100))
    assert (gaps.lowest, gaps.highest, gaps.scores) == (0, 100, [0, 50, 100])
    assert '"score": <one of 0, 50, 100>' in reply_form([gaps])
    assert read_reply(verdict(50), [gaps]).scores == {"tone": 50}
    reasons = read_reply(verdict(25), [gaps]).reasons
    assert reasons == {"tone": "score expects one of 0, 50, 100, but got 25"}
    schema = response_format([gaps], "json_schema")["json_schema"]["schema"]
    assert schema["properties"]["score"]["enum"] == [0, 50, 100]


def test_impossible_scales_and_limits_are_refused():
    with pytest.raises(SettingsError, match="expects a name and lowest < highest"):
        Rubric("x", "y", 3, 3)
    with pytest.raises(SettingsError, match="expects levels from 1 to 5, but got 6"):
        Rubric("x", "y", levels={6: "z"})
    with pytest.raises(SettingsError, match="expects levels at one of 0, 50, 100, but got 25"):
        Rubric("x", "y", levels={25: "z"}, values=(0, 50, 100))
    with pytest.raises(SettingsError, match="expects ascending values, but got"):
        Rubric("x", "y", values=(50, 0, 100))
    with pytest.raises(SettingsError, match=r"max_cost expects prices\.prompt or prices\.completion above 0"):
        Prices(max_cost=1.0)


def test_doubled_responses_are_refused(config, responses):
    responses([ROWS[0], ROWS[0]])
    with pytest.raises(DataFileError, match="row 1 expects a name of its own"):
        label(config())


def test_killed_again_and_again_no_label_is_lost_or_doubled_or_paid_twice(config):
    rng = random.Random(9)
    faults = [
        Answer(status=429),
        Answer(status=500),
        Answer("x" * 99, cut=50),
        Answer("?"),
        Answer(verdict(9)),
        Answer("{"),
    ]

    def fault(body, times):
        rare = random.Random(f"{body['messages'][0]['content']}{body['messages'][1]['content']}{body['seed']}{times}")
        return rare.choice(faults) if rare.random() < 0.3 and len(body["messages"]) == 2 else None

    def script(body, times):
        text = body["messages"][1]["content"] + body["messages"][0]["content"]
        answer = fault(body, times) or Answer(verdict(score_of(text)))
        return dataclasses.replace(answer, delay=rng.uniform(0, 0.02))

    with FaultServer(script) as server:
        job = config(server.url, samples=3, temperature=1.0, endpoint={"attempts": 8})
        killed = kill_and_resume(label, job, server, cycles=6, seed=12)
        asked = len(server.requests)
        label(job)
        assert len(server.requests) == asked
    assert killed >= 3
    rows = read(job.output)
    assert [{key: row[key] for key in ROWS[0]} for row in rows] == ROWS
    n_units = len(ROWS) * 2 * 3
    for row in rows:
        for name, rubric in (("logicality", LOGIC), ("fluency", FLUENT)):
            system, user = grading_messages(row, [rubric], None)
            assert row["sample_scores"][name] == [score_of(user["content"] + system["content"])] * 3
            assert row["agreement"][name] == 1.0
    firsts = sum(n for name, n in server.answered.items() if len(json.loads(name)["messages"]) == 2)
    assert n_units <= firsts <= n_units + 4 * killed
    counted = sum(row["teacher_usage"]["calls"] for row in rows)
    assert 0 <= sum(server.answered.values()) - counted <= 4 * killed  # only calls in flight at a kill go uncounted
