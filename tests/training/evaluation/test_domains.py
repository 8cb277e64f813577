"""Domains that no fit saw: what is left out, what is found there, and leaks, each of which would show here."""

import json
from dataclasses import replace

import numpy as np
import pytest
from inspector_training.evaluation import domains
from inspector_training.evaluation.domains import domain_folds, domains_of
from inspector_training.probing.settings import SearchConfig
from inspector_training.probing.table import Labels
from inspector_training.rows.records import LabelledPair, labelled_pairs, labelled_rows
from inspector_training.stages.contrast import Config as ContrastConfig
from inspector_training.stages.contrast import run as contrast
from inspector_training.stages.evaluate import Config, evaluate, report
from support.made_up import planted

from hub_cards.measured import domains_table
from inspector_pipeline.files.tables import read_rows

SEARCH = SearchConfig(poolings=(("last",),), depths=(4,), sharings=(0.0,), heads=(), inner_folds=3, penalties=(1.0,))
NUMBERS = {"folds": 3, "repeats": 1, "bootstraps": 40, "learning_curve": (), "generator_groups": 0}
CONFIG = Config(("features",), "out.json", SEARCH, domain_groups=9, **NUMBERS)
DOMAINS = ("law", "code", "art")


def answered(n=60):
    """Two answers to each question, one right, a third of the questions of each domain."""
    return [
        LabelledPair(
            f"q{i}", f"What is {i}?", f"say {j}", {"truth": j}, sample=j, generator="ab"[j], domain=DOMAINS[i % 3]
        )
        for i in range(n)
        for j in (0, 1)
    ]


@pytest.fixture
def few(monkeypatch):
    """Let few rows be enough."""
    monkeypatch.setattr(domains, "MIN_ROWS", 4)
    monkeypatch.setattr(domains, "MIN_OF_A_KIND", 2)


@pytest.mark.usefixtures("few")
def test_a_fold_sees_neither_its_domains_nor_their_questions():
    pairs = answered(12)
    pairs += [
        LabelledPair("q0", "What is 0?", "damaged", {"truth": 0}, auxiliary=True, domain="misc")
    ]  # of law's question
    pairs += [LabelledPair("new", "Else?", form, {"truth": 1}, auxiliary=True, domain="art") for form in ("a", "b")]
    pairs += [LabelledPair("q1", "What is 1?", "transfer", {"truth": 1}, auxiliary=True)]
    pairs += [LabelledPair("plain", "Nowhere?", "x", {"truth": 1})]
    labels = Labels.of(pairs)
    named, transfer = domains_of(labels, pairs), labels.pair == len(pairs) - 2
    folds = domain_folds(labels, named, transfer, 9, 0)
    left_out = [set(named[fold.test.row]) for fold in folds]
    assert sorted(map(sorted, left_out)) == [["art"], ["code"], ["law"]]
    for fold, group in zip(folds, left_out, strict=True):
        assert not (group | {""}) & set(named[fold.train.row]), "what names no domain may be of any"
        assert not set(fold.train.question) & set(fold.test.question)
        assert len(fold.test.score) == 8 and not fold.test.auxiliary.any()
        assert not transfer[fold.train.row].any()
        assert fold.train.auxiliary.sum() == {"law": 2, "code": 3, "art": 1}[group.pop()]
    assert [len(domain_folds(labels, named, transfer, n, 0)) for n in (0, 1, 2, 3)] == [0, 0, 2, 3]
    alone = Labels.of([replace(pair, domain="law") for pair in answered(6)])
    assert domain_folds(alone, np.full(12, "law"), np.zeros(12, bool), 9, 0) == []


def test_aspects_that_the_other_domains_say_little_of_are_left_out_alone(tmp_path):
    pairs = answered(60)
    for pair in pairs:
        if pair.domain == "law" or pair.id == "q1":  # and one question of code
            pair.scores["wit"] = pair.sample
    found = evaluate(planted(tmp_path, pairs, [pair.sample for pair in pairs]), CONFIG)
    assert set(found["unseen_domains"]) == {"truth"} and set(found["unseen_domains"]["truth"]) == set(DOMAINS)
    labels = Labels.of(pairs)
    folds = domain_folds(labels, domains_of(labels, pairs), np.zeros(len(labels.score), bool), 9, 0)
    (of_law,) = (fold for fold in folds if pairs[fold.test.pair[0]].domain == "law")
    assert {labels.names[a] for rows in (of_law.train, of_law.test) for a in np.unique(rows.aspect)} == {"truth"}


