import json
import os
import re

import pytest
import torch
from inspector_cli.main import main
from support.fresh import run_fresh
from support.models import PAIRS, aspect, chat_reading, config_of, feature, random_probes, tiny_config
from transformers import (
    AutoModel,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    GemmaConfig,
    GPT2Config,
)

from inspector_pipeline import BackboneError, InspectorModel, JudgeConfigError, load_judge
from inspector_pipeline.api.export import export_sequence_classification

LAST = {"prefix": "Q: ", "middle": "\nA: ", "suffix": "", "add_special_tokens": True}
ASPECTS = ("factuality", "fluency")
CLASSES = (-2, -1, 0, 1, 2)  # some decision values of the random judges lie beyond these, and some within


def exportable_aspects(reading="chat", layer=3):
    features = [feature(layer, "last", "rms_normed", reading)]
    return [aspect(name, features, "regression", CLASSES) for name in ASPECTS]


def make_exportable(folder, changes=lambda model: None, **kwargs):
    """Give a judge of random probes the shape of one that was fitted for the export."""
    judge = load_judge(folder, device="cpu", **kwargs)
    with torch.no_grad():
        judge.model.centers.zero_()
        for name, probe in zip(ASPECTS, judge.model.probes.values(), strict=True):
            probe.bias.zero_()
            probe.levels.copy_(torch.tensor(CLASSES))
            probe.weight *= 10 if name == "fluency" else 1
        changes(judge.model)
    return judge


@pytest.fixture
def exportable(make_judge):
    return make_exportable(make_judge(exportable_aspects()))


def plain_logits(folder, texts, **tokenizer_kwargs):
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float32).eval()
    assert type(model).__module__.startswith("transformers.models.")
    with torch.no_grad():
        return model(**tokenizer(texts, padding=True, return_tensors="pt", **tokenizer_kwargs)).logits


def decision_values(judge, pairs):
    batches = [judge.model(**one(judge, pair)) for pair in pairs]
    return torch.cat([torch.cat(output.decision_values, dim=1) for output in batches])


def one(judge, pair):
    encoded = next(iter(judge.preprocess(pair).values()))
    return {"input_ids": torch.tensor([encoded.input_ids])}


@pytest.mark.parametrize("side", ["right", "left"])
def test_plain_transformers_gives_the_judges_numbers(exportable, tmp_path, side):
    folder = export_sequence_classification(exportable, tmp_path / "plain")
    (reading,) = exportable.model.config.parsed_readings.values()
    texts = [reading.text(pair["question"], pair["prediction"]) for pair in PAIRS]
    logits = plain_logits(folder, texts, add_special_tokens=False, padding_side=side)
    torch.testing.assert_close(logits, decision_values(exportable, PAIRS), rtol=0, atol=1e-4)
    expected = torch.tensor([list(result["expected"].values()) for result in exportable(PAIRS)])
    torch.testing.assert_close(logits.clamp(-2, 2), expected, rtol=0, atol=1e-4)
    assert (logits != logits.clamp(-2, 2)).any() and (logits == logits.clamp(-2, 2)).any()


def test_the_folder_is_plain_and_names_what_it_holds(exportable, tmp_path):
    folder = export_sequence_classification(exportable, tmp_path / "plain")
    config = json.loads((folder / "config.json").read_text())
    assert config["id2label"] == {"0": "factuality", "1": "fluency"} and config["problem_type"] == "regression"
    assert config["num_hidden_layers"] == 3 and "auto_map" not in config
    assert not list(folder.glob("*.py")) and str(tmp_path) not in (folder / "config.json").read_text()
    assert {path.name for path in tmp_path.iterdir()} >= {"plain"} and not list(tmp_path.glob(".plain*"))


def test_the_pad_token_is_none_that_a_pair_ends_on(exportable, tmp_path):
    ends_on = exportable.preprocess(PAIRS[0])["chat"].input_ids[-1]
    exportable.tokenizer.pad_token = exportable.tokenizer.eos_token
    assert exportable.tokenizer.pad_token_id == ends_on  # SmolLM2's trap
    folder = export_sequence_classification(exportable, tmp_path / "plain")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert tokenizer.pad_token_id != ends_on
    assert json.loads((folder / "config.json").read_text())["pad_token_id"] == tokenizer.pad_token_id
    (reading,) = exportable.model.config.parsed_readings.values()
    texts = [reading.text(pair["question"], pair["prediction"]) for pair in PAIRS]
    logits = plain_logits(folder, texts, add_special_tokens=False)
    torch.testing.assert_close(logits, decision_values(exportable, PAIRS), rtol=0, atol=1e-4)


