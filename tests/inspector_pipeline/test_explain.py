"""What tokens add to a score adds up to it, for every pooling and state, alone and in company."""

import json

import pytest
import torch
from inspector_cli.main import main
from support.models import PAIRS, aspect, feature

from inspector_pipeline import PairTemplate, load_judge
from inspector_pipeline.errors import SettingsError
from inspector_pipeline.explain import Explainer, value_direction
from inspector_pipeline.pair_tokenizer import PairTokenizer

STATES = ("raw", "rms_normed", "final_norm")
POOLINGS = ("mean", "response_mean", "last")
LONG = {"question": "Who is it? " * 90, "prediction": "One 🙂 two, déjà vu. " * 60}
TEXTS = [*PAIRS, {"question": "Smile?", "prediction": "🙂 naïve\n\n  <|im_end|> ok"}, LONG]


def totals(own):
    """The constant and all shares."""
    pieces = [*own["question"], *own["response"], *own["template"]]
    return own["constant"] + sum(share for _, share in pieces if share is not None)


def decision_values(judge, pair):
    encoded = judge.encode(pair)
    with torch.inference_mode():
        return judge.model.decide(judge.reader([encoded])).decision_values


@pytest.fixture
def every(make_judge):
    """A judge with an aspect for each pooling of each state, one that reads many, and one that has no shares."""
    aspects = [
        aspect(f"{pooling}_{state}", [feature(3, pooling, state)], "regression")
        for pooling in POOLINGS
        for state in STATES
    ]
    mixed = [feature(layer, pooling, "rms_normed") for layer in (1, 2, 4) for pooling in POOLINGS]
    lows = aspect("lows", [feature(2, "min"), mixed[0]])
    return load_judge(make_judge([*aspects, aspect("mixed", mixed, "ordinal"), lows]))


def test_the_shares_and_the_constant_are_the_decision_value_for_every_pooling_and_state(every):
    results = every(TEXTS, explain=True)
    for pair, result in zip(TEXTS, results, strict=True):
        values = decision_values(every, pair)
        for one, own in zip(every.model.aspects, values, strict=True):
            found = result["explanation"][one.name]
            if one.name == "lows":
                assert found == {"why_not": "its probe reads states pooled by min, which are no sums over tokens"}
                continue
            assert found["value"] == pytest.approx(float(own), abs=1e-4)
            assert totals(found) == pytest.approx(float(own), abs=1e-4)
            assert found["constant"] + sum(found["layers"].values()) == pytest.approx(float(own), abs=1e-4)
            for key, text in (("question", pair["question"]), ("response", pair["prediction"])):
                assert "".join(piece for piece, _ in found[key]) in (text, "")
            if one.name.startswith(("response_mean", "mean", "mixed")):
                assert "".join(piece for piece, _ in found["response"]) == pair["prediction"]
            if one.name.startswith("last"):  # all is the share of the closing token
                assert len(found["template"]) == 1 and not found["response"]
                assert found["last"] == pytest.approx(float(own) - found["constant"], abs=1e-4)


def test_explanations_change_no_score_and_are_the_same_alone_and_in_company(every):
    plain, explained = every(TEXTS), every(TEXTS, explain=True)
    for pair, one, other in zip(TEXTS, plain, explained, strict=True):
        alone = every(pair, explain=True)
        without = {key: value for key, value in other.items() if key != "explanation"}
        assert without == one and "explanation" not in one
        for name, own in alone["explanation"].items():
            for key in ("question", "response", "template"):
                mine, others = own.get(key, []), other["explanation"][name].get(key, [])
                assert [text for text, _ in mine] == [text for text, _ in others]
                kept = [pair for pair in zip(mine, others, strict=True) if pair[0][1] is not None]
                assert [a[1] for a, _ in kept] == pytest.approx([b[1] for _, b in kept], abs=1e-5)


def test_padded_passes_give_the_same_shares(every):
    packed = every(TEXTS, explain=True)
    every.reader.is_packed = False
    padded = every(TEXTS, explain=True)
    for one, other in zip(packed, padded, strict=True):
        assert other["expected"] == pytest.approx(one["expected"], abs=1e-4)
        pieces = [result["explanation"]["mixed"]["response"] for result in (one, other)]
        pairs = [(a, b) for (_, a), (_, b) in zip(*pieces, strict=True) if a is not None]
        assert [a for a, _ in pairs] == pytest.approx([b for _, b in pairs], abs=1e-5)


