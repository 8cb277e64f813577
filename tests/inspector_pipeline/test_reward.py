import json
import textwrap

import pytest
import torch
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from support.fresh import run_fresh
from support.models import PAIRS, aspect, chat_reading, feature
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSequenceClassification

from inspector_pipeline import (
    BackboneError,
    InspectorReward,
    JudgeConfigError,
    PairError,
    PairTemplate,
    ReadingError,
    RewardFunction,
    load_judge,
)
from inspector_pipeline.errors import SettingsError
from inspector_pipeline.pair_tokenizer import PairTokenizer
from inspector_pipeline.pairs import is_blank
from inspector_pipeline.reward import ConversationReader

ASPECTS = [
    aspect("correctness", [feature(3, "response_mean", "rms_normed"), feature(1, "last")], "ordinal"),
    aspect("fluency", [feature(2, "mean")], classes=(3, 4, 5)),
    aspect("extra", [feature(3, "last", "final_norm")], classes=(0, 1), counts=False),
]


@pytest.fixture
def reward_dir(make_judge, tmp_path):
    load_judge(make_judge(ASPECTS), device="cpu").save_pretrained(tmp_path / "fused")
    return tmp_path / "fused"


def load_reward(folder, **kwargs):
    return AutoModelForSequenceClassification.from_pretrained(folder, num_labels=1, **kwargs)


def expected_totals(judge, pairs=PAIRS):
    return torch.tensor([[r["expected"]["correctness"] + r["expected"]["fluency"]] for r in judge(pairs)])


def conversation(pair):
    return [{"role": "user", "content": pair["question"]}, {"role": "assistant", "content": pair["prediction"]}]


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("end", ["", "<|im_end|>", "<|im_end|>\n", "<|im_end|>\n<|im_end|>"])
def test_the_logit_is_the_pipelines_expected_total(reward_dir, tokenizer, side, end):
    reward = load_reward(reward_dir)
    assert type(reward) is InspectorReward
    reading = PairTemplate.from_chat_template(tokenizer)
    texts = [reading.text(pair["question"], pair["prediction"]).removesuffix("<|im_end|>") + end for pair in PAIRS]
    batch = tokenizer(texts, padding=True, padding_side=side, add_special_tokens=False, return_tensors="pt")
    logits = reward(**batch).logits
    expected = expected_totals(load_judge(reward_dir, device="cpu"))
    assert logits.shape == (3, 1) and logits.dtype == torch.float32
    torch.testing.assert_close(logits, expected, rtol=0, atol=1e-4)
    alone = reward(torch.tensor([tokenizer(texts[1], add_special_tokens=False)["input_ids"]])).logits
    torch.testing.assert_close(alone, expected[1:2], rtol=0, atol=1e-4)


texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="|"), min_size=1).filter(
    lambda text: not is_blank(text)
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(question=texts, prediction=texts, closed=st.booleans())
@example("\n\nq\n", "\n\np\n\n", True)
@example("q", "\np", False)
@example("q", " \n p", True)
@example("assistant\n", "assistant\n", True)
@example("word " * 200, "p " * 200, True)
def test_the_response_is_found_where_the_reading_puts_it(tokenizer, question, prediction, closed):
    reading = PairTemplate.from_chat_template(tokenizer)
    expected = PairTokenizer(reading, tokenizer, 128)(question, prediction)
    text = reading.text(question, prediction)
    ids = tokenizer(text if closed else text.removesuffix(reading.suffix), add_special_tokens=False)["input_ids"]
    found = ConversationReader(reading, tokenizer, 128)(ids)
    if expected.truncated:
        assert found.truncated and len(found.input_ids) == len(expected.input_ids)
        assert found.response.size == expected.response.size
    else:
        assert found == expected


def with_template(tokenizer, template):
    import copy

    changed = copy.deepcopy(tokenizer)
    changed.chat_template = template
    return changed


REASONING = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n"
    "{% if m.role == 'assistant' and '<think>' not in m.content %}<think>\n\n</think>\n\n{% endif %}"
    "{{ m.content }}<|im_end|>\n{% endfor %}"
)