def test_a_tokenizer_without_another_special_token_is_refused(exportable, tmp_path):
    exportable.model.config.backbone_config.vocab_size = 0  # so that no special token has a row of the embeddings
    with pytest.raises(JudgeConfigError, match="expects a tokenizer with a special token that no pair ends on"):
        export_sequence_classification(exportable, tmp_path / "plain")


@pytest.mark.parametrize("question", ["plain", "{braces} 'quotes' \"double\" \\n \U0001f600", "  spaces\n"])
def test_the_chat_template_is_the_reading(exportable, tmp_path, question):
    tokenizer = AutoTokenizer.from_pretrained(export_sequence_classification(exportable, tmp_path / "plain"))
    (reading,) = exportable.model.config.parsed_readings.values()
    messages = [{"role": "user", "content": question}, {"role": "assistant", "content": "\n{{ 4 }} "}]
    assert tokenizer.apply_chat_template(messages, tokenize=False) == reading.text(question, "\n{{ 4 }} ")
    ids = tokenizer.apply_chat_template(messages)["input_ids"]
    assert ids == exportable.preprocess({"question": question, "prediction": "\n{{ 4 }} "})["chat"].input_ids
    with pytest.raises(Exception, match="expects one user turn and one assistant turn"):
        tokenizer.apply_chat_template(messages[:1], tokenize=False)


def test_literals_of_any_kind_survive_in_the_chat_template(make_judge, tmp_path):
    literal = {"prefix": "\"\\ \U0001f600'\n", "middle": "{{ x }}{% y %}\t", "suffix": "<|im_end|>"}
    readings = {"own": {**literal, "add_special_tokens": False}}
    judge = make_exportable(make_judge(exportable_aspects("own"), readings))
    tokenizer = AutoTokenizer.from_pretrained(export_sequence_classification(judge, tmp_path / "plain"))
    messages = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]
    (reading,) = judge.model.config.parsed_readings.values()
    assert tokenizer.apply_chat_template(messages, tokenize=False) == reading.text("q", "a")


def test_a_reading_of_plain_text_is_exported_without_a_chat_template(make_judge, tmp_path):
    judge = make_exportable(make_judge(exportable_aspects("own"), {"own": LAST}))
    folder = export_sequence_classification(judge, tmp_path / "plain")
    assert AutoTokenizer.from_pretrained(folder).chat_template is None
    texts = [f"Q: {pair['question']}\nA: {pair['prediction']}" for pair in PAIRS]
    torch.testing.assert_close(plain_logits(folder, texts), decision_values(judge, PAIRS), rtol=0, atol=1e-4)


@pytest.mark.parametrize("family", ["qwen3"], indirect=True)
def test_the_readme_runs_as_it_stands_without_the_package(exportable, tmp_path):
    folder = export_sequence_classification(exportable, tmp_path / "plain")
    (block,) = re.findall(r"```python\n(.*?)```", (folder / "README.md").read_text(), re.DOTALL)
    assert "$" not in (folder / "README.md").read_text()
    code = (
        "import sys, json; sys.modules['inspector_pipeline'] = None\n" + block + "print(json.dumps(expected.tolist()))"
    )
    done = run_fresh(code, env=os.environ, cwd=folder)
    assert done.returncode == 0, done.stderr
    pairs = [("What is 2 + 2?", "4"), ("Is 7 prime?", "Yes, it has no divisors but 1 and itself.")]
    results = exportable([{"question": question, "prediction": response} for question, response in pairs])
    expected = torch.tensor([list(result["expected"].values()) for result in results])
    torch.testing.assert_close(torch.tensor(json.loads(done.stdout)), expected, rtol=0, atol=1e-4)


def test_the_evidence_goes_along(make_judge, tmp_path):
    source = make_judge(exportable_aspects())
    (source / "results.json").write_text('{"aspects": {}}')
    folder = export_sequence_classification(make_exportable(source), tmp_path / "plain")
    assert (folder / "results.json").read_text() == '{"aspects": {}}'


def test_half_precision_backbones_stay_so_and_probes_do_not(make_judge, tmp_path):
    from safetensors.torch import load_file

    judge = make_exportable(make_judge(exportable_aspects()), dtype=torch.bfloat16)
    folder = export_sequence_classification(judge, tmp_path / "plain")
    kinds = {name: tensor.dtype for name, tensor in load_file(folder / "model.safetensors").items()}
    assert kinds.pop("score.weight") == torch.float32 and set(kinds.values()) == {torch.bfloat16}


