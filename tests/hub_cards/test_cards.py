"""Cards against golden files: render, compare, and look at the difference before a golden file is changed."""

import ast
import json
import re
from dataclasses import replace

import pytest
import yaml
from huggingface_hub import DatasetCard, ModelCard, RepoCard
from huggingface_hub.repocard_data import model_index_to_eval_results
from hypothesis import given, settings
from hypothesis import strategies as st
from inspector_cli.info import describe
from inspector_training.rows.records import LabelledPair
from jinja2 import UndefinedError
from markdown_it import MarkdownIt
from support.paths import GOLDEN

from hub_cards.cards import ProbingSetCard, audit_lines, render
from hub_cards.evidence import GSM8K_TRAIN, PUBLISHED_LABELS, DataSource, data_sources, evidence_gaps
from hub_cards.judge_card import JudgeCard
from hub_cards.markdown import code, prose, quoted, words
from inspector_pipeline import InspectorConfig
from inspector_pipeline.api.load import EMBEDDED_JUDGE
from inspector_pipeline.errors import DataFileError

MEANINGS = {"0": "wrong", "1": "right"}
RUBRIC = """Rate how clear it is.
5 — Clear | short.
4 - Mostly clear.
3: Understandable.

Question:
"""


def interval(value):
    return {"value": value, "low": value - 0.05, "high": value + 0.05}


def judge_config(**changes):
    reading = {"prefix": RUBRIC, "middle": "\n\nResponse:\n", "suffix": "\n", "add_special_tokens": True}
    feature = {"reading": "rubric", "layer": 2, "pooling": "mean", "state": "raw"}
    aspects = [
        {"name": "clarity", "head": {"type": "linear", "rule": "votes", "members": 1}, "classes": [3, 4, 5]},
        {"name": "truth", "head": {"type": "linear", "rule": "logistic", "members": 1}, "classes": [0, 1]},
    ]
    backbone = {"model_type": "llama", "hidden_size": 64, "num_hidden_layers": 2, "rms_norm_eps": 1e-6}
    settings = {
        "model_type": "inspector",
        "backbone_config": backbone,
        "backbone_id": "org/backbone",
        "backbone_revision": "abc",
        "fused": True,
        "depth": 2,
        "readings": {"rubric": reading},
        "aspects": [{**aspect, "features": [feature], "counts_in_total": True} for aspect in aspects],
        "max_length": 512,
        "format_version": 1,
    }
    return InspectorConfig.from_dict({**settings, **changes})


def compared(value=0.7, gain=0.1):
    names = ("auroc", "macro_f1", "spearman")
    return {
        **{name: interval(value) for name in names},
        "surface": {name: interval(value - gain) for name in names},
        "gain_over_surface": {name: interval(gain) for name in names},
    }


def full_results():
    aspects = {
        "clarity": {"n": 30, "class_counts": {"3": 10, "4": 10, "5": 10}, **compared()},
        "truth": {
            "n": 20,
            "class_counts": {"0": 8, "1": 12},
            "meanings": MEANINGS,
            **compared(0.8),
        },
    }
    return {
        "aspects": aspects,
        "mean": compared(0.75),
        "protocol": {
            "date": "2026-11-28",
            "cross_validation": "5 folds x 2 repeats, by question id",
            "chosen_inside_each_fold": ["depth", "ridge penalty"],
            "auroc": "of score >= 4",
            "intervals": "95 %, percentile, 1000 resamples of questions",
            "depths_chosen": {"1": 2, "2": 8},
        },
        "candidates_tried": 12,
        "judge": {"curve": {"1": 0.6, "2": 0.7}},
        "sources": [
            {"name": "labels.jsonl", "teacher": "some-teacher", "generator": "some-model", "domain": "arithmetic"},
            {
                "name": "questions.jsonl",
                "license": "mit",
                "hub_id": "org/questions",
                "citation": "A. Author, 2020.",
            },
        ],
        "cost": {"pairs_per_second": 12.5, "machine": "2 cores of a server", "dtype": "bfloat16"},
        "notes": ["It is blind to units."],
        "retrain": "python -m training make_judge --output JUDGE",
    }