@pytest.mark.parametrize(
    ("written", "response"),
    [("<think>\n\n</think>\n\n4", "4"), ("4", "4"), ("<think>\nadd\n</think>\n\n4", "<think>\nadd\n</think>\n\n4")],
)
def test_an_empty_block_of_reasoning_is_the_templates_and_a_filled_one_is_the_policys(tokenizer, written, response):
    tokenizer = with_template(tokenizer, REASONING)
    reading = PairTemplate.from_chat_template(tokenizer)
    assert reading.middle.endswith("<think>\n\n</think>\n\n")
    text = f"<|im_start|>user\nq<|im_end|>\n<|im_start|>assistant\n{written}<|im_end|>\n"
    found = ConversationReader(reading, tokenizer, 128)(tokenizer(text, add_special_tokens=False)["input_ids"])
    assert tokenizer.decode(found.input_ids[slice(*found.response)]) == response


def test_system_prompts_and_earlier_turns_are_read_as_they_are(tokenizer):
    reading = PairTemplate.from_chat_template(tokenizer)
    turns = [("system", "Be brief."), ("user", "Hi"), ("assistant", "Hello"), ("user", "2 + 2?"), ("assistant", "4")]
    messages = [{"role": role, "content": content} for role, content in turns]
    ids = tokenizer.apply_chat_template(messages)["input_ids"]
    found = ConversationReader(reading, tokenizer, 128)(ids)
    assert tokenizer.decode(found.input_ids[slice(*found.response)]) == "4"
    assert tokenizer.decode(found.input_ids) == tokenizer.decode(ids).rstrip()


def test_what_has_no_reward_is_not_given_one(reward_dir, tokenizer, caplog):
    reward = load_reward(reward_dir)
    opened = "<|im_start|>user\n2 + 2?<|im_end|>\n<|im_start|>assistant\n"
    texts = [opened, opened + " \n<|im_end|>", opened + "4<|im_end|>\n<|im_start|>user\nThanks", opened + "4"]
    batch = tokenizer(texts, padding=True, add_special_tokens=False, return_tensors="pt")
    logits = reward(**batch).logits[:, 0]
    assert logits[:3].isnan().all()
    judge = load_judge(reward_dir, device="cpu")
    expected = expected_totals(judge, [{"question": "2 + 2?", "prediction": "4"}])[0]
    torch.testing.assert_close(logits[3:], expected, rtol=0, atol=1e-4)
    assert "3 of 4 conversations have no reward" in caplog.text
    with pytest.raises(PairError, match=r"chat-formatted conversation with .*assistant.* but got '2 \+ 2\? 4'"):
        reward(**tokenizer("2 + 2? 4", add_special_tokens=False, return_tensors="pt"))


def test_a_judge_whose_config_names_the_reward_in_a_file_of_its_own_still_loads(reward_dir):
    path = reward_dir / "config.json"
    config = json.loads(path.read_text())
    assert config["auto_map"]["AutoModelForSequenceClassification"] == "modeling_inspector.InspectorReward"
    config["auto_map"]["AutoModelForSequenceClassification"] = "reward.InspectorReward"  # as judges were saved before
    path.write_text(json.dumps(config))
    assert type(load_reward(reward_dir)) is InspectorReward


def test_states_that_overflow_are_an_error_and_no_reward(reward_dir, tokenizer):
    reward = load_reward(reward_dir)
    reward.backbone.get_input_embeddings().weight.data.fill_(float("inf"))
    ids = tokenizer.apply_chat_template(conversation(PAIRS[0]), return_tensors="pt")["input_ids"]
    with pytest.raises(BackboneError, match="expects finite states"):
        reward(ids)


def test_a_reward_needs_its_tokenizer(reward_dir):
    model = InspectorReward(AutoConfig.from_pretrained(reward_dir))
    with pytest.raises(BackboneError, match="expects its tokenizer"):
        model(torch.tensor([[1]]))


