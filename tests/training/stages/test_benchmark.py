"""The benchmark: what each case does and counts, what is kept of it, and the tables that follow."""

import json
import math
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from inspector_training.benchmarks import measure, peers, run
from inspector_training.benchmarks import reference as reference_procedure
from inspector_training.benchmarks.cases import best_of_pairs, kind_of, qwen3_config, shares
from inspector_training.benchmarks.config import (
    DTYPES,
    PEERS,
    QUESTION_TOKENS,
    BenchmarkConfig,
    all_cases,
    chosen_cases,
)
from inspector_training.benchmarks.inputs import PUBLISHED_LAYERS, Inputs, rubric_layers
from inspector_training.benchmarks.measure import matrix_ceiling, padded
from inspector_training.benchmarks.reference import attention_entropy, encoder_config
from inspector_training.benchmarks.report import comparisons, draw, markdown
from inspector_training.benchmarks.run import engine_sha256, run_case
from inspector_training.evaluation.cost import LayerShape
from inspector_training.rows.probing_set import ASPECTS, make_probing_set
from inspector_training.rows.records import LabelledPair
from inspector_training.stages.benchmark import run as benchmark
from matplotlib.figure import Figure
from PIL import Image
from support.models import aspect, feature
from support.paths import ROOT
from transformers import AutoModel, AutoModelForCausalLM

import inspector_pipeline
from inspector_pipeline import PairTemplate
from inspector_pipeline.errors import DataFileError, SettingsError

CASES, RESULTS, TABLES, PLOT = "cases", "benchmark.json", "benchmark.md", "benchmark.png"
SMOLLM2 = LayerShape(hidden=576, heads=9, kv_heads=3, head_dim=64, intermediate=1536)


@pytest.fixture
def family():
    """One family is enough here: what differs between them is tested with the judges."""
    return "llama"


@pytest.fixture(autouse=True)
def short_ceilings(monkeypatch):
    """Time the matrix products for a moment only: here nothing depends on how fast they are."""
    monkeypatch.setattr(measure, "CEILING_SECONDS", 0.002)


@pytest.fixture
def config(make_judge, tmp_path):
    """A run on the tiny backbone, with six labelled pairs of different lengths."""
    judge = make_judge([aspect("fluency", [feature(2, "response_mean", "rms_normed")])])
    pairs = [
        LabelledPair(i, f"How many are {i} and {i + 1} apples?", f"There are {2 * i + 1}. " * (i + 1), {})
        for i in range(1, 7)
    ]
    rubrics = {name: PairTemplate(f"Judge {name} from 1 to 5.\n\nQ:\n", "\n\nA:\n", "\n\nScore:\n") for name in ASPECTS}
    for pair in pairs:
        pair.scores = dict.fromkeys(ASPECTS, 1 + pair.id % 5)
    probing_set = tmp_path / "probing.json"
    probing_set.write_text(json.dumps(make_probing_set(pairs, rubrics)))
    return BenchmarkConfig(
        probing_set=str(probing_set),
        output=str(tmp_path / "benchmark"),
        judge=str(judge),
        other_judges=(str(judge),),
        cases=("judge-float32",),
        pairs=5,
        reference_pairs=4,
        repetitions=2,
        batch_size=3,
        threads=1,
        best_of_questions=2,
    )


@pytest.fixture
def case_of(config):
    """Run a case of the tiny run in this process."""
    Path(config.output).mkdir(parents=True)
    cases = {case.name: case for case in all_cases(config)}
    return lambda name: run_case(config, cases[name])


@pytest.fixture
def causal(backbone_dir):
    return AutoModelForCausalLM.from_pretrained(backbone_dir, attn_implementation="eager").eval()


def test_the_reference_pools_every_state_over_all_positions_padding_included(causal, backbone_dir, tokenizer):
    prompts = ["One apple.", "Two apples and a pear make three, and then some more."]
    batch = tokenizer(prompts, return_tensors="pt", padding=True)
    with torch.inference_mode():
        plain = AutoModel.from_pretrained(backbone_dir, attn_implementation="eager").eval()
        states = plain(**batch, output_hidden_states=True).hidden_states

    found = reference_procedure.read(causal, tokenizer, prompts)

    assert len(found.pooled) == len(states)
    for pooled, state in zip(found.pooled, states, strict=True):
        literal = sum(state[:, i] for i in range(state.shape[1])) / state.shape[1]
        torch.testing.assert_close(pooled, literal, rtol=1e-4, atol=1e-5)