def full_card(**changes):
    arguments = {
        "judge": "org/judge",
        "license": "mit",
        "audit": {"findings": ["40 rows are filler", {"check": "duplicates", "rows": [3, 4]}]},
        "plots": ("reliability.png", "layer_curve.png", "holiday.png"),
        "dataset_id": "org/labels",
    }
    return JudgeCard(judge_config(), full_results(), **{**arguments, **changes})


def pairs():
    return [
        LabelledPair(1, "1 + 1?", "2", {"clarity": 5, "truth": 1}, generator="model-a"),
        LabelledPair(1, "1 + 1?", "3", {"truth": 0}, sample=1, generator="model-b"),
        LabelledPair(2, "2 + 2?", "4", {"clarity": 4}),
        LabelledPair(2, "2 + 2?", "5", {"truth": 0}, sample=1, auxiliary=True),
    ]


def probing_card(**changes):
    arguments = {
        "repo_id": "org/labels",
        "teacher": "some-teacher",
        "sources": [GSM8K_TRAIN],
        "meanings": {"truth": MEANINGS},
        "audit": {"findings": []},
        "notes": ["Two questions are one."],
    }
    return ProbingSetCard(pairs(), **{**arguments, **changes})


CARDS = {
    "judge_card.md": full_card,
    "judge_card_bare.md": lambda: JudgeCard(judge_config(fused=False), {}, judge="org/judge"),
    "dataset_card.md": probing_card,
}


@pytest.mark.parametrize("name", CARDS)
def test_cards_are_as_their_golden_files(name):
    assert CARDS[name]().render() == (GOLDEN / name).read_text(encoding="utf-8")


@pytest.mark.parametrize("name", CARDS)
def test_a_card_is_metadata_then_text_and_no_line_ends_in_blanks(name):
    text = CARDS[name]().render()
    _, metadata, body = text.split("---\n", 2)
    assert isinstance(yaml.safe_load(metadata), dict) and body.startswith("# ")
    assert "\n\n\n" not in body and "None" not in body
    assert not [line for line in text.splitlines() if line != line.rstrip()]


def test_the_metadata_are_the_hubs_in_both_forms_of_results():
    card = full_card()
    data = ModelCard(card.render()).data
    assert (data.pipeline_tag, data.library_name, data.base_model) == (
        "text-classification",
        "transformers",
        "org/backbone",
    )
    assert (data.license, data.datasets) == ("mit", ["org/labels", "org/questions"])
    metadata = yaml.safe_load(card.render().split("---\n")[1])
    name, results = model_index_to_eval_results(metadata["model-index"])
    assert name == "judge" and {r.metric_type for r in results} == {"roc_auc", "f1"}
    assert {r.dataset_config: r.metric_value for r in results if r.metric_type == "roc_auc"} == {
        "clarity": 0.7,
        "truth": 0.8,
    }
    current = card.eval_results()
    assert [(e.dataset_id, e.task_id, e.value) for e in current] == [
        ("org/labels", "clarity", 0.7),
        ("org/labels", "truth", 0.8),
    ]
    assert full_card(dataset_id=None).eval_results() == []  # that form names a dataset on the Hub
    assert DatasetCard(probing_card().render()).data.size_categories == ["n<1K"]


def test_a_missing_variable_is_an_error():
    with pytest.raises(UndefinedError, match="card"):
        render("dataset_card.md.jinja", probing_card().metadata())


def test_todays_results_of_the_embedded_judge_make_a_card():
    config = InspectorConfig.from_pretrained(EMBEDDED_JUDGE)
    results = json.loads((EMBEDDED_JUDGE / "results.json").read_text())
    card = JudgeCard(config, results, judge="embedded")
    assert evidence_gaps(config, results) == []
    assert [source.sha256 for source in card.sources] == [PUBLISHED_LABELS.sha256, "", GSM8K_TRAIN.sha256]
    text = card.render()
    assert "### Between answers to one question" in text and "| correctness | 600 |" in text
    cost = results["cost"][0]
    assert 'pipeline("inspector-judge")\n' in text and f"- {cost['pairs_per_second']} pairs/s in float32" in text
    for name, entry in results["aspects"].items():
        value = entry["auroc"]
        assert f"| {name} | {value['value']:.3f} ({value['low']:.3f} to {value['high']:.3f}) |" in text
    assert "Labels: DeepSeek-V3. Responses: Meta-Llama-3-8B-Instruct. No licence was found." in text


