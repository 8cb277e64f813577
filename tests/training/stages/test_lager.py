"""The stage that makes judges of score tokens: readings, tokens, layer weights, and the judge's folder."""

import json

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from inspector_cli.main import main as cli
from inspector_training.labelling.rubrics import FIVE_LEVELS, Rubric
from inspector_training.score_tokens.feedback import load_causal, score_after_feedback, score_position
from inspector_training.score_tokens.judge import ScoreStates
from inspector_training.score_tokens.logits import layer_logits
from inspector_training.score_tokens.prompt_rows import read_prompt_rows
from inspector_training.score_tokens.prompts import rubric_reading, score_letters, score_reading
from inspector_training.score_tokens.weights import TuningConfig, _Rows, tune, uniform_weights
from inspector_training.stages.feedback import Config as FeedbackConfig
from inspector_training.stages.feedback import run as feedback
from inspector_training.stages.lager import Config as LagerConfig
from inspector_training.stages.lager import run as lager
from support.causal import save_causal
from support.models import PAIRS
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from hub_cards.backbone_license import find_license
from hub_cards.saved_judge import SavedJudge
from hub_cards.staging import stage
from inspector_pipeline import PairTemplate, load_judge
from inspector_pipeline.errors import DataFileError, ReadingError, SettingsError

LEVELS = np.arange(1.0, 6.0)
SHORT = Rubric("tone", "How kind it is.", 1, 5, {1: "rude", 5: "kind"})


@pytest.fixture(scope="module")
def backbone(tmp_path_factory, tokenizer):
    return str(save_causal(tmp_path_factory.mktemp("causal"), "llama", tokenizer))


@pytest.fixture
def config(backbone, tmp_path):
    def make(**changes):
        settings = {"output": str(tmp_path / "lager"), "backbone_id": backbone, "backbone_revision": None}
        return LagerConfig(**{**settings, "aspects": (), "custom_aspects": (SHORT,), **changes})

    return make


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


# Readings and tokens


def test_the_token_is_the_one_that_follows_the_reading(tokenizer):
    after_colon = PairTemplate.from_template("{question}\n{prediction}\nScore:")
    found = score_reading(after_colon, tokenizer, [1, 5])
    assert tokenizer.convert_ids_to_tokens(found.token_ids) == ["1", "5"] and found.reading == after_colon


def test_a_space_that_merges_with_the_score_moves_into_its_token(tokenizer):
    found = score_reading(PairTemplate.from_template("{question}\n{prediction}\nScore: "), tokenizer, [1, 5])
    assert tokenizer.convert_ids_to_tokens(found.token_ids) == ["Ġ1", "Ġ5"]
    assert found.reading.suffix == "\nScore:"
    text = found.reading.text("q", "p")
    assert tokenizer(text + " 5")["input_ids"] == [*tokenizer(text)["input_ids"], found.token_ids[1]]


def test_a_scale_of_several_digits_is_scored_by_first_tokens_that_differ(tokenizer):
    reading = PairTemplate.from_template("{question}\n{prediction}\nScore:")
    found = score_reading(reading, tokenizer, [0, 25, 50, 100])
    assert tokenizer.convert_ids_to_tokens(found.token_ids) == ["0", "2", "5", "1"]


@pytest.mark.parametrize(("scores", "first", "second"), [(range(11), 1, 10), (range(1, 101), 1, 10)])
def test_scores_that_begin_alike_are_refused(tokenizer, scores, first, second):
    reading = PairTemplate.from_template("{question}\n{prediction}\nScore:")
    with pytest.raises(ReadingError, match=rf"but {first} and {second} both begin with '1' in this tokenizer"):
        score_reading(reading, tokenizer, list(scores))


@pytest.mark.parametrize("template", ["{question} {prediction}", "{question} {prediction}\n"])
def test_a_reading_that_ends_with_the_response_is_refused(tokenizer, template):
    with pytest.raises(ReadingError, match="expects text after the response, such as 'Score: '"):
        score_reading(PairTemplate.from_template(template), tokenizer, [1, 2])