def test_rubric_judges_are_refused_as_models_and_accepted_as_functions(make_judge):
    rubric = {"prefix": "Rate: ", "middle": "\n", "suffix": "\nScore:", "add_special_tokens": True}
    readings = {"one": rubric, "two": {**rubric, "prefix": "Check: "}}
    aspects = [aspect("a", [feature(2, reading="one")]), aspect("b", [feature(1, reading="two")])]
    several = make_judge(aspects, readings, name="several")
    with pytest.raises(JudgeConfigError, match="no texts to write into rubrics, but this one has one, two"):
        load_reward(several)
    with pytest.raises(ReadingError, match="whose reading is its tokenizer's chat template.*Rate: {question}"):
        load_reward(make_judge(aspects[:1], {"one": rubric}, name="single"))
    judge = load_judge(several, device="cpu")
    rewards = RewardFunction(judge)([p["question"] for p in PAIRS], [p["prediction"] for p in PAIRS])
    assert rewards == pytest.approx([sum(result["expected"].values()) for result in judge(PAIRS)])


def test_a_rubric_inside_the_chat_template_is_refused(make_judge, tokenizer):
    reading = {**chat_reading(tokenizer), "prefix": "<|im_start|>user\nRate this: "}
    with pytest.raises(ReadingError, match="whose reading is its tokenizer's chat template"):
        load_reward(make_judge([aspect("a", [feature(1)])], {"chat": reading}))


def test_the_reward_is_the_field_that_the_judge_ranks_by(make_judge, tokenizer):
    aspects = [aspect("a", [feature(1)]), aspect("b", [feature(1, "last")], counts=False)]
    folder = make_judge(aspects, rank_by="expected_b")
    judge, texts = load_judge(folder, device="cpu"), [[pair[key] for pair in PAIRS] for key in PAIRS[0]]
    expected = [result["expected"]["b"] for result in judge(PAIRS)]
    assert RewardFunction(judge)(*texts) == pytest.approx(expected, abs=1e-5)
    totals = [result["expected_total"] for result in judge(PAIRS)]
    assert RewardFunction(judge, rank_by="expected_total")(*texts) == pytest.approx(totals, abs=1e-5)
    reading = PairTemplate.from_chat_template(tokenizer)
    written = [reading.text(pair["question"], pair["prediction"]) for pair in PAIRS]
    batch = tokenizer(written, padding=True, add_special_tokens=False, return_tensors="pt")
    assert load_reward(folder)(**batch).logits[:, 0].tolist() == pytest.approx(expected, abs=1e-4)


def test_judges_without_a_total_are_refused(make_judge):
    folder = make_judge([aspect("a", [feature(1)], counts=False)])
    with pytest.raises(JudgeConfigError, match="expects an aspect that counts in the total"):
        load_reward(folder)
    with pytest.raises(SettingsError, match="expects a judge with an aspect that counts in the total score"):
        RewardFunction(load_judge(folder, device="cpu"))


@pytest.mark.parametrize(
    ("template", "message"),
    [
        (None, "expects a tokenizer with a chat template"),
        (
            "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}",
            "turns begin and end on special tokens, but got '\\\\nassistant: ' between",
        ),
    ],
)
def test_templates_that_cannot_be_found_in_ids_are_refused(tokenizer, template, message):
    tokenizer = with_template(tokenizer, template)
    reading = PairTemplate("", "\nassistant: ", "") if template is None else PairTemplate.from_chat_template(tokenizer)
    with pytest.raises(ReadingError, match=message):
        ConversationReader(reading, tokenizer, 128)


@pytest.mark.parametrize("form", ["text", "turns"])
def test_the_function_scores_what_the_pipeline_scores(reward_dir, form):
    judge = load_judge(reward_dir, device="cpu")
    system = {"role": "system", "content": "Be brief."}
    prompts = [pair["question"] if form == "text" else [system, conversation(pair)[0]] for pair in PAIRS]
    completions = [pair["prediction"] if form == "text" else conversation(pair)[1:] for pair in PAIRS]
    rewards = RewardFunction(judge, batch_size=2)(prompts, completions, answer=["4"] * 3)
    assert rewards == pytest.approx(expected_totals(judge)[:, 0].tolist(), abs=1e-5)