def test_the_reference_computes_the_entropy_of_every_head_of_every_layer(causal, tokenizer):
    prompt = ["Two apples and a pear."]
    with torch.inference_mode():
        weights = causal(**tokenizer(prompt, return_tensors="pt"), output_attentions=True).attentions

    found = reference_procedure.read(causal, tokenizer, prompt)

    assert [tuple(entropy.shape) for entropy in found.entropies] == [(1, 4)] * 4
    rows = weights[2][0, 1].tolist()
    literal = sum(-sum(p * math.log(p) for p in row if p > 0) for row in rows) / len(rows)
    assert found.entropies[2][0, 1].item() == pytest.approx(literal, abs=1e-5)


def test_entropy_of_known_attention():
    even, certain = torch.full((1, 1, 3, 8), 1 / 8), torch.eye(8)[None, None, :3]
    causal_rows = torch.tensor([[[[1.0, 0.0], [0.5, 0.5]]]])

    assert attention_entropy(even).item() == pytest.approx(math.log(8), abs=1e-6)
    assert attention_entropy(certain).item() == pytest.approx(0.0, abs=1e-6)
    assert attention_entropy(causal_rows).item() == pytest.approx(math.log(2) / 2, abs=1e-6)


def test_flops_of_known_layers_equal_a_count_by_hand():
    projections = 576 * 576 * 2 + 2 * 576 * 192  # q and o; k and v
    mlp = 3 * 576 * 1536
    assert SMOLLM2.flops([100], layers=1) == 2 * (projections + mlp) * 100 + 2 * 9 * 64 * 100 * 100
    assert SMOLLM2.flops([100, 50], layers=3) == 3 * (SMOLLM2.flops([100], 1) + SMOLLM2.flops([50], 1))

    qwen3 = LayerShape.of(qwen3_config(vocab_size=512))
    assert qwen3.flops([1], layers=1) - 2 * 16 * 128 == 100_663_296  # 100.7 MFLOP a token


def test_flops_of_an_encoder_count_the_whole_square_and_no_gate():
    shape = LayerShape.of(encoder_config(512), gated=False, causal=False)
    assert "gate" not in shape.linears
    assert shape.flops([10], layers=1) == 2 * (4 * 768 * 768 + 2 * 768 * 3072) * 10 + 4 * 768 * 10 * 10


def test_the_shape_of_a_backbone_has_the_weights_of_its_layers(full_model):
    shape = LayerShape.of(full_model.config)
    linears = [m for m in full_model.layers[0].modules() if isinstance(m, torch.nn.Linear)]
    assert sum(a * b for a, b in shape.linears.values()) == sum(linear.weight.numel() for linear in linears)


@given(st.lists(st.integers(1, 50), min_size=1, max_size=20), st.integers(1, 8))
def test_padded_lengths_are_those_of_real_batches(lengths, batch_size):
    found = padded(lengths, batch_size)
    assert len(found) == len(lengths)
    assert all(a >= b for a, b in zip(found, lengths, strict=True))
    assert padded(lengths, 1) == lengths
    assert padded(lengths, len(lengths)) == [max(lengths)] * len(lengths)


def test_the_ceiling_is_a_speed():
    small = LayerShape(hidden=32, heads=2, kv_heads=1, head_dim=16, intermediate=64)
    assert 0 < matrix_ceiling(small, tokens=64, dtype=torch.float32, seconds=0.001) < 1e5


def test_the_published_layers_are_scaled_to_the_backbone():
    assert rubric_layers(30) == PUBLISHED_LAYERS
    assert rubric_layers(4) == {
        "semantic_consistency": (2, 3),
        "logicality": (2,),
        "informativeness": (2,),
        "fluency": (1,),
        "factuality": (2,),
    }


def test_cases_keep_every_number_that_the_tables_read(case_of, config):
    names = ["judge-float32", "rubric-float32", "plain-bfloat16", "reference-batch-1", "reference-batch-3"]
    cases = {name: json.loads(json.dumps(case_of(name))) for name in names}

    for name, case in cases.items():
        assert case["case"] == name
        assert case["pairs"] == (4 if case["group"] == "reference" else 5)
        assert case["tokens"] >= case["chat_tokens"] > 0
        assert case["pairs_per_second"] == pytest.approx(case["pairs"] / case["median_seconds"])
        assert case["peak_memory_bytes"] >= case["loaded_memory_bytes"] > 0
        assert case["gflops"] > 0
        assert case["ceiling_gflops"] > 0
    assert len(cases["judge-float32"]["seconds"]) == 2
    assert len(cases["reference-batch-1"]["seconds"]) == 1
    table = markdown(results_of(config, cases))
    assert all(f"| {name} |" in table for name in names)