def test_a_space_that_merges_with_some_scores_only_is_left_out(tokenizer):
    assert tokenizer.tokenize(" 5 7") == ["Ġ5", "Ġ", "7"]
    found = score_reading(PairTemplate.from_template("{question}\n{prediction}\nScore: "), tokenizer, [5, 7])
    assert tokenizer.convert_ids_to_tokens(found.token_ids) == ["5", "7"] and found.reading.suffix == "\nScore:"


def test_a_reading_that_merges_with_the_score_is_refused():
    by_words = Tokenizer(models.WordLevel({"[UNK]": 0, "Score:": 1}, unk_token="[UNK]"))
    by_words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    made = PreTrainedTokenizerFast(tokenizer_object=by_words)
    with pytest.raises(ReadingError, match="merges with the score in this tokenizer. End the reading with a colon"):
        score_reading(PairTemplate.from_template("{question} {prediction} Score:"), made, [1, 2])


QUARTERS = Rubric("tone", "How kind it is.", levels={0: "rude", 100: "kind"}, values=(0, 25, 50, 75, 100))


@pytest.mark.parametrize(
    "rubric",
    [Rubric("tone", "Kind?", 0, 10), Rubric("tone", "Kind?", 1, 26), Rubric("tone", "Kind?", -2, 2), QUARTERS],
)
def test_scores_that_are_no_single_tokens_are_asked_for_as_letters(tokenizer, rubric):
    assert tokenizer.tokenize("10") == ["1", "0"]
    letters = score_letters(rubric, tokenizer)
    assert letters == tuple("ABCDEFGHIJKLMNOPQRSTUVWXYZ"[: len(rubric.scores)])
    asked = rubric_reading(rubric, tokenizer, letters=letters)
    found = score_reading(asked, tokenizer, letters)
    assert [tokenizer.decode([token]).strip() for token in found.token_ids] == list(letters)
    text = asked.text("Why?", "Because.")
    lines = text.splitlines()
    for letter, score in zip(letters, rubric.scores, strict=True):
        words = f": {rubric.levels[score]}" if score in rubric.levels else ""
        assert f"{letter} = {score}{words}" in lines
    assert f"Reply with the letter of the score and nothing else, as: Score: <letter from A to {letters[-1]}>" in text
    first = rubric_reading(rubric, tokenizer, feedback=True, letters=letters).text("Why?", "Because.")
    assert "then write its letter on a line of its own" in first


def test_single_digits_are_asked_for_as_they_are_and_too_many_scores_are_refused(tokenizer):
    odd = Rubric("tone", "Kind?", values=(1, 3, 5))
    assert score_letters(odd, tokenizer) == score_letters(Rubric("tone", "Kind?", 0, 9), tokenizer) == ()
    assert "as: Score: <one of 1, 3, 5>" in rubric_reading(odd, tokenizer).text("Why?", "Because.")
    with pytest.raises(SettingsError, match="at most 26 scores, .* but has 101. Give fewer as its values"):
        score_letters(Rubric("tone", "Kind?", 0, 100), tokenizer)


def test_a_rubric_is_asked_for_in_the_chat_template_and_ends_before_the_score(tokenizer):
    reading = rubric_reading(FIVE_LEVELS["fluency"], tokenizer)
    text = reading.text("Why?", "Because.")
    assert text.startswith("<|im_start|>user\n") and text.endswith("<|im_start|>assistant\nScore: ")
    assert "5: Clear, correct and natural throughout." in text and "<integer from 1 to 5>" in text
    assert "Question:\nWhy?\n" in text and "Response:\nBecause.\n" in text
    first = rubric_reading(FIVE_LEVELS["fluency"], tokenizer, feedback=True).text("Why?", "Because.")
    assert first.endswith("<|im_start|>assistant\n") and "First justify" in first


# Layer weights