def set_to(name, value):
    def change(model):
        target = model.centers if name == "centers" else model.probes["fluency_probe"].get_parameter(name)
        target[0] += value

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (set_to("centers", 1e-6), "states that are not centred"),
        (set_to("bias", 0.5), "no intercept, but that of fluency is 0.5"),
        (set_to("levels", -1.0), "levels that are the classes, but those of fluency"),
    ],
)
def test_judges_of_other_numbers_are_refused(make_judge, tmp_path, change, message):
    judge = make_exportable(make_judge(exportable_aspects()), change)
    with pytest.raises(JudgeConfigError, match=message):
        export_sequence_classification(judge, tmp_path / "plain")
    assert not (tmp_path / "plain").exists()


REFUSED = {
    "two features": ([feature(3, "last", "rms_normed"), feature(2, "last", "rms_normed")], "regression", "read 2"),
    "no last token": ([feature(3, "response_mean", "rms_normed")], "regression", "pooling last, but this judge's has"),
    "raw states": ([feature(3, "last", "raw")], "regression", "state rms_normed, but this judge's has state raw"),
    "embeddings": ([feature(0, "last", "rms_normed")], "regression", "layer 1, but this judge's has layer 0"),
    "other rule": ([feature(3, "last", "rms_normed")], "ordinal", "the rule regression, but a has ordinal"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_judges_of_another_shape_are_refused_with_the_reason(make_judge, tmp_path, case, capsys):
    features, rule, message = REFUSED[case]
    folder = make_judge([aspect("a", features, rule)])
    judge = load_judge(folder, device="cpu")
    with torch.no_grad():
        judge.model.centers.zero_()
    judge.save_pretrained(folder, fused=False)
    arguments = ["export", str(folder), "--to", "sequence-classification", "--output", str(tmp_path / "plain")]
    assert main(arguments) == 1
    assert re.search(message, capsys.readouterr().err)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (GemmaConfig(**tiny_config("llama").to_diff_dict() | {"model_type": "gemma"}), None),
        (GPT2Config(vocab_size=512, n_embd=32, n_layer=4, n_head=4), "LayerNorm divides by something else"),
    ],
    ids=["gemma", "gpt2"],
)
def test_norms_are_mapped_or_refused(tokenizer, tmp_path, config, message):
    torch.manual_seed(1)
    backbone = AutoModel.from_config(config).eval()
    for name, parameter in backbone.named_parameters():
        if "norm" in name:
            torch.nn.init.uniform_(parameter, 0.5, 1.5)
    backbone.save_pretrained(tmp_path / "backbone")
    tokenizer.save_pretrained(tmp_path / "backbone")
    model = InspectorModel(config_of(tmp_path / "backbone", exportable_aspects(), {"chat": chat_reading(tokenizer)}))
    random_probes(model).save_pretrained(tmp_path / "judge", fused=False)
    judge = make_exportable(tmp_path / "judge")
    if message:
        with pytest.raises(BackboneError, match=message):
            export_sequence_classification(judge, tmp_path / "plain")
        return
    folder = export_sequence_classification(judge, tmp_path / "plain")
    (reading,) = judge.model.config.parsed_readings.values()
    texts = [reading.text(pair["question"], pair["prediction"]) for pair in PAIRS]
    logits = plain_logits(folder, texts, add_special_tokens=False)
    torch.testing.assert_close(logits, decision_values(judge, PAIRS), rtol=0, atol=1e-4)


def test_an_export_that_does_not_equal_the_judge_is_never_written(exportable, tmp_path):
    # A judge whose decoder was tampered with after its config was read: the plain model differs, and the check sees it.
    layer = exportable.model.backbone.layers[0]
    handle = layer.register_forward_hook(lambda module, args, output: output * 1.5)
    with pytest.raises(BackboneError, match=r"within 0.0001 of the judge's decision values, but .* differs by"):
        export_sequence_classification(exportable, tmp_path / "plain")
    handle.remove()
    assert not (tmp_path / "plain").exists() and not list(tmp_path.glob(".plain*"))


def test_the_command(make_judge, tmp_path, capsys):
    source = make_judge(exportable_aspects())
    make_exportable(source).save_pretrained(source, fused=False)
    arguments = ["export", str(source), "--to", "sequence-classification", "--output", str(tmp_path / "plain")]
    assert main(arguments) == 0
    assert "as a sequence classifier to" in capsys.readouterr().err
    assert main(arguments) == 1
    assert "expects a new or empty folder" in capsys.readouterr().err
    with pytest.raises(SystemExit, match="2"):
        main([*arguments[:2], "--to", "onnx", "--output", "x"])