def test_the_rubric_judge_gives_the_references_scores_where_there_is_no_padding(case_of):
    rubric, alone, padded_batch = (
        case_of(name)["details"] for name in ("rubric-float32", "reference-batch-1", "reference-batch-3")
    )

    assert rubric["aspects"] == alone["aspects"]
    assert rubric["scores"][:4] == alone["scores"]
    torch.testing.assert_close(torch.tensor(rubric["expected"][:4]), torch.tensor(alone["expected"]), atol=1e-4, rtol=0)
    assert len({tuple(row) for row in rubric["scores"]}) > 1  # else equality would say nothing
    # the fault that the reference has: with padding pooled, other rows of the batch move a score
    moved = torch.tensor(padded_batch["expected"]) - torch.tensor(alone["expected"])
    assert moved.abs().max() > 1e-3


def test_drift_in_float32_is_none_and_in_bfloat16_some(case_of):
    found = case_of("drift")["details"]
    assert found["pairs"] == 6
    assert found["sharing_float32"]["max"] < 1e-4
    assert found["sharing_float32"]["flips"] == 0
    assert 1e-5 < found["bfloat16"]["max"] < 1


def test_eight_responses_share_a_question_of_three_hundred_tokens(config):
    inputs = Inputs(config)
    pairs = best_of_pairs(inputs)
    questions = list(dict.fromkeys(pair["question"] for pair in pairs))
    assert [sum(pair["question"] == question for pair in pairs) for question in questions] == [8, 8]
    assert all(len(inputs.tokenizer(question)["input_ids"]) >= QUESTION_TOKENS for question in questions)


def test_best_of_8_gives_the_same_scores_however_it_is_called(case_of):
    together, unrelated, alone = (
        torch.tensor(case_of(f"best_of_8-{mode}-float32")["details"]["expected"])
        for mode in ("together", "unrelated", "alone")
    )
    torch.testing.assert_close(together, unrelated, atol=1e-4, rtol=0)
    torch.testing.assert_close(together, alone, atol=1e-4, rtol=0)
    assert 1 < case_of("best_of_8-together-float32")["details"]["times_fewer_tokens"] < 8


@pytest.mark.parametrize("name", PEERS)
def test_a_peer_classifies_the_same_pairs(case_of, monkeypatch, name):
    kind, sizes = peers.CONFIGS.get(name, (None, {}))
    small = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2}
    small |= {"num_key_value_heads": 1, "head_dim": 16} if name == "reward" else {}
    if kind is not None:
        monkeypatch.setitem(peers.CONFIGS, name, (kind, {**sizes, **small}))

    found = case_of(f"peer-{name}")

    assert found["pairs"] == 5
    assert found["pairs_per_second"] > 0


def test_the_engine_of_whole_numbers_scores_nearly_the_same(case_of):
    found, plain = (torch.tensor(case_of(name)["details"]["expected"]) for name in ("judge-int8", "judge-float32"))
    assert 1e-5 < (found - plain).abs().max() < 1


def test_another_judge_scores_the_same_pairs(config, case_of):
    name = f"judge-{Path(config.judge).name}-float32"
    assert case_of(name)["details"]["expected"] == case_of("judge-float32")["details"]["expected"]


@pytest.mark.parametrize("length", [64, 200])
def test_made_up_pairs_have_the_length_asked_for_and_begin_differently(config, length):
    inputs = Inputs(config)
    pairs = list(inputs.pairs_of(length, 20))
    lengths = inputs.chat_lengths(pairs)
    assert length - 8 <= min(lengths)
    assert max(lengths) <= length
    assert len({pair["question"] for pair in pairs}) == 20


def test_growth_scores_every_pair_of_a_stream(config):
    Path(config.output).mkdir(parents=True)
    cases = {case.name: case for case in all_cases(config)}
    found = run_case(config, cases["growth-length-64"])
    assert found["details"]["scored"] == found["pairs"] == 16


def test_operators_are_sorted_into_kinds():
    kinds = ["aten::mm", "mkldnn::_linear_pointwise", "aten::_scaled_dot_product_flash_attention_for_cpu", "aten::mul"]
    assert [kind_of(name) for name in kinds] == ["matrix products"] * 2 + ["attention", "element-wise and other"]
    found = shares({"aten::mm": 3.0, "aten::mul": 1.0})
    assert found["kinds"] == {"matrix products": 0.75, "element-wise and other": 0.25}