def test_a_judge_that_does_not_beat_surface_says_so():
    results = full_results()
    results["mean"] = compared(0.7, gain=0.02)
    text = JudgeCard(judge_config(), results, judge="org/judge").render()
    assert "does not reliably beat the surface baseline" in text and "it beats the surface baseline" not in text


def test_a_judge_with_slots_shows_a_pair_that_fills_them_and_what_others_reach_on_unseen_generators():
    reading = {"prefix": "{context}\n", "middle": "\nA: ", "suffix": "\n{reference}", "add_special_tokens": True}
    beside = {
        "auroc": interval(0.9),
        "overlap": {"auroc": interval(0.8)},
        "gain_over_overlap": {"auroc": interval(0.1)},
    }
    part = {"mean": beside, "pooled": beside, "by_generator": {"gpt|2": beside}, "by_form": {}}
    results = {**full_results(), "unseen_generators": {"clarity": part}}
    text = JudgeCard(judge_config(readings={"rubric": reading}), results, judge="org/judge").render()
    assert '"prediction": "6 x 7 = 42. The answer is 42.", "reference": "42", "context": "6 x 7 is 42."})' in text
    assert "| aspect | of | judge | overlap |" in text
    row = "| clarity | {} | 0.900 (0.850 to 0.950) | 0.800 (0.750 to 0.850) |"
    assert all(row.format(of) in text for of in ("mean of the generators", "all together", "gpt\\|2"))


def test_meanings_come_from_the_results_or_the_aspects_own_rubric():
    clarity, truth = full_card().aspects
    assert clarity.meanings == {"3": "Understandable.", "4": "Mostly clear.", "5": "Clear | short."}
    assert truth.meanings == MEANINGS
    _, truth = JudgeCard(judge_config(), {}, judge="org/judge").aspects
    assert truth.meanings == {}  # the rubric's scale is not that of 0 and 1


def test_evidence_is_missing_where_a_metric_or_the_baseline_is():
    config, results = judge_config(), full_results()
    assert evidence_gaps(config, results) == []
    del results["aspects"]["truth"]["gain_over_surface"]["auroc"]
    assert evidence_gaps(config, results) == ["truth"]
    assert evidence_gaps(config, None) == ["clarity", "truth"]
    assert "truth was not evaluated." in JudgeCard(config, results, judge="org/judge").render()


def test_an_audit_is_shown_whatever_its_shape():
    assert audit_lines({"findings": ["a", {"check": "b", "rows": [1, 2]}]}) == ["a", "check b; rows 1, 2"]
    assert audit_lines({"duplicates": 3, "filler": {"rows": 2}}) == ["duplicates: 3", "filler: rows 2"]
    assert audit_lines(["x\ny"]) == ["x y"]


def test_sources_are_checked_and_unknown_files_are_named_without_a_licence():
    assert data_sources({"extract": {"inputs": {"mine.jsonl": "0" * 64}}})[0].license is None
    with pytest.raises(DataFileError, match="a source expects a name and any of .* but got"):
        data_sources({"sources": [{"name": "x", "licence": "mit"}]})


def test_a_probing_set_is_counted_without_its_auxiliary_rows():
    card = probing_card()
    assert (len(card.scored), card.n_auxiliary, card.n_questions) == (3, 1, 2)
    assert list(card.labels.values()) == [{"4": 1, "5": 1}, {"0": 1, "1": 1}]
    assert card.labels_per_pair == {1: 2, 2: 1} and card.generators["not recorded"] == 1
    with pytest.raises(DataFileError, match="expects labelled pairs, but got none"):
        ProbingSetCard([], repo_id="org/x")


def test_the_probing_sets_snippet_runs(tmp_path, capsys):
    from inspector_training.rows.records import labelled_rows, write_records

    write_records(labelled_rows(pairs()), tmp_path / "train.jsonl")
    text = replace(probing_card(), repo_id=str(tmp_path)).render()
    exec(text.split("```python\n")[1].split("```")[0], {})
    assert "1 + 1? 2" in capsys.readouterr().out


