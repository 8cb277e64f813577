"""Load a staged judge as a stranger does: in a process of its own, by the repo's code alone.

`reload.py` runs this file as a script. It imports nothing of the project, takes a request as JSON on standard
input and answers on standard output with the scores, and with the modules that they came from.
"""

import copy
import json
import sys
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from transformers import AutoConfig, AutoModel, pipeline

THIN = {"intermediate_size": 64, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16, "vocab_size": 512}
ROWS, TOKENS, RESPONSE_TOKENS = 4, 24, 9


def scores_on_thin_backbone(model: Any, seed: int = 0) -> list[list[float]]:
    """Score random tokens on a random backbone of the judge's depth and width, but with thin layers.

    This runs everything of a judge but its real backbone and tokenizer: passes, poolings, centres, probes and rules.

    Args:
        model: A judge without a backbone; it keeps the thin one.
        seed: Of the backbone's weights and the tokens.

    Returns:
        Expected scores, (rows, aspects).
    """
    thin = copy.deepcopy(model.config.backbone_config)
    for name, value in THIN.items():
        if getattr(thin, name, None) is not None:
            setattr(thin, name, value)
    for name in ("pad_token_id", "bos_token_id", "eos_token_id"):
        setattr(thin, name, None)
    thin.dtype = "float32"
    torch.manual_seed(seed)
    model.set_backbone(AutoModel.from_config(thin, dtype=torch.float32).eval())
    response = torch.zeros(ROWS, TOKENS, dtype=torch.long)
    response[:, -RESPONSE_TOKENS:] = 1
    names = model.reading_names
    ids = {name: torch.randint(0, thin.vocab_size, (ROWS, TOKENS)) for name in names}
    found = {check.pooling: torch.arange(ROWS) % 2 for check in model.checks}
    with torch.inference_mode():
        output = model(ids, response_mask=dict.fromkeys(names, response), **found)
    expected: list[list[float]] = output.expected.tolist()
    return expected


def load_probes(model: Any, folder: Path) -> Any:
    """Fill a judge that was built from its config with the probes of a folder, strictly, without any backbone."""
    state = load_file(folder / "model.safetensors")
    model.load_state_dict({name: t for name, t in state.items() if not name.startswith(("backbone.", "final_norm."))})
    return model.eval()


def main() -> None:
    """Answer one request, {"folder", "pairs", "dtype"}.

    Without pairs, the probes are checked on a thin random backbone.
    """
    request = json.load(sys.stdin)
    sys.modules["inspector_pipeline"] = None  # type: ignore[assignment]  # as where the package is not installed
    folder = request["folder"]
    if request["pairs"]:
        dtype = request["dtype"]
        judge = pipeline("inspector-judge", model=folder, trust_remote_code=True, device="cpu", dtype=dtype)
        expected = [list(result["expected"].values()) for result in judge(request["pairs"])]
        used = [judge, judge.model, judge.model.config]
    else:
        config = AutoConfig.from_pretrained(folder, trust_remote_code=True)
        model = load_probes(AutoModel.from_config(config, trust_remote_code=True), Path(folder))
        expected = scores_on_thin_backbone(model)
        used = [model, config]
    json.dump({"expected": expected, "modules": [type(item).__module__ for item in used]}, sys.stdout)


if __name__ == "__main__":
    main()
