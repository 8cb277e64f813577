import dataclasses
import json
import os
import random
import time
from pathlib import Path

import pytest
import torch
from inspector_training.labelling.endpoint import FAILURES_IN_A_ROW, EndpointConfig, derived_seed
from inspector_training.labelling.generate import LocalConfig, LocalGenerator, RowSampler
from inspector_training.labelling.journal import journal_path
from inspector_training.runs.command import main
from inspector_training.stages.collect import Config as CollectConfig
from inspector_training.stages.collect import run as collect
from support.fault_server import Answer, FaultServer, kill_and_resume, user_text
from support.models import tiny_config
from support.paths import TOKENIZER
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig, LlamaForCausalLM

from inspector_pipeline.errors import BackboneError, DataFileError, EndpointError, SettingsError

N = 12


def echo(body, times):
    return Answer(f"about {user_text(body)}")


@pytest.fixture
def questions(tmp_path):
    rows = [{"id": f"q{i}", "question": f"What is {i} + {i}?", "answer": str(2 * i), "split": "x"} for i in range(N)]
    random.Random(1).shuffle(rows)
    path = tmp_path / "questions.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture
def config(questions, tmp_path):
    def make(url="http://127.0.0.1:9/v1", endpoint=(), remote=True, **changes):
        settings = {"concurrency": 4, "timeout": 60.0, "attempts": 4, "backoff": 0.01, **dict(endpoint)}
        place = {"questions": str(questions), "output": str(tmp_path / "responses.jsonl"), "generator": "m"}
        return CollectConfig(**{**place, "endpoint": EndpointConfig(url, **settings) if remote else None, **changes})

    return make


def read(path):
    return [json.loads(line) for line in Path(path).read_text(encoding="utf-8").split("\n") if line]


def test_responses_are_joined_by_id_in_the_inputs_order_however_the_answers_come(config, questions):
    def late(body, times):
        return dataclasses.replace(echo(body, times), delay=random.Random(user_text(body)).uniform(0, 0.1))

    with FaultServer(late) as server:
        collect(config(server.url, samples=2, temperature=0.7, top_p=0.9, system="Be brief.", prompt="Q: {question}"))
    rows, asked = read(config().output), read(questions)
    assert [(row["id"], row["sample"]) for row in rows] == [(row["id"], k) for row in asked for k in (0, 1)]
    for row, question in zip(rows[::2], asked, strict=True):
        assert row == {
            **question,
            "sample": 0,
            "prediction": f"about Q: {question['question']}",
            "generator": "m",
            "error": None,
            "finish_reason": "stop",
            "usage": {"prompt_tokens": 100, "completion_tokens": 10, "calls": 1},
        }
    assert len(server.requests) == 2 * N and server.most_in_flight <= 4
    assert len({body["seed"] for body in server.requests}) == 2 * N
    body = server.requests[0]
    assert (body["temperature"], body["top_p"], body["max_tokens"]) == (0.7, 0.9, 512)
    assert body["messages"][0] == {"role": "system", "content": "Be brief."}