def test_blank_completions_have_no_reward_and_other_forms_are_errors(reward_dir):
    reward = RewardFunction(load_judge(reward_dir, device="cpu"))
    assert reward(["q", "q"], [" \n", ""]) == [None, None]
    user = {"role": "user", "content": "q"}
    with pytest.raises(
        PairError, match="Pair 0 expects .* that ends with the user as prompt, but it ends with the assi"
    ):
        reward([[user, {"role": "assistant", "content": "a"}]], ["4"])
    with pytest.raises(PairError, match="Turn 0, the assistant's, expects text"):
        reward(["q"], [[{"role": "assistant", "content": None}]])
    with pytest.raises(PairError, match="as many completions as prompts"):
        reward(["q"], [])
    with pytest.raises(PairError, match="blank string"):
        reward([" "], ["4"])


TURN = {"role": "assistant"}


@pytest.mark.parametrize(
    ("turns", "message"),
    [
        ([{**TURN, "content": "4", "tool_calls": [{"arguments": {}}]}], "Turn 0 expects calls of tools with a name"),
        ([TURN], "Turn 0 of a conversation expects a role and a text"),
        ([{**TURN, "content": 4}], "Turn 0 expects text, but got int"),
        ([{**TURN, "content": [{"type": "image", "url": "x"}]}], "part of the type 'image'"),
        ([{**TURN, "content": "4", "images": ["x"]}], "Turn 0 holds 'images'"),
        ([{**TURN, "content": [{"type": "text"}]}], "part {'type': 'text'}"),
        ([{"role": "tool", "content": "4"}], "ends with the tool's"),
        ([{**TURN, "content": "4"}, {"role": "tool", "content": "4"}], "ends with the tool's"),
        ([{"content": "4"}], "Turn 0 of a conversation expects a role"),
        (["4"], "Turn 0 of a conversation expects a role"),
        ([], "got list"),
        (None, "got NoneType"),
        (4, "got int"),
    ],
)
def test_conversations_that_are_more_than_text_say_where(judge, turns, message):
    with pytest.raises(PairError, match=f"Pair 1 expects .* the assistant's turns as completion, but.*{message}"):
        RewardFunction(judge)(["q", "q"], ["4", turns])


def test_conversations_are_judged_as_at_the_other_doors(judge):
    turns = [{"role": "user", "content": "Hi."}, {"role": "assistant", "content": "Ho."}]
    turns = [{"role": "system", "content": "Be brief."}, *turns, {"role": "user", "content": "2 + 2?"}]
    call = {**TURN, "content": None, "tool_calls": [{"function": {"name": "add", "arguments": "2, 2"}}]}
    said = [call, {"role": "tool", "content": "4"}, {**TURN, "content": "It is 4."}]
    expected = judge([{"messages": [*turns, said[-1]]}, {"messages": [turns[-1], *said]}])
    found = RewardFunction(judge)([turns, "2 + 2?"], ["It is 4.", said])
    assert found == pytest.approx([result["expected_total"] for result in expected], abs=1e-5)


def test_text_in_parts_is_read_and_invisible_text_has_no_reward(judge):
    reward = RewardFunction(judge)
    parts = [{"type": "text", "text": "It is "}, {"type": "text", "text": "4."}]
    prompt = [{"role": "system"}, {"role": "user", "content": [{"type": "text", "text": "2 + 2?"}]}]
    told, plain = reward([prompt, "2 + 2?"], [[{**TURN, "content": parts}], "It is 4."])
    assert told == pytest.approx(plain, abs=1e-5)
    assert reward(["q", "q"], ["\u200b", [{**TURN, "content": "\u3164"}]]) == [None, None]