HOSTILE_PARTS = [
    *("[x](javascript:alert(1))", "![x](http://e.org/x.png)", "<script>alert(1)</script>", "<img src=x onerror=y>"),
    *("`x`", "```", "a | b", "**x**", "__x__", "~~x~~", "\\", "# x", "- x", "1. x", "> x", "===", "---", "&lt;b&gt;"),
    *(
        "{{ 7 * 7 }}",
        "{% raw %}",
        "<!-- x",
        "[x]: http://e.org",
        "https://e.org",
        '"); import os #',
        "'",
        '"',
        ": - !!x",
    ),
]
LINES = "x\n---\nlicense: mit\n---\n# Head\n\n```\n\n<b>\n\n| a |\n|---|\n\r\x85\u2028\x1b[31m\u202e"


def structure(text):
    """Parse a card's Markdown: what there is but words."""
    body = text.split("\n---\n", 1)[1]
    tokens = MarkdownIt("commonmark").enable(["table", "strikethrough"]).parse(body)
    flat = [token for block in tokens for token in (block, *(block.children or []))]
    harmless = ("text", "softbreak", "code_inline", "em_", "strong_", "s_")
    return [token.type for token in flat if not token.type.startswith(harmless)]


def hostile_cards(name, words):
    """Make a card of each kind, with one name in every place that takes one; `name` has no line breaks."""
    config = judge_config(backbone_id=words)
    config.aspects[0]["name"] = name
    results = json.loads(json.dumps(full_results()).replace('"clarity"', json.dumps(name)))
    told = {"what", "license", "hub_id", "domain", "teacher", "generator", "citation", "name"}
    results["sources"] = [dict.fromkeys(told, words)]
    results["aspects"][name]["meanings"] = {"3": words, "4": "b", "5": "c"}
    results["aspects"][name]["reported"] = {"macro_f1": 0.5, "layers": [1], "pool": words, "classifier": words}
    results |= {"transfer": {words: {name: {"n": 1, **compared()} | {"surface": {"auroc": interval(0.5)}}}}}
    results |= {"notes": [words], "retrain": words, "probes": words, "cost": {**results["cost"], "machine": words}}
    judge = JudgeCard(config, results, judge=f"org/{words}", audit={"findings": [words]}, dataset_id=words)
    pair = LabelledPair(1, "1 + 1?", "2", {name: 5}, generator=words)
    sources = [DataSource(**dict.fromkeys(told, words))]
    meanings = {name: {"5": words}}
    texts = {"teacher": words, "license": words, "notes": [words], "audit": {name: {words: words}}}
    dataset = ProbingSetCard([pair], f"org/{words}", sources=sources, meanings=meanings, **texts)
    return {"judge": judge, "dataset": dataset}


@pytest.mark.parametrize("kind", ["judge", "dataset"])
@pytest.mark.parametrize("words", [*HOSTILE_PARTS, " ".join(HOSTILE_PARTS), LINES])
def test_no_name_changes_what_a_card_is(kind, words):
    name = words if words.isprintable() and "." not in words else "clarity"
    hostile, plain = (hostile_cards(one, two)[kind].render() for one, two in ((name, words), ("clarity", "plain")))
    assert structure(hostile) == structure(plain)
    read = yaml.safe_load(re.match(r"---\n(.*?)\n---\n", hostile, re.DOTALL)[1])
    told = {"judge": "base_model", "dataset": "license"}[kind]
    assert read[told] == words and read.keys() == yaml.safe_load(plain.split("---\n")[1]).keys()
    assert RepoCard(hostile).data.to_dict().keys() >= read.keys() - {"model-index"}  # as the Hub's client reads it
    assert not set(hostile.split("\n---\n", 1)[1]) & set("\x1b\x85\u2028\u202e\r")


@pytest.mark.parametrize("text", [*HOSTILE_PARTS, " ".join(HOSTILE_PARTS)])
def test_a_name_stays_the_words_that_it_is(text):
    (paragraph,) = MarkdownIt("commonmark").enable("strikethrough").parse(words(text))[1:-1]
    assert "".join(token.content for token in paragraph.children) == " ".join(text.split()).replace("&lt;b&gt;", "<b>")
    assert {token.type for token in paragraph.children} <= {"text", "text_special"}
    (item,) = MarkdownIt("commonmark").parse(f"`{code(text)}`")[1:-1]
    assert [token.type for token in item.children] == ["code_inline"]
    assert ast.literal_eval(quoted(text)) == text