FAULTS = {
    "429": Answer(status=429),
    "500": Answer(status=500),
    "503, not JSON": Answer(status=503, raw=b"<html>"),
    "time-out": Answer("late", delay=4.0),
    "cut-off body": Answer("x" * 500, cut=100),
    "cut-off JSON": Answer(raw=b'{"choices": [{"mess'),
    "no choices": Answer(raw=b'{"choices": []}'),
    "no message": Answer(raw=b'{"choices": [{"index": 0}]}'),
    "content of a wrong type": Answer(raw=b'{"choices": [{"message": {"content": 5}}]}'),
    "a list": Answer(raw=b"[]"),
    "not JSON at all": Answer(raw=b"hello", headers={"Content-Type": "text/plain"}),
    "nothing": Answer(raw=b""),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_faults_that_may_pass_are_retried_until_an_answer_comes(config, fault):
    with FaultServer(lambda body, times: FAULTS[fault] if times < 2 else echo(body, times)) as server:
        patience = {"timeout": 1.5, "attempts": 9} if fault == "time-out" else {}
        collect(config(server.url, endpoint={"concurrency": N, **patience}))
    rows = read(config().output)
    assert all(row["error"] is None and row["prediction"] == f"about {row['question']}" for row in rows)
    assert set(server.counts.values()) == {3} or (fault == "time-out" and min(server.counts.values()) >= 3)


def test_retry_after_is_waited_for(config):
    busy = Answer(status=429, headers={"Retry-After": "1"})
    with FaultServer(lambda body, times: busy if not times else echo(body, times)) as server:
        begun = time.monotonic()
        collect(config(server.url, endpoint={"concurrency": N}))
    assert time.monotonic() - begun >= 1


def test_exhausted_rows_keep_their_error_and_only_they_are_asked_again(config, caplog):
    broken = {"What is 3 + 3?", "What is 7 + 7?"}
    down = [True]

    def script(body, times):
        return Answer(status=500, error="overloaded") if down[0] and user_text(body) in broken else echo(body, times)

    with FaultServer(script) as server:
        collect(config(server.url))
        rows = {row["question"]: row for row in read(config().output)}
        assert {text for text, row in rows.items() if row["prediction"] is None} == broken
        assert "500" in rows["What is 3 + 3?"]["error"] and "overloaded" in rows["What is 3 + 3?"]["error"]
        assert sum(server.counts.values()) == N - 2 + 2 * 4
        down[0] = False
        collect(config(server.url, retry_failed=False))
        assert sum(server.counts.values()) == N - 2 + 2 * 4
        collect(config(server.url))
        assert sum(server.counts.values()) == N + 2 * 4
        assert all(row["error"] is None and row["prediction"] for row in read(config().output))
        collect(config(server.url, endpoint={"concurrency": 1}))  # how it is asked is no part of what is made
        assert sum(server.counts.values()) == N + 2 * 4
    assert not journal_path(Path(config().output)).exists()


def test_what_no_retry_mends_is_the_rows_error_at_once(config):
    long = Answer(status=400, error="maximum context length is 8 tokens")
    with FaultServer(lambda body, times: long if "5 + 5" in user_text(body) else echo(body, times)) as server:
        collect(config(server.url))
        collect(config(server.url))
    assert set(server.counts.values()) == {1}
    failed = [row for row in read(config().output) if row["prediction"] is None]
    assert [row["question"] for row in failed] == ["What is 5 + 5?"]
    assert "maximum context length" in failed[0]["error"]


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (Answer(""), "the reply is empty"),
        (Answer(None), "the reply is empty"),
        (Answer(" \n"), "the reply is empty"),
        (Answer(None, refusal="I cannot"), "refused: I cannot"),
    ],
)
def test_an_empty_reply_is_no_response(config, answer, error):
    with FaultServer(lambda body, times: answer) as server:
        collect(config(server.url))
    assert {(row["prediction"], row["error"]) for row in read(config().output)} == {(None, error)}


def test_cut_off_responses_say_so_and_half_a_surrogate_pair_does_no_harm(config):
    cut = b'{"choices": [{"finish_reason": "length", "message": {"content": "so \\ud83d"}}]}'
    with FaultServer(lambda body, times: Answer(raw=cut)) as server:
        collect(config(server.url))
    assert {(row["prediction"], row["finish_reason"]) for row in read(config().output)} == {("so \ufffd", "length")}


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (Answer(status=401, error="bad key"), "refuses the model 'm': .*bad key.*OPENAI_API_KEY"),
        (Answer(status=404, error="no model m"), "refuses the model 'm': .*no model m"),
        (Answer(status=403, error="not yours"), "refuses the model 'm'"),
        (Answer(status=429, raw=b'{"error": {"message": "no money", "code": "insufficient_quota"}}'), "no money"),
    ],
)
def test_refusals_stop_the_stage_with_one_line(config, answer, message, caplog):
    with FaultServer(lambda body, times: answer) as server:
        with pytest.raises(EndpointError, match=message):
            collect(config(server.url))
        assert len(server.requests) <= 4
        arguments = ["--questions", config().questions, "--output", config().output, "--generator", "m"]
        with pytest.raises(SystemExit, match="1"):
            main(["collect", *arguments, "--endpoint.base_url", server.url])
    lines = [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]
    assert len(lines) == 1 and lines[0].startswith("EndpointError: ") and "\n" not in lines[0]