REMOTE = """
    import sys, json
    sys.modules["inspector_pipeline"] = None  # as where the package is not installed
    import warnings; warnings.simplefilter("error")
    from transformers import AutoModelForSequenceClassification, AutoTokenizer
    folder, resaved, texts = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
    model = AutoModelForSequenceClassification.from_pretrained(folder, num_labels=1, trust_remote_code=True)
    assert type(model).__module__.startswith("transformers_modules"), type(model)
    tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=True)
    batch = tokenizer(texts, padding=True, add_special_tokens=False, return_tensors="pt")
    print(json.dumps(model(**batch).logits.tolist()))
    model.save_pretrained(resaved)
    tokenizer.save_pretrained(resaved)
"""


@pytest.mark.parametrize("family", ["qwen3"], indirect=True)
def test_loads_by_remote_code_without_the_package(reward_dir, tokenizer, tmp_path):
    import os

    reading = PairTemplate.from_chat_template(tokenizer)
    texts = json.dumps([reading.text(pair["question"], pair["prediction"]) for pair in PAIRS])
    env = {**os.environ, "HF_MODULES_CACHE": str(tmp_path / "modules")}
    done = run_fresh(textwrap.dedent(REMOTE), reward_dir, tmp_path / "resaved", texts, env=env, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    expected = expected_totals(load_judge(reward_dir, device="cpu"))
    torch.testing.assert_close(torch.tensor(json.loads(done.stdout)), expected, rtol=0, atol=1e-4)
    # What remote code saves again is a whole judge.
    assert {path.name for path in reward_dir.glob("*.py")} == {
        path.name for path in (tmp_path / "resaved").glob("*.py")
    }
    torch.testing.assert_close(
        expected_totals(load_judge(tmp_path / "resaved", device="cpu")), expected, rtol=0, atol=1e-4
    )


@pytest.fixture
def policy_dir(full_model, tokenizer, tmp_path):
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(full_model.config)
    model.save_pretrained(tmp_path / "policy")
    tokenizer.save_pretrained(tmp_path / "policy")
    return tmp_path / "policy"


@pytest.mark.filterwarnings(r"ignore:.*gradient_checkpointing.* is deprecated:FutureWarning")  # trl's own calls
@pytest.mark.parametrize("kind", ["judge's id", "function"])
@pytest.mark.parametrize("family", ["llama"], indirect=True)
def test_a_real_grpo_step(reward_dir, policy_dir, tmp_path, kind):
    from datasets import Dataset
    from trl import GRPOConfig, GRPOTrainer

    config = GRPOConfig(
        output_dir=str(tmp_path / "run"),
        per_device_train_batch_size=2,
        num_generations=2,
        max_completion_length=8,
        max_steps=1,
        logging_steps=1,
        learning_rate=0.1,
        report_to=[],
        use_cpu=True,
        bf16=False,
        save_strategy="no",
        seed=1,
    )
    prompts = [[{"role": "user", "content": pair["question"]}] for pair in PAIRS]
    judge = str(reward_dir) if kind == "judge's id" else RewardFunction(load_judge(reward_dir, device="cpu"))
    trainer = GRPOTrainer(str(policy_dir), judge, args=config, train_dataset=Dataset.from_dict({"prompt": prompts}))
    before = {name: parameter.clone() for name, parameter in trainer.model.named_parameters()}
    trainer.train()
    (log,) = [entry for entry in trainer.state.log_history if "reward" in entry]
    lowest, highest = 1 + 3, 5 + 5  # of the two aspects that count
    assert lowest <= log["reward"] <= highest and log["reward_std"] > 0
    assert any((parameter != before[name]).any() for name, parameter in trainer.model.named_parameters())


def test_a_backbone_that_applies_its_norm_elsewhere_too_is_refused(reward_dir, monkeypatch):
    kind = type(load_judge(reward_dir, device="cpu").model.backbone)
    forward = kind.forward

    def twice(self, *args, **kwargs):
        found = forward(self, *args, **kwargs)
        self.norm(found.last_hidden_state)
        return found

    monkeypatch.setattr(kind, "forward", twice)
    with pytest.raises(BackboneError, match="applies it 2 times"):
        load_reward(reward_dir)
