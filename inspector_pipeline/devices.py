"""What a device is best at: its dtype, the tokens of a pass, and copies that it does not wait for."""

import torch
from torch import Tensor

TOKEN_BUDGET = 3072  # tokens of one batch, padding included, on a CPU; 4096 is no faster and takes .4 GB more
INT8_TOKEN_BUDGET = 1536  # in whole numbers: what is left there is bound by the cache, 1.1 times as fast as with 3072
ACCELERATOR_TOKEN_BUDGET = 16384


def preferred_dtype(device: str | torch.device | None = None) -> torch.dtype:
    """Return the dtype that a judge runs in where none is asked for.

    bfloat16 on a GPU that has it, float32 elsewhere: in float32 a score is the same in any batch and on any CPU. A CPU
    with AMX is about three times as fast in bfloat16, for which a judge must be asked (`dtype`).

    Args:
        device: Where the judge will run; None is the first accelerator, else the CPU.
    """
    if device is None:
        device = torch.accelerator.current_accelerator(check_available=True) or "cpu"
    if torch.device(device).type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False):
        return torch.bfloat16
    return torch.float32


def token_budget(device: torch.device, is_int8: bool = False) -> int:
    """Return how many tokens one pass takes: enough to keep a device busy, few enough for its memory and cache."""
    if device.type != "cpu":
        return ACCELERATOR_TOKEN_BUDGET
    return INT8_TOKEN_BUDGET if is_int8 else TOKEN_BUDGET


def to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """Copy a tensor from the host, without waiting for it where the device allows that."""
    if device.type == "cuda":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)