def test_nobody_listening_is_told_at_once(config):
    begun = time.monotonic()
    with pytest.raises(EndpointError, match="Nobody answers at http://127.0.0.1:9/v1"):
        collect(config(endpoint={"backoff": 60.0}))
    assert time.monotonic() - begun < 60


def test_a_stop_on_the_way_keeps_what_was_answered(config):
    with FaultServer(
        lambda body, times: echo(body, times) if len(server.requests) <= 7 else Answer(status=401)
    ) as server:
        with pytest.raises(EndpointError, match="refuses the model"):
            collect(config(server.url))
        assert not Path(config().output).exists()
        kept = sum(server.answered.values())
        server.script = echo
        collect(config(server.url))
    assert kept == 7 and sum(server.answered.values()) == N
    assert all(row["prediction"] for row in read(config().output))


def test_a_server_that_only_fails_stops_the_stage(config):
    with (
        FaultServer(lambda body, times: Answer(status=500)) as server,
        pytest.raises(EndpointError, match=f"failed {FAILURES_IN_A_ROW} units in a row"),
    ):
        collect(config(server.url, samples=9, temperature=1.0, endpoint={"attempts": 1}))
    assert len(server.requests) < FAILURES_IN_A_ROW + 4


def test_the_key_is_sent_and_written_nowhere(config, tmp_path, monkeypatch, caplog):
    monkeypatch.setenv("SOME_KEY", "s3cr3t-key")
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    caplog.set_level("DEBUG")
    with FaultServer(lambda body, times: Answer(status=500) if "3" in user_text(body) else echo(body, times)) as server:
        collect(config(server.url, endpoint={"api_key_env": "SOME_KEY"}))
        assert server.keys == {"Bearer s3cr3t-key"}
        files = [path.read_text() for path in tmp_path.rglob("*") if path.is_file()]
        assert len(files) >= 4 and not any("s3cr3t" in text for text in [*files, caplog.text])
        server.keys.clear()
        collect(config(server.url, samples=2, temperature=1.0, output=str(tmp_path / "other.jsonl")))
        assert server.keys == {"Bearer none"}


def test_a_resume_with_other_settings_is_refused(config):
    with FaultServer(
        lambda body, times: echo(body, times) if len(server.requests) < 4 else Answer(status=401)
    ) as server:
        with pytest.raises(EndpointError, match="refuses"):
            collect(config(server.url))
        with pytest.raises(DataFileError, match="begun with other settings: max_tokens: 512, but now 9"):
            collect(config(server.url, max_tokens=9))
        assert len(server.requests) <= 8


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"samples": 3}, "samples expects 1, or more with a temperature above 0, but got 3"),
        ({"samples": 0}, "samples expects 1"),
        ({"prompt": "Answer!"}, "prompt expects {question} in it"),
        ({"output": "folder"}, r"output expects a name on \.jsonl"),
    ],
)
def test_contradictory_settings_are_refused(config, changes, message):
    with pytest.raises(SettingsError, match=message):
        config(**changes)


def test_doubled_ids_are_refused(config, questions):
    questions.write_text('{"id": 1, "question": "a"}\n{"id": 1, "question": "b"}\n')
    with pytest.raises(DataFileError, match="row 1 expects a name of its own"):
        collect(config())


def test_killed_again_and_again_no_row_is_lost_or_doubled_or_paid_twice(config, questions):
    rng = random.Random(5)
    faults = [Answer(status=429), Answer(status=500), Answer("x" * 99, cut=50), Answer(raw=b'{"choi')]

    def script(body, times):
        rare = random.Random(f"{user_text(body)}{body['seed']}{times}")
        answer = rare.choice(faults) if rare.random() < 0.3 else echo(body, times)
        return dataclasses.replace(answer, delay=rng.uniform(0, 0.02))

    with FaultServer(script) as server:
        job = config(server.url, samples=5, temperature=1.0, endpoint={"attempts": 8})
        killed = kill_and_resume(collect, job, server, cycles=6, seed=11)
        asked = len(server.requests)
        collect(job)
        assert len(server.requests) == asked
    assert killed >= 3
    expected = [(row["id"], k, f"about {row['question']}") for row in read(questions) for k in range(5)]
    assert [(row["id"], row["sample"], row["prediction"]) for row in read(job.output)] == expected
    # Only what was in flight at a kill can have been answered twice.
    assert len(server.answered) == 5 * N and sum(server.answered.values()) <= 5 * N + 4 * killed


