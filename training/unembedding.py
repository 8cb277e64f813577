"""The matrix that turns a backbone's last state into logits, of which a judge keeps the rows of its score tokens."""

from typing import NamedTuple

import torch
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedConfig

from inspector_pipeline.backbone import backbone_location, load_backbone
from inspector_pipeline.errors import BackboneError
from inspector_pipeline.wheel_backbone import is_wheel_id

SCALES = ("logit_scale", "logits_scaling")  # factors on the logits that some configs name
SOFTCAP = "final_logit_softcapping"


class Unembedding(NamedTuple):
    """A backbone's unembedding, in the checkpoint's dtype.

    Attributes:
        weight: (vocabulary, hidden).
        bias: (vocabulary,), zeros where the backbone has none.
    """

    weight: Tensor
    bias: Tensor


def load_unembedding(backbone_id: str, revision: str | None = None) -> Unembedding:
    """Load a backbone's unembedding: its token embeddings where the two are tied, else its LM head.

    Args:
        backbone_id: Hub id, folder or `pypi:` id.
        revision: Its revision.

    Raises:
        BackboneError: It cannot be loaded, or does more than a linear map.
    """
    location, pinned = backbone_location(backbone_id, revision, None)
    config = AutoConfig.from_pretrained(location, **pinned).get_text_config()
    _refuse_more_than_linear(config, backbone_id)
    if config.tie_word_embeddings:
        backbone = load_backbone(backbone_id, revision, None if is_wheel_id(backbone_id) else 1, dtype="auto")
        weight = backbone.get_input_embeddings().weight.detach()
        return Unembedding(weight, torch.zeros(len(weight)))
    model, info = AutoModelForCausalLM.from_pretrained(location, dtype="auto", output_loading_info=True, **pinned)
    head = model.get_output_embeddings()
    names = [name for name, module in model.named_modules() if module is head]
    if head is None or any(key.startswith(f"{names[0]}.") for key in info["missing_keys"]):
        raise BackboneError(
            f"Score tokens expect a backbone with an LM head, but {backbone_id} has none. Take a causal LM."
        )
    bias = getattr(head, "bias", None)
    weight = head.weight.detach().clone()
    return Unembedding(weight, torch.zeros(len(weight)) if bias is None else bias.detach().clone())


def _refuse_more_than_linear(config: PreTrainedConfig, backbone_id: str) -> None:
    scaled = [name for name in SCALES if getattr(config, name, None) not in (None, 1, 1.0)]
    capped = [SOFTCAP] if getattr(config, SOFTCAP, None) else []
    if scaled or capped:
        name = (scaled + capped)[0]
        raise BackboneError(
            f"Score tokens expect logits that are a linear map of the state, but {backbone_id} has {name} = "
            f"{getattr(config, name)}. Take another backbone."
        )