def test_a_share_is_the_tokens_own_state_mapped_by_the_probe(make_judge):
    """By hand: w (x_t - center) / n of the plain backbone's states."""
    judge = load_judge(make_judge([aspect("one", [feature(2, "response_mean")], "regression")]))
    pair = {"question": "Is 7 prime?", "prediction": "Yes, 7 is."}
    encoded = judge.encode(pair)["chat"]
    with torch.inference_mode():
        states = judge.model.loaded_backbone(torch.tensor([encoded.input_ids]), output_hidden_states=True)
    own = states.hidden_states[2][0, encoded.response.start : encoded.response.end]
    probe = judge.model.probes["one_probe"]
    expected = ((own - judge.model.centers[0]) @ probe.weight[0, 0] / len(own)).tolist()
    pieces = judge(pair, explain=True)["explanation"]["one"]["response"]
    found = judge.encode(pair, keep_places=True)["chat"].places.of_tokens
    texts = [place.text for place in found if place.part == "response"]
    assert [text for text, _ in pieces] == texts and len(texts) == len(expected) > 2
    assert [share for _, share in pieces] == pytest.approx(expected, abs=1e-6)


def test_what_was_cut_has_no_share(make_judge):
    judge = load_judge(
        make_judge([aspect("one", [feature(2), feature(1, "response_mean")], "regression")], max_length=80)
    )
    for pair in (LONG, {**LONG, "prediction": "word and word " * 9000}):
        result = judge(pair, explain=True)
        own = result["explanation"]["one"]
        assert result["truncated"] and totals(own) == pytest.approx(own["value"], abs=1e-4)
        for key, text in (("question", pair["question"]), ("response", pair["prediction"])):
            assert "".join(piece for piece, _ in own[key]) == text
            cut = [piece for piece, share in own[key] if share is None]
            assert len(cut) == 1 and len(cut[0]) > len(text) / 3
            assert own[key][0][1] is not None and own[key][-1][1] is not None


def test_several_readings_share_the_pieces_of_their_texts(make_judge):
    templates = {
        "a": PairTemplate.from_template("Q:{question} A:{prediction}"),
        "b": PairTemplate.from_template("{question}\n{prediction}!"),
    }
    readings = {name: template.to_dict() for name, template in templates.items()}
    both = [feature(2, reading="a"), feature(3, "response_mean", reading="b")]
    judge = load_judge(make_judge([aspect("both", both, "regression")], readings))
    for pair in TEXTS[:4]:
        own = judge(pair, explain=True)["explanation"]["both"]
        assert totals(own) == pytest.approx(float(decision_values(judge, pair)[0]), abs=1e-4)
        assert "".join(text for text, _ in own["response"]) == pair["prediction"]


RULES = {
    "logistic": ((1, 2, 3, 4, 5), [-2 / 3, -1 / 3, 0, 1 / 3, 2 / 3]),
    "margin": ((0, 1), [1]),
    "one_vs_rest": ((1, 2, 4), [-4 / 5, -1 / 5, 1]),
    "hard_votes": ((1, 2, 3), [-1 / 3] * 3),
    "votes": ((0, 1), [-1]),
}


@pytest.mark.parametrize("rule", RULES)
def test_rules_of_several_values_are_explained_by_one_that_rises_with_the_score(rule, make_judge):
    classes, expected = RULES[rule]
    direction = value_direction(rule, classes)
    assert direction.tolist() == pytest.approx(expected)
    assert value_direction(rule, classes, 3).tolist() == pytest.approx([one / 3 for one in expected] * 3)
    judge = load_judge(make_judge([aspect("one", [feature(3)], rule, classes)]))
    own = judge(PAIRS[0], explain=True)["explanation"]["one"]
    assert own["value"] == pytest.approx(float(direction @ decision_values(judge, PAIRS[0])[0][0]), abs=1e-5)
    assert totals(own) == pytest.approx(own["value"], abs=1e-4)


def test_a_stacked_head_says_why_it_has_none():
    class Stacked:
        name, features = "s", ()

        class head:
            type = "stacked"

    class Model:
        aspects, probes, centred_features, centers = (Stacked,), {}, (), torch.zeros(0)

    assert "a head of the type stacked has no shares" in Explainer(Model).why_not["s"]


def test_a_pair_without_its_places_is_refused(judge):
    with pytest.raises(SettingsError, match="keep_places=True"):
        list(judge.score_encoded([judge.encode(PAIRS[0])], explain=True))