@settings(deadline=None)
@given(st.text())
def test_sentences_stay_on_one_line_and_in_one_cell(text):
    assert "\n" not in prose(text) and prose(text).count("|") == prose(text).count("\\|")


def test_what_was_measured_with_a_judge_stands_on_its_card_and_in_info():
    above = {"upper": "worked", "n": 9, "rule": interval(1.0), "solved_by_rule": True, "unfamiliar": 0.5}
    forms = {"worked": {"unfamiliar": 0.0}, "echo": {**above, "lower": "echo", "above": interval(0.875)}}
    forms["terse_right"] = {**above, "upper": "terse_right", "lower": "worked_wrong", "above": interval(0.5)}
    forms["terse_right"] |= {"solved_by_rule": False, "unfamiliar": None}
    degenerate = {"field": "expected_truth", "rule": "length", "n_questions": 9, "n_seen": 2, "forms": forms}
    ways = {"judge": interval(0.75), "random": interval(0.5), "guess": interval(0.5), "oracle": interval(1.0)}
    ways["gain_over_random"] = interval(0.25)
    use = {"field": "expected_truth", "n_rows": 90, "n_questions": 9, "n_seen": None, "n_generators": 10}
    use |= {"best_of": {"4": {"n_questions": 9, **ways}}, "top": {"share": 0.2, **ways}}
    use |= {"same_question": {"judge": interval(0.75)}, "surest": {"0.1": interval(0.9)}}
    use["hill_climbing"] = {"n": 7, "n_edits": 200, "reached": interval(0.125)}
    use["date"] = "2026-11-30"
    unknown = dict.fromkeys(("value", "low", "high"))
    theirs = {"n_rows": 8, "auroc": interval(0.75), "same_question": unknown}
    theirs["gain_of_judge"] = {"auroc": interval(-0.125), "same_question": unknown}
    ours = {"n_rows": 90, "auroc": interval(0.625), "same_question": interval(0.5)}
    found = {"all": {"probes": ours, "lora": theirs, "majority": ours}}
    methods = {name: {"description": f"some {name}", "folds": n} for name, n in (("probes", 5), ("lora", 1))}
    beside = {
        key: {"auroc": interval(0.5)} for name in ("length", "surface", "tfidf") for key in (name, f"gain_over_{name}")
    }
    domains = {"truth": {"law": {"n_questions": 8, **theirs, **beside}}}
    compared = {"judge": "probes", "folds": 5, "generator_groups": 3, "methods": methods, "aspects": {"truth": found}}
    results = {**full_results(), "compared": compared, "unseen_domains": domains, "degenerate": degenerate, "use": use}
    card = replace(full_card(), results=results).render()
    assert "| worked | echo | 9 | 0.875 (0.825 to 0.925) | 1.000 (0.950 to 1.050), solved | 50.0% |" in card
    assert "| terse_right | worked_wrong | 9 | 0.500 (0.450 to 0.550) | 1.000 (0.950 to 1.050) | not said |" in card
    assert "**It was fitted on 2 of these questions.**" in card and card.count("It was fitted on") == 1
    assert "| chosen by | best of 4 | best 20% of all |" in card and "gain_over" not in card
    assert "95 % intervals. Measured on 2026-11-30.\n" in card and card.count("Measured on 2026") == 2
    assert "| guess | 0.500 (0.450 to 0.550) | 0.500 (0.450 to 0.550) |" in card
    first, second = (card.index(f"| truth | all | {name} | ") for name in ("lora | 8", "probes | 90"))
    assert first < second and "| -0.125 (-0.175 to -0.075) | not defined |" in card
    assert "- lora: some lora (1 fold)\n" in card and "one in turn of 3 groups of generators" in card
    assert "Of 7 wrong solutions 0.125 (0.075 to 0.175) reach" in card
    told = describe(judge_config(), None, results)
    assert ("measured", "2026-11-28, 2026-11-30") in told
    assert ("", "echo* 0.875") in told and ("", "terse_right above worked_wrong 0.500") in told
    assert ("best of 4", "judge 0.750, random 0.500, oracle 1.000 right") in told
    assert ("", "all generators: probes 0.625 / 0.500, lora 0.750 / undefined") in told
    assert ("", "law 0.750 / undefined") in told and "| truth | law | 8 to 8 questions | 0.750 (0.700" in card
    assert len(describe(judge_config(), None, full_results())) == len(told) - 9