@pytest.fixture(scope="session")
def tiny_lm(tmp_path_factory):
    torch.manual_seed(5)
    folder = tmp_path_factory.mktemp("lm")
    LlamaForCausalLM(tiny_config("llama")).eval().save_pretrained(folder)
    AutoTokenizer.from_pretrained(TOKENIZER).save_pretrained(folder)
    return folder


@pytest.fixture
def local(config, tiny_lm):
    def make(batch_size=5, **changes):
        own = LocalConfig(dtype="float32", batch_size=batch_size, device="cpu")
        return config(**{"generator": str(tiny_lm), "local": own, "max_tokens": 12, **changes}, remote=False)

    return make


def test_local_greedy_responses_are_those_of_each_question_alone(local, tiny_lm):
    collect(local())
    model = AutoModelForCausalLM.from_pretrained(tiny_lm, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(tiny_lm)
    greedy = GenerationConfig(max_new_tokens=12, do_sample=False, eos_token_id=tokenizer.eos_token_id, pad_token_id=0)
    for row in read(local().output):
        chat = [{"role": "user", "content": row["question"]}]
        ids = tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_tensors="pt").input_ids
        new = model.generate(ids, attention_mask=torch.ones_like(ids), generation_config=greedy)[0, ids.shape[1] :]
        assert row["prediction"] == tokenizer.decode(new, skip_special_tokens=True)
        assert row["usage"]["prompt_tokens"] == ids.shape[1] and row["generator"] == tiny_lm.name


def test_local_samples_do_not_depend_on_the_batch(local, tmp_path):
    outputs = []
    for batch_size in (1, 7):
        job = local(batch_size, samples=2, temperature=1.0, top_p=0.95, output=str(tmp_path / f"{batch_size}.jsonl"))
        collect(job)
        outputs.append([row["prediction"] for row in read(job.output)])
    assert outputs[0] == outputs[1]
    assert len(set(outputs[0])) > N


def test_a_torn_local_run_ends_as_if_it_had_not_been(local, tmp_path):
    whole = local(samples=2, temperature=1.0, output=str(tmp_path / "whole.jsonl"))
    collect(whole)
    torn = local(samples=2, temperature=1.0)
    journal = journal_path(Path(torn.output))
    lines = []
    original = os.fsync

    class Killed(BaseException):
        pass

    def fsync(file):
        original(file)
        lines.append(None)
        if len(lines) == 4:  # the header and three batches
            raise Killed

    with pytest.MonkeyPatch.context() as patch, pytest.raises(Killed):
        patch.setattr("os.fsync", fsync)
        collect(torn)
    journal.write_bytes(journal.read_bytes()[:-30])  # tears the third batch
    collect(torn)
    assert read(torn.output) == read(whole.output)


def test_sampling_follows_the_softmax():
    logits = torch.tensor([2.0, 1.0, 0.0, -1.0])
    n = 4000
    sampler = RowSampler(0.5, 1.0, [derived_seed(0, "q", k) for k in range(n)], torch.device("cpu"))
    drawn = sampler(torch.zeros(n, 1, dtype=torch.long), logits.repeat(n, 1)).argmax(dim=1)
    share = torch.bincount(drawn, minlength=4) / n
    assert (share - (logits / 0.5).softmax(0)).abs().max() < 0.02


def test_a_prompt_that_leaves_no_room_is_its_rows_error(local, questions):
    rows = [{"id": "short", "question": "Why?"}, {"id": "long", "question": "why " * 3000}]
    questions.write_text("".join(json.dumps(row) + "\n" for row in rows))
    collect(local())
    short, long = read(local().output)
    assert short["prediction"] and long["prediction"] is None
    assert "but the model has room for" in long["error"]


def test_a_model_without_its_head_is_refused(backbone_dir):
    with pytest.raises(BackboneError, match=r"expects weights for lm_head\.weight to generate text"):
        LocalGenerator(str(backbone_dir), LocalConfig(device="cpu"))