def test_peak_memory_is_the_cases_own_and_not_that_of_what_started_it():
    if not Path("/proc/self/status").is_file():
        pytest.skip("this system does not say what a process's own peak memory is")
    code = (
        "from inspector_training.benchmarks.measure import peak_memory\n"
        "before = peak_memory(); held = b'x' * 2**28; print(before, peak_memory())"
    )
    held = b"x" * 2**30  # what starts the case is larger than the case
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    before, after = map(int, done.stdout.split())
    assert before < len(held)
    assert after - before == pytest.approx(2**28, rel=0.1)


def test_a_run_measures_each_case_once_and_writes_tables_and_plot(config, tmp_path):
    benchmark(config)
    folder = Path(config.output)
    measured = folder / CASES / "judge-float32.json"
    before = measured.read_bytes()
    (folder / RESULTS).unlink()  # as if the run had been killed before its end

    benchmark(config)

    assert measured.read_bytes() == before
    results = json.loads((folder / RESULTS).read_text())
    assert set(results["cases"]) == {"judge-float32"}
    assert "| judge-float32 |" in (folder / TABLES).read_text()
    with Image.open(folder / PLOT) as picture:
        assert picture.size == (1100, 850)
    assert str(tmp_path) not in (folder / TABLES).read_text() + (folder / RESULTS).read_text()


def test_the_engine_is_the_code_that_ships_with_a_judge_and_what_loads_it(tmp_path, monkeypatch):
    engine = shutil.copytree(Path(inspector_pipeline.__file__).parent, tmp_path / "engine")
    monkeypatch.setattr(run, "ENGINE", engine)
    hashes = {engine_sha256()}
    for name in ("engine.py", "packing.py", "api/load.py"):
        with (engine / name).open("a") as file:
            file.write("# changed\n")
        hashes.add(engine_sha256())
    assert len(hashes) == 4
    (engine / "serving" / "app.py").write_text("")
    assert engine_sha256() in hashes


def test_a_case_that_dies_says_so_and_how_to_go_on(config, monkeypatch):
    monkeypatch.setattr(run.sys, "executable", shutil.which("false"))
    with pytest.raises(DataFileError, match="judge-float32 ended with exit code 1"):
        benchmark(config)