def made_up_logits(n=200, layers=4, seed=0):
    """Logits of which only layer 2 knows the label."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(1, 6, n)
    logits = rng.normal(size=(n, layers, 5))
    logits[np.arange(n), 2, labels - 1] += 3
    return logits, labels.astype(float)


@pytest.mark.parametrize(("error", "off"), [("mae", 1.5), ("mse", 2.5)])
def test_the_loss_is_of_the_error_that_is_named(error, off):
    certain = torch.full((2, 1, 5), -1e9, dtype=torch.float64)
    certain[:, 0, 2] = 0  # the level 3, where the labels are 2 and 5
    labels, levels = torch.tensor([2.0, 5.0]).double(), torch.tensor(LEVELS)
    rows = _Rows(certain, labels, levels, "logits")
    loss = rows.loss(torch.ones(1).double(), slice(None), 0.0, error)
    assert loss.item() == pytest.approx(off)


@pytest.mark.parametrize("aggregation", ["logits", "probabilities"])
@pytest.mark.parametrize(
    "config", [TuningConfig(epochs=6), TuningConfig(error="mse", epochs=6), TuningConfig(method="convex")]
)
def test_tuning_finds_the_layer_that_knows(config, aggregation):
    logits, labels = made_up_logits()
    weights = tune(logits, labels, LEVELS, aggregation, config)
    assert weights.sum() == pytest.approx(1, abs=1e-12) and (weights >= 0).all()
    assert weights.argmax() == 2 and weights[2] > 0.4


@given(st.integers(1, 6), st.integers(1, 12), st.sampled_from(["adam", "convex"]), st.integers(0, 99))
def test_weights_always_sum_to_one(layers, n, method, seed):
    logits, labels = made_up_logits(n, max(layers, 3), seed)
    weights = tune(logits[:, :layers], labels, LEVELS, "logits", TuningConfig(method=method, epochs=1))
    assert weights.shape == (layers,) and weights.sum() == pytest.approx(1, abs=1e-9) and (weights >= 0).all()


def cross_entropy(weights, logits, labels):
    values = torch.tensor(np.einsum("l,blc->bc", weights, logits))
    return torch.nn.functional.cross_entropy(values, torch.tensor(labels - 1).long()).item()


def test_the_convex_minimum_is_below_every_other_point():
    logits, labels = made_up_logits(60)
    best = cross_entropy(tune(logits, labels, LEVELS, "logits", TuningConfig(method="convex")), logits, labels)
    adam = TuningConfig(cross_entropy=1.0, epochs=40, learning_rate=0.05)
    assert best <= cross_entropy(tune(logits, labels, LEVELS, "logits", adam), logits, labels) + 1e-6
    for weights in np.random.default_rng(1).dirichlet(np.ones(4), size=200):
        assert best <= cross_entropy(weights, logits, labels) + 1e-7


def test_a_label_between_two_scores_counts_for_both():
    logits, labels = made_up_logits(40)
    below, convex = labels.clip(1, 4), TuningConfig(method="convex")
    between = tune(logits, below + 0.5, LEVELS, "logits", convex)
    twice = np.concatenate([logits, logits]), np.concatenate([below, below + 1])
    assert between == pytest.approx(tune(*twice, LEVELS, "logits", convex), abs=1e-3)


def test_without_labels_weights_are_uniform_and_foreign_labels_are_refused():
    logits, labels = made_up_logits(5)
    assert tune(logits[:0], labels[:0], LEVELS, "logits", TuningConfig()).tolist() == [0.25] * 4
    with pytest.raises(DataFileError, match="expects labels from 1 to 5, but got 0 to"):
        tune(logits, labels - labels.min(), LEVELS, "logits", TuningConfig())
    with pytest.raises(SettingsError, match="cross_entropy expects a share from 0 to 1"):
        TuningConfig(cross_entropy=2)


# The stage


def test_a_judge_without_labels(config, tmp_path, capsys):
    lager(config(custom_aspects=(SHORT, Rubric("kindness", "Is it kind?", 0, 1))))
    folder = tmp_path / "lager"
    judge = load_judge(folder, device="cpu")
    result = judge(PAIRS[0])
    assert set(result["scores"]) == {"tone", "kindness"} and result["scores"]["kindness"] in (0, 1)
    assert judge.model.config.depth == 4 and len(judge.model.aspects[0].features) == 5
    weights = judge.model.probes["tone_probe"].layer_weights
    assert weights.tolist() == pytest.approx(uniform_weights(5).tolist())
    card = (folder / "README.md").read_text()
    assert "the score\ntokens' logits (LAGER)" in card and "no label was used" in card and "2508.03550" in card
    assert f'pipeline("inspector-judge", model="./{folder.name}"' in card
    assert "not evaluated it" in card and "| 5 | not recorded | kind |" in card
    assert cli(["info", str(folder)]) == 0
    assert "tone: scores 1 2 3 4 5 by expectation" in capsys.readouterr().out


def test_the_command_line_scores_with_it(config, tmp_path):
    lager(config())
    source, target = tmp_path / "pairs.json", tmp_path / "out.jsonl"
    source.write_text(json.dumps(PAIRS))
    assert cli(["score", str(source), "--judge", config().output, "--output", str(target), "--device", "cpu"]) == 0
    rows = [json.loads(line) for line in target.read_text().splitlines()]
    assert [row["total_score"] for row in rows] == [row["tone"] for row in rows] and len(rows) == 3


def test_labels_tune_the_weights_of_aspects_that_share_a_scale(config, tmp_path):
    both = (SHORT, Rubric("wit", "How witty it is.", 1, 5))
    rows = [{"id": i, **PAIRS[i % 3], "scores": {"tone": 1 + i % 5, "wit": 5 - i % 5}} for i in range(10)]
    labels = write(tmp_path / "labels.jsonl", rows)
    tuning = TuningConfig(method="convex")
    lager(config(custom_aspects=both, labels=labels, tuning=tuning))
    judge = load_judge(tmp_path / "lager", device="cpu")
    tone, wit = (judge.model.probes[f"{name}_probe"].layer_weights.detach() for name in ("tone", "wit"))
    assert torch.equal(tone, wit) and tone.sum() == pytest.approx(1, abs=1e-6)
    texts = [(row["question"], row["prediction"]) for row in rows]
    logits = np.concatenate([layer_logits(judge, name, texts) for name in ("tone", "wit")])
    given_labels = np.array([row["scores"][name] for name in ("tone", "wit") for row in rows], dtype=float)
    assert tone.tolist() == pytest.approx(tune(logits, given_labels, LEVELS, "logits", tuning), abs=1e-3)
    evidence = json.loads((tmp_path / "lager" / "results.json").read_text())
    assert evidence["layer_weights"]["1-5"]["sources"] == ["10 labels of tone", "10 labels of wit"]
    assert "tuned on 10 labels of tone, 10 labels of wit" in (tmp_path / "lager" / "README.md").read_text()


def test_its_own_rows_tune_too(config, tmp_path):
    prompts = [
        {"user_prompt": f"Rate this from 1 to 5: text {i}", "user_prompt_feedback": "Think, then rate.", "score": score}
        for i, score in enumerate([1, 5, [4, 5], 2.0])
    ]
    path = write(tmp_path / "valid.jsonl", prompts)
    rows = read_prompt_rows(path)
    assert [row.score for row in rows] == [1, 5, 4.5, 2]
    assert "".join(rows[0].as_pair()) == prompts[0]["user_prompt"]
    assert "".join(rows[0].as_pair(feedback=True)) == "Think, then rate."
    lager(config(validation=path, states=ScoreStates(layers="without_last", aggregation="probabilities")))
    judge = load_judge(config().output, device="cpu")
    weights = judge.model.probes["tone_probe"].layer_weights.detach()
    assert len(weights) == 4 and weights.sum() == pytest.approx(1, abs=1e-6) and weights.std() > 0


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"user_prompt": "Rate it.", "score": "4"}, "row 0 expects a number, or a list of numbers, as score"),
        ({"user_prompt": "Rate it.", "score": []}, "as score, but got"),
        ({"user_prompt": " ", "score": 4}, "row 0 expects a prompt as user_prompt"),
        ({"user_prompt": "Rate it.", "user_prompt_feedback": 3, "score": 4}, "a prompt as user_prompt_feedback"),
    ],
)
def test_malformed_rows_of_its_own_are_refused(tmp_path, row, message):
    with pytest.raises(DataFileError, match=message):
        read_prompt_rows(write(tmp_path / "valid.jsonl", [row]))


def test_a_finished_folder_is_left_alone_and_templates_ask_in_other_words(config, tmp_path):
    asked = "Rate. {question} {prediction} Rating:"
    templates = tmp_path / "templates.json"
    templates.write_text(json.dumps([{"name": "tone", "template": asked}]))
    lager(config(templates=str(templates)))
    reading = load_judge(config().output, device="cpu").model.config.parsed_readings["rubric:tone"]
    assert reading.text("{question}", "{prediction}") == asked
    written = (tmp_path / "lager" / "config.json").stat().st_mtime_ns
    lager(config(templates=str(templates)))
    assert (tmp_path / "lager" / "config.json").stat().st_mtime_ns == written
    templates.write_text(json.dumps([{"name": "other", "template": asked}]))
    with pytest.raises(SettingsError, match="templates expects names of the aspects, but got 'other'"):
        lager(config(templates=str(templates), output=str(tmp_path / "again")))


def test_labels_without_its_aspects_are_refused(config, tmp_path):
    labels = write(tmp_path / "labels.jsonl", [{"id": 1, **PAIRS[0], "scores": {"fluency": 1}}])
    with pytest.raises(DataFileError, match="expects labels of tone, but has none of them"):
        lager(config(labels=labels))


def test_a_staged_repo_scores_by_its_own_code(config, tmp_path, forked_stranger):
    lager(config(fused=True))
    judge = SavedJudge.read(tmp_path / "lager", allow_unevaluated=True)
    license_ = find_license(judge.config.backbone_id, "mit", "The licence.\n", None)
    stage(judge, tmp_path / "repo", repo_id="org/lager", license_=license_)
    assert (tmp_path / "repo" / "heads.py").is_file()
    assert judge.check_reload(tmp_path / "repo") == "4 example pairs"


def test_a_judge_of_long_scales_scores_on_them(config, tmp_path, caplog):
    rows = [{"id": i, **PAIRS[i % 3], "scores": {"tone": 25 * (i % 5), "wit": i}} for i in range(5)]
    labels = write(tmp_path / "labels.jsonl", rows)
    both = (QUARTERS, Rubric("wit", "How witty it is.", 0, 10))
    with caplog.at_level("INFO"):
        lager(config(custom_aspects=both, labels=labels))
    assert "tone is asked for in letters, since not every score is one token: A = 0, B = 25, C = 50" in caplog.text
    judge = load_judge(config().output, device="cpu")
    for result in judge(PAIRS):
        assert result["scores"]["tone"] in QUARTERS.values and 0 <= result["expected"]["tone"] <= 100
        assert result["scores"]["wit"] in range(11) and set(result["probabilities"]["wit"]) == set(range(11))
        shares = result["probabilities"]["tone"]
        assert result["expected"]["tone"] == pytest.approx(sum(v * p for v, p in shares.items()), abs=1e-3)
    told = json.loads((tmp_path / "lager" / "results.json").read_text())
    assert set(told["layer_weights"]) == {"0, 25, 50, 75, 100", "0-10"}
    pairs = write(tmp_path / "pairs.jsonl", [{"id": 0, **PAIRS[0]}])
    settings = {"aspects": (), "custom_aspects": both, "max_new_tokens": 2}
    feedback(FeedbackConfig(config().output, pairs, str(tmp_path / "scored.jsonl"), **settings))
    assert json.loads((tmp_path / "scored.jsonl").read_text())["scores"] == {"tone": None, "wit": None}


# Feedback first


@pytest.fixture
def judge(config):
    lager(config())
    return load_judge(config().output, device="cpu")


@pytest.mark.parametrize(
    ("reply", "score"),
    [
        ("It is kind. Score: 4", " 4"),
        ("Score: 2\nNo, better: Score: 5.", " 5"),
        ("It names 3 things.\nSCORE: 1/5", " 1"),
        ("Score: 4.5", None),
        ("Score: 42", None),
        ("I would give it a 4", None),
        ("", None),
    ],
)
def test_the_last_score_of_a_reply_is_found(judge, tokenizer, reply, score):
    ids = tokenizer(reply)["input_ids"]
    place = score_position(ids, judge.model.aspects[0].head.token_ids, tokenizer)
    assert (None if place is None else tokenizer.decode([ids[place]])) == score


@pytest.mark.parametrize(
    ("reply", "letter"),
    [
        ("It is kind.\nScore: B", "B"),
        ("Score: C (50)", "C"),
        ("Score: D. Very kind.", "D"),
        ("Score: A good answer", None),
        ("Score: Bad", None),
        ("Score: 50", None),
    ],
)
def test_the_letter_of_a_reply_is_its_score(tokenizer, reply, letter):
    tokens = score_reading(rubric_reading(QUARTERS, tokenizer, letters="ABCDE"), tokenizer, "ABCDE").token_ids
    ids = tokenizer(reply)["input_ids"]
    place = score_position(ids, tokens, tokenizer)
    assert (None if place is None else tokenizer.decode([ids[place]]).strip()) == letter


def test_a_reply_without_a_score_is_null_with_its_reason(judge):
    reading = rubric_reading(SHORT, judge.tokenizer, feedback=True)
    results = score_after_feedback(judge, load_causal(judge), {"tone": reading}, PAIRS, max_new_tokens=3)
    for result in results:  # a random model says nothing
        assert result["scores"] == {"tone": None} and result["total_score"] is None
        assert result["expected"]["tone"] is None and result["reasons"]["tone"] == "the reply gives no score"
        assert isinstance(result["feedback"]["tone"], str)


def test_a_score_is_read_where_the_reply_gives_it(judge, tokenizer, monkeypatch):
    said = "Well said. Score: 3. Bye"
    ids = tokenizer(said)["input_ids"]
    causal = load_causal(judge)

    def generate(input_ids, **kwargs):  # a random model would not say it
        return torch.cat([input_ids, torch.tensor([ids] * len(input_ids))], dim=1)

    monkeypatch.setattr(causal, "generate", generate)
    reading = rubric_reading(SHORT, tokenizer, feedback=True)
    results = score_after_feedback(judge, causal, {"tone": reading}, PAIRS)
    place = score_position(ids, judge.model.aspects[0].head.token_ids, tokenizer)
    for pair, result in zip(PAIRS, results, strict=True):
        text = reading.text(pair["question"], pair["prediction"])
        whole = torch.tensor([tokenizer(text, add_special_tokens=False)["input_ids"] + ids[:place]])
        with torch.inference_mode():
            output = judge.model(whole)
        assert result["expected"]["tone"] == pytest.approx(output.expected.item(), abs=1e-4)
        assert result["scores"]["tone"] == output.scores.item() == result["total_score"]
        assert result["feedback"]["tone"] == said


def test_replies_are_the_models_own_greedy_words(judge, tokenizer):
    reading = rubric_reading(SHORT, tokenizer, feedback=True)
    causal = load_causal(judge)
    results = score_after_feedback(judge, causal, {"tone": reading}, PAIRS, max_new_tokens=4)
    for pair, result in zip(PAIRS, results, strict=True):
        text = reading.text(pair["question"], pair["prediction"])
        ids = tokenizer(text, add_special_tokens=False, return_tensors="pt")["input_ids"]
        for _ in range(4):
            with torch.inference_mode():
                ids = torch.cat([ids, causal(ids).logits[:, -1:].argmax(dim=2)], dim=1)
        assert result["feedback"]["tone"] == tokenizer.decode(ids[0, -4:], skip_special_tokens=True)


def test_the_feedback_stage_writes_rows(judge, config, tmp_path):
    pairs = write(tmp_path / "pairs.jsonl", [{"id": i, **pair} for i, pair in enumerate(PAIRS)])
    output = tmp_path / "scored.jsonl"
    settings = {"aspects": (), "custom_aspects": (SHORT,), "max_new_tokens": 2}
    feedback(FeedbackConfig(config().output, pairs, str(output), **settings))
    rows = [json.loads(line) for line in output.read_text().splitlines()]
    assert [row["id"] for row in rows] == [0, 1, 2] and all(row["scores"] == {"tone": None} for row in rows)
    with pytest.raises(SettingsError, match="a reading for each of the judge's aspects, tone, but got wit"):
        score_after_feedback(judge, load_causal(judge), {"wit": rubric_reading(SHORT, judge.tokenizer)}, PAIRS)
