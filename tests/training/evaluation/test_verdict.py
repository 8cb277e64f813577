"""What is said at the end: which cheaper methods would do as well."""

from inspector_training.evaluation.verdict import verdict


def figure(value, low, high):
    return {"value": value, "low": low, "high": high}


def entry(metric, own, **gains):
    return {metric: own, **{f"gain_over_{way}": {metric: gain} for way, gain in gains.items()}}


def test_a_cheaper_method_that_does_as_well_is_named():
    good, bad = figure(0.1, 0.02, 0.2), figure(0.01, -0.02, 0.04)
    levels = entry("auroc", figure(0.7, 0.65, 0.75), length=good, surface=good, tfidf=bad)
    levels["by_generator"] = {"a": {"n": 9, "auroc": figure(0.6, 0, 1)}, "b": {"n": 9, "auroc": figure(0.8, 0, 1)}}
    compared = entry("agreement", figure(0.52, 0.48, 0.56), length=figure(-0.1, -0.2, -0.05), surface=bad, tfidf=bad)
    told = {"aspects": {"none": {"unused": {"is no number": 3}}}}
    nothing = {"auroc": figure(None, None, None)}
    as_well = "would do as well and cost less: the judge's gain is +0.010 (-0.020 to +0.040)."
    for own, says in ((good, "helps: the gain is +0.100 (+0.020 to +0.200)."), (bad, "is not shown to help: the gain")):
        entries = {"wit": {**entry("auroc", figure(0.8, 0.7, 0.9), rival=own), "rival": {"auroc": good}}}
        line = verdict({"aspects": entries, "protocol": {"rival_without": ["context"]}})[1]
        assert line.startswith(f"wit: without the context the same fit reaches 10.0 % (2.0 to 20.0); reading it {says}")
        assert line.endswith("Train it without.") == (own is bad)
    assert verdict(
        {"aspects": {"wit": levels, "taste": {"preference": compared}, "none": nothing}, "labels": told}
    ) == [
        "wit: it ranks a good response above another in 70.0 % (65.0 to 75.0) of such pairs.",
        "wit: it is better than length alone and surface features (lengths, counts, word overlap).",
        f"wit: TF-IDF with logistic regression {as_well}",
        "wit: by generator it reaches 0.600 (a, the worst of 2) to 0.800 (b).",
        "taste: it agrees with the majority of raters in 52.0 % (48.0 to 56.0) of such pairs, which is not shown to"
        " beat chance (50 %).",
        "taste: length alone would do better and cost less: the judge's gain is -0.100 (-0.200 to -0.050).",
        f"taste: surface features (lengths, counts, word overlap) {as_well}",
        f"taste: TF-IDF with logistic regression {as_well}",
        "none: it was not evaluated, since its labels are all good or all not.",
        "none: 3 labels were left out (is no number), and these figures know nothing of them.",
    ]


def test_a_wide_interval_is_no_sign_that_a_cheaper_method_does_as_well():
    own, ways = (
        figure(0.7, 0.6, 0.8),
        {"length": (0.03, -0.04, 0.1), "surface": (0.2, 0.1, 0.3), "tfidf": (0.1, 0.0, 0.2)},
    )
    wide = entry("auroc", own, **{way: figure(*gain) for way, gain in ways.items()}, overlap=figure(0.2, 0.1, 0.3))
    wide |= entry("auroc", own, exact_match=figure(None, None, None), math_verify=figure(0.1, None, None))
    edge = entry("auroc", figure(0.3, 0.2, 0.4), length=figure(0.0, -0.05, 0.0499), surface=figure(0.0, -0.05, 0.05))
    edge |= entry("auroc", figure(0.3, 0.2, 0.4), tfidf=figure(0.2, 0.1, 0.3), overlap=figure(0.2, 0.1, 0.3))
    edge["gain_over_exact_match"] = {"auroc": figure(0.2, 0.1, 0.3)}
    told = {"aspects": {"a": {"unused": {"is no number": 1}}, "b": {}}}
    apart = "would cost less and cannot be told apart from it on so few rows: the judge's gain is"
    few = {"auroc": figure(0.6, None, None)}
    assert verdict({"aspects": {"a": wide, "b": edge, "c": few}, "labels": told}) == [
        "a: it ranks a good response above another in 70.0 % (60.0 to 80.0) of such pairs.",
        "a: it is better than surface features (lengths, counts, word overlap) and words and numbers shared with the "
        "context or the reference.",
        f"a: length alone {apart} +0.030 (-0.040 to +0.100).",
        f"a: TF-IDF with logistic regression {apart} +0.100 (+0.000 to +0.200).",
        "a: it could not be compared with comparing the stated answer with the reference and math-verify against the "
        "reference, since it has too few labels of one kind.",
        "a: 1 label was left out (is no number), and these figures know nothing of it.",
        "b: it ranks a good response above another in 30.0 % (20.0 to 40.0) of such pairs, which is below chance (50 "
        "%), as if its labels meant the opposite.",
        "b: it is better than TF-IDF with logistic regression, words and numbers shared with the context or the "
        "reference and comparing the stated answer with the reference.",
        "b: length alone would do as well and cost less: the judge's gain is +0.000 (-0.050 to +0.050).",
        f"b: surface features (lengths, counts, word overlap) {apart} +0.000 (-0.050 to +0.050).",
        "c: it was not evaluated, since its labels are all good or all not.",
    ]


def test_a_context_may_do_harm_and_what_was_not_measured_is_not_told():
    own, worse = figure(0.8, 0.7, 0.9), figure(-0.1, -0.2, -0.01)
    taste = {"preference": {"agreement": own, "gain_over_rival": {"agreement": worse}, "rival": {"agreement": own}}}
    protocol = {"rival_without": ["context", "reference"]}
    assert verdict({"aspects": {"taste": taste}, "protocol": protocol})[1:] == [
        "taste: without the context and the reference the same fit reaches 80.0 % (70.0 to 90.0); reading it does "
        "harm: the gain is -0.100 (-0.200 to -0.010). Train it without."
    ]
    for without, gain in ((["context"], figure(None, None, None)), ([], worse)):
        wit = {**entry("auroc", own, rival=gain), "rival": {"auroc": own}}
        assert len(verdict({"aspects": {"wit": wit}, "protocol": {"rival_without": without}})) == 1
    edge = {**entry("auroc", own, rival=figure(0.0, 0.0, 0.0)), "rival": {"auroc": own}}
    assert "is not shown to help" in verdict({"aspects": {"wit": edge}, "protocol": protocol})[1]
    told = {"aspects": {"wit": {"unused": {"blank": 2}}}}
    assert "2 labels were left out (blank)" in verdict({"aspects": {"wit": {"auroc": own}}, "labels": told})[1]