def test_a_signal_that_holds_everywhere_is_found_and_one_of_a_domain_alone_is_not(tmp_path):
    pairs = answered()
    right = np.array([pair.scores["truth"] for pair in pairs])
    of_law = np.array([pair.domain == "law" for pair in pairs])
    noise = np.random.default_rng(1).normal(size=len(pairs)) / 2
    found = evaluate(planted(tmp_path / "all", pairs, 3 * right + noise), CONFIG)
    truth = found["unseen_domains"]["truth"]
    assert set(truth) == set(DOMAINS) and all(one["auroc"]["value"] > 0.9 for one in truth.values())
    assert all((one["n_rows"], one["n_questions"]) == (40, 20) for one in truth.values())
    assert truth["law"]["same_question"]["value"] > 0.9 and truth["law"]["gain_over_length"]["auroc"]["low"] > 0
    assert "truth" in report(found) and "on law, a domain never seen: AUROC" in report(found)
    turned = evaluate(planted(tmp_path / "turned", pairs, 3 * np.where(of_law, -right, right) + noise), CONFIG)
    assert turned["unseen_domains"]["truth"]["law"]["auroc"]["value"] < 0.1, "a fit that saw law would know"
    assert "unseen_domains" not in evaluate(planted(tmp_path / "off", pairs, right), replace(CONFIG, domain_groups=0))


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_labels_drawn_at_random_are_not_told_apart(seed, tmp_path):
    rng, pairs = np.random.default_rng(seed), answered(90)
    pairs = [replace(pair, scores={"truth": int(rng.integers(2))}, prediction="x") for pair in pairs]
    found = evaluate(planted(tmp_path, pairs, rng.normal(size=len(pairs))), CONFIG)
    for entry in found["unseen_domains"]["truth"].values():
        assert abs(entry["auroc"]["value"] - 0.5) < 0.2


@pytest.mark.usefixtures("few")
def test_too_few_labels_outside_a_domain_leave_it_alone_unmeasured(tmp_path, caplog):
    pairs = answered(23)
    for pair in pairs:
        pair.domain = "law" if pair.id not in ("q21", "q22") else "art"
    caplog.set_level("INFO")
    found = evaluate(planted(tmp_path, pairs, [pair.sample for pair in pairs]), CONFIG)
    assert set(found["unseen_domains"]["truth"]) == {"art"} and "Unseen domains: law not measured" in caplog.text
    assert found["aspects"]["truth"]["n"] == 46


def test_small_domains_are_not_measured_and_of_many_the_largest_are_kept(tmp_path, monkeypatch, caplog):
    pairs = answered(50)
    for pair in pairs:
        number = int(pair.id[1:])
        pair.domain = "law" if number < 5 else "code" if number < 18 else "art" if number < 30 else "wine"
    features = planted(tmp_path, pairs, [pair.sample for pair in pairs])
    assert [*evaluate(features, CONFIG)["unseen_domains"]["truth"]] == ["wine", "code", "art"], "law has 10 rows"
    monkeypatch.setattr(domains, "MOST_DOMAINS", 2)
    caplog.set_level("INFO")
    assert [*evaluate(features, CONFIG)["unseen_domains"]["truth"]] == ["wine", "code"]
    assert "truth: 2 of 3 unseen domains are kept, the largest" in caplog.text


def test_the_card_says_what_is_known_of_new_domains():
    figure = {"value": 0.75, "low": 0.7, "high": 0.8}
    entry = {"n_rows": 40, "n_questions": 20, "auroc": figure, "same_question": figure}
    for name, value in (("length", 0.5), ("surface", 0.6), ("tfidf", 0.7)):
        beside = {"value": value, "low": value, "high": value}
        gain = {"value": 0.75 - value, "low": 0.0, "high": 0.5}
        entry |= {name: {"auroc": beside}, f"gain_over_{name}": {"auroc": gain}}
    line = domains_table({"truth": {"law|x": entry}}).splitlines()[-1]
    assert line.startswith("| truth | law\\|x | 40 to 20 questions | 0.750 (0.700 to 0.800) | 0.750 (0.700 to 0.800) |")
    assert line.endswith("| +0.050 (+0.000 to +0.500) |"), "over the best of them"


def test_a_domain_is_kept_from_the_files_to_the_table(tmp_path):
    rows = [
        {"question": f"Q{i}", "prediction": f"{g} says {c}", "generator": g, "correct": c, "final": "1", "answer": "1"}
        | ({"domain": "law"} if i < 3 else {})
        for i in range(6)
        for g, c in (("a", i % 2), ("b", 1 - i % 2))
    ]
    source = tmp_path / "verified.jsonl"
    source.write_text("".join(json.dumps(row) + "\n" for row in rows))
    for domain in (None, "code"):
        contrast(ContrastConfig((str(source),), tmp_path / "matched.jsonl", domain=domain))
        pairs = labelled_pairs(read_rows(str(tmp_path / "matched.jsonl")))
        assert {pair.question: pair.domain for pair in pairs} == {
            f"Q{i}": domain or ("law" if i < 3 else None) for i in range(6)
        }
    again = labelled_pairs(labelled_rows(pairs))
    assert [pair.domain for pair in again] == [pair.domain for pair in pairs]
    assert "domain" not in labelled_rows([LabelledPair("a", "b", "c")])[0]
    given = [{**again[0].__dict__, "domain": value} for value in (0, " law ", "  ", None)]
    assert [pair.domain for pair in labelled_pairs(given)] == ["0", "law", None, None]
    assert labelled_rows(labelled_pairs(given))[0]["domain"] == "0"
