import pytest
from inspector_training.runs.command import main
from inspector_training.stages.job_cost import Config as JobCostConfig
from inspector_training.stages.job_cost import job_cost, markdown

from inspector_pipeline.errors import SettingsError

# One layer of SmolLM2-135M: 576 wide, 9 heads and 3 of keys of 64, an MLP of 1536; the embedded judge runs 24 of them.
WEIGHTS = 2 * 576 * 576 + 2 * 576 * 192 + 3 * 576 * 1536


def test_the_arithmetic():
    config = JobCostConfig(0.5, 100, pairs=1000, many_cores=8, efficiency=0.5, peak_tflops=1, utilisation=0.1)
    found = job_cost(config)
    assert found.pair_flops == 24 * (2 * WEIGHTS * 100 + 4 * 576 * 100 * 100 // 2)
    assert found.measured == 500
    assert found.many_cores == pytest.approx(250)
    assert found.accelerator == pytest.approx(1000 * found.pair_flops / 1e11)
    text = markdown(config, found)
    assert "| 1,000 x 0.5 s | 500 s = 8.3 min |" in text and "| 500 s x 2 / (8 x 0.5) | 250 s = 4.2 min |" in text


@pytest.mark.parametrize("wrong", [{"seconds_per_pair": 0}, {"efficiency": 0}, {"utilisation": 1.5}, {"pairs": -1}])
def test_what_no_machine_is(wrong):
    with pytest.raises(SettingsError, match="A cost expects positive numbers and shares of 0 to 1"):
        JobCostConfig(**{"seconds_per_pair": 1.0, "tokens": 10, **wrong})


def test_the_command(tmp_path):
    args = ["job_cost", "--seconds-per-pair", "0.37", "--tokens", "365", "--output", str(tmp_path / "cost.md")]
    main(args)
    assert "1,000,000 pairs of 365 tokens" in (tmp_path / "cost.md").read_text()
