"""What a device is best at: its dtype, the tokens of a pass, and copies that it does not wait for."""

import torch
from torch import Tensor

TOKEN_BUDGET = 3072  # tokens of one batch, padding included, on a CPU; 4096 is no faster and takes .4 GB more
ACCELERATOR_TOKEN_BUDGET = 16384


def preferred_dtype(device: str | torch.device | None = None) -> torch.dtype:
    """Return the dtype that a device computes fastest in, of those that are exact enough: bfloat16 or float32.

    bfloat16 where a GPU has it, and where a CPU multiplies matrices in it faster than in float32: with AMX, or with
    AVX512-BF16 on a CPU that is not Intel's. On an Intel CPU with AVX512-BF16 alone it was measured at .55 of the speed
    of float32.

    Args:
        device: Where the judge will run; None is the first accelerator, else the CPU.
    """
    if device is None:
        device = torch.accelerator.current_accelerator(check_available=True) or "cpu"
    kind = torch.device(device).type
    if kind == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float32
    if kind != "cpu":
        return torch.float32
    able = torch.cpu.get_capabilities()
    fast = able.get("amx_bf16") or (able.get("avx512_bf16") and "Intel" not in str(able.get("cpu_name")))
    return torch.bfloat16 if fast else torch.float32


def token_budget(device: torch.device) -> int:
    """Return how many tokens one pass takes: enough to keep a device busy, few enough for its memory."""
    return TOKEN_BUDGET if device.type == "cpu" else ACCELERATOR_TOKEN_BUDGET


def to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """Copy a tensor from the host, without waiting for it where the device allows that."""
    if device.type == "cuda":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)