def test_a_judge_that_is_not_there_is_told_before_anything_is_measured(config, tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere', where no folder is"):
        benchmark(replace(config, judge=str(tmp_path / "nowhere")))
    assert not Path(config.output).exists()


def test_settings_are_checked(config):
    with pytest.raises(SettingsError, match=r"cases expects .* but got 'jugde'"):
        chosen_cases(BenchmarkConfig("out", "set.json", cases=("jugde",)))
    with pytest.raises(SettingsError, match="cases expects .* but got none"):
        chosen_cases(BenchmarkConfig("out", "set.json", cases=()))
    with pytest.raises(SettingsError, match="repetitions expects 1 or more, but got 0"):
        BenchmarkConfig("out", "set.json", repetitions=0)
    with pytest.raises(SettingsError, match="drift_pairs expects 0"):
        BenchmarkConfig("out", "set.json", drift_pairs=-1)
    with pytest.raises(SettingsError, match="other_judges expects judges of different names, but got one, one"):
        BenchmarkConfig("out", "set.json", other_judges=("a/one", "b/one"))
    with pytest.raises(SettingsError, match="threads expects 1 or more"):
        BenchmarkConfig("out", "set.json", threads=0)


@pytest.mark.parametrize("cases", [None, ("device-64-float32", "device_parity")])
def test_a_device_needs_no_labels_and_its_cases_are_the_judges(config, cases):
    with pytest.raises(SettingsError, match="probing_set expects labelled pairs .* name a device"):
        chosen_cases(replace(config, probing_set=None))
    there = replace(config, probing_set=None, device="cpu", cases=cases)
    groups = {case.group for case in chosen_cases(there)}
    assert groups == {"device", "device_parity"}


def test_the_judge_on_a_device_is_measured_and_compared_with_the_cpu(config):
    there = replace(
        config, probing_set=None, device="cpu", cases=None, device_tokens=640, device_lengths=(64, 200), repetitions=1
    )
    Path(config.output).mkdir(parents=True)
    cases = {case.name: json.loads(json.dumps(run_case(there, case))) for case in all_cases(there)}

    assert cases["device-64-float32"]["pairs"] == 10
    assert cases["device-best-of-8-float32"]["pairs"] == 8
    assert cases["device-200-bfloat16"]["details"]["scored"] == 3
    parity = cases["device_parity"]["details"]
    assert parity["float32"]["max"] < 1e-4 < parity["bfloat16"]["max"]
    table = markdown(results_of(there, cases))
    assert all(f"| {name}-{dtype} | " in table for name in ("64", "200", "best-of-8") for dtype in DTYPES)
    assert draw(results_of(there, cases)).axes


def test_a_device_that_is_not_there_is_told_before_anything_is_measured(config):
    with pytest.raises(SettingsError, match="device expects one that torch can use here, but got 'nowhere'"):
        benchmark(replace(config, device="nowhere", cases=None))
    assert not Path(config.output).exists()


def test_a_group_stands_for_its_cases():
    names = [case.name for case in chosen_cases(BenchmarkConfig("out", "set.json", cases=("reference", "drift")))]
    assert names == ["reference-batch-1", "reference-batch-16", "drift"]


def results_of(config, cases):
    return {
        "machine": {"cpu": "A CPU", "device": config.device, "threads": 2, "matrix_extensions": ["avx512f"]},
        "settings": {"pairs": config.pairs, "repetitions": 3, "reference_repetitions": 1},
        "versions": {"torch": "2", "transformers": "5"},
        "cases": cases,
        "comparisons": comparisons(cases, config.batch_size),
    }


SPEEDS = {"judge": 40.0, "rubric": 4.0, "plain": 8.0, "encoder": 20.0, "best_of_8": 10.0}


def made_up(case):
    """What a case's JSON might hold."""
    speed = SPEEDS.get(case.group, 1.0)
    speed *= {"reference-batch-16": 0.5, "best_of_8-together-float32": 3.0}.get(case.name, 1.0)
    spread = {"max": 1e-3, "mean": 1e-4, "spread": 0.5, "flips": 0.01}
    details = {
        "scores": [[1, 2], [3, 4]],
        "expected": [[1.0, 2.0], [3.0, 4.0 + (case.group == "rubric") / 8]],
        "length": case.arguments.get("length"),
        "steps": {"load": 1.5},
        "kinds": {"matrix products": 0.7, "attention": 0.3},
        "pairs": 2,
        "times_fewer_tokens": 1.9,
    }
    details |= dict.fromkeys(("bfloat16", "bfloat16_unshared", "sharing_float32", "sharing_bfloat16"), spread)
    return {
        "group": case.group,
        "dtype": case.arguments.get("dtype", "float32"),
        "pairs": case.arguments.get("pairs") or 16,
        "tokens": 5000,
        "median_seconds": 2.0,
        "pairs_per_second": speed,
        "tokens_per_second": 300 * speed,
        "chat_tokens_per_second": 250 * speed,
        "gflops": 100.0,
        "ceiling_gflops": 200.0,
        "share_of_ceiling": 0.5,
        "peak_memory_bytes": 2**30,
        "details": details,
    }


def test_the_tables_give_the_ratios_of_one_run():
    config = BenchmarkConfig("out", "set.json")
    results = results_of(config, {case.name: made_up(case) for case in all_cases(config)})

    found = results["comparisons"]
    assert found["ratios"]["judge-float32"] == {
        "reference_best": 40.0,
        "reference_default": 80.0,
        "plain": 5.0,
        "encoder": 2.0,
    }
    assert found["best_of_8"]["float32"] == {"over_unrelated": 3.0, "over_alone": 3.0, "times_fewer_tokens": 1.9}
    same = found["equality"]["rubric-float32 against reference-batch-1"]
    assert same == {"pairs": 2, "equal_scores": 1.0, "max_difference": 0.125}
    table = markdown(results)
    assert "| judge-float32 | 40 | 0.025 | 12,000 | 1.00 GiB | 100 | 40x | 80x |" in table
    assert "| qwen3-bfloat16 | 16 | 312 | 100 | 200 | 50 % |" in table
    assert "one by one, by reading 1.90 times fewer tokens" in table
    assert "| 10,000 | 2 |" in table
    assert table.count("**") == 2 * 8  # a title for each table


def test_the_picture_shows_what_was_measured_and_hides_the_rest():
    config = BenchmarkConfig("out", "set.json")
    cases = {case.name: made_up(case) for case in all_cases(config)}
    whole, part = (draw(results_of(config, chosen)) for chosen in (cases, {"judge-float32": cases["judge-float32"]}))
    assert isinstance(whole, Figure)
    assert [axes.get_visible() for axes in whole.axes[:4]] == [True] * 4
    assert [axes.get_visible() for axes in part.axes[:4]] == [True, False, False, False]