def test_places_are_those_of_the_tokens(tokenizer):
    encoder = PairTokenizer(PairTemplate.from_template("Q:{question} A:{prediction}"), tokenizer, 200)
    encoded = encoder("Why?", "As it is.", keep_places=True)
    found = encoded.places.of_tokens
    assert encoded == encoder("Why?", "As it is.") and encoded.places.texts["response"] == "As it is."
    assert len(found) == len(encoder("Why?", "As it is.").input_ids)
    assert "".join(place.text for place in found if place.part == "response") == "As it is."
    order = dict.fromkeys(place.part for place in found)
    assert list(order) == ["template", "question", "response"]


def test_a_conversation_and_a_reference_count_to_the_template(make_judge):
    turns = [
        {"role": "user", "content": "Hi."},
        {"role": "assistant", "content": "Hello."},
        {"role": "user", "content": "Is 7 prime?"},
        {"role": "assistant", "content": "Yes, it is."},
    ]
    judge = load_judge(make_judge([aspect("all", [feature(2), feature(3, "response_mean")], "regression")]))
    own = judge({"messages": turns}, explain=True)["explanation"]["all"]
    assert totals(own) == pytest.approx(own["value"], abs=1e-4)
    assert "".join(text for text, _ in own["response"]) == "Yes, it is."


@pytest.fixture
def folder(make_judge):
    return make_judge([aspect("clarity", [feature(3, "response_mean")], "ordinal")])


@pytest.fixture
def source(tmp_path):
    path = tmp_path / "pairs.jsonl"
    path.write_text("".join(json.dumps(pair) + "\n" for pair in PAIRS))
    return path


def test_the_command_writes_explanations_into_a_file_and_into_a_jobs_folder(folder, source, tmp_path, capsys):
    args = ["score", str(source), "--judge", str(folder), "--explain", "--output"]
    assert main([*args, str(tmp_path / "out.jsonl"), "--format", "none"]) == 0
    assert main([*args, f"{tmp_path / 'job'}/"]) == 0
    assert main([*args, f"{tmp_path / 'job'}/"]) == 0  # it goes on
    files = [tmp_path / "out.jsonl", *sorted((tmp_path / "job").glob("part-*"))]
    rows = [[json.loads(line) for line in file.read_text().splitlines()] for file in files]
    assert rows[0] == rows[1] and len(rows[0]) == 3
    for row in rows[0]:
        own = row["explanation"]["clarity"]
        assert totals(own) == pytest.approx(own["value"], abs=1e-4)
    capsys.readouterr()
    assert main([*args, str(tmp_path / "out.csv")]) == 1
    assert main([*args, f"{tmp_path / 'other'}/", "--output-format", "parquet"]) == 1
    told = capsys.readouterr().err
    assert "--explain expects a .json or .jsonl file" in told and "Give --output-format jsonl" in told


def test_an_older_job_without_explanations_goes_on(folder, source, tmp_path):
    args = ["score", str(source), "--judge", str(folder), "--output", f"{tmp_path / 'job'}/"]
    assert main(args) == 0
    manifest = json.loads((tmp_path / "job" / "_manifest.json").read_text())
    assert "explain" not in manifest["settings"] and main(args) == 0
    assert main([*args, "--explain"]) == 1


def test_the_terminal_shows_them_in_colour_only_where_it_may(folder, source, tmp_path, capsys, monkeypatch):
    args = ["score", str(source), "--judge", str(folder), "--explain", "--format", "table"]
    shown = {}
    for name, variables in {
        "pipe": {},
        "colour": {"FORCE_COLOR": "1"},
        "none": {"FORCE_COLOR": "1", "NO_COLOR": "1"},
    }.items():
        with monkeypatch.context() as patch:
            for key in ("FORCE_COLOR", "NO_COLOR"):
                patch.delenv(key, raising=False)
            for key, value in {"TERM": "xterm-256color", **variables}.items():
                patch.setenv(key, value)
            assert main([*args, "--output", str(tmp_path / "out.jsonl")]) == 0
        shown[name] = capsys.readouterr().out
    assert "clarity: decision value" in shown["pipe"] and "lowered most by" in shown["pipe"]
    assert "\x1b[" not in shown["pipe"] and "\x1b[" in shown["colour"]
    assert not any(f"\x1b[{code}" in shown["none"] for code in ("31", "32", "1;31", "1;32"))
    assert max(map(len, shown["pipe"].splitlines())) <= 80
