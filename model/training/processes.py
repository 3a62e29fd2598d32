"""Processes, devices and precision of a run, through Hugging Face Accelerate.

One process needs nothing. Several are started by `torchrun`, on GPUs with NCCL, on CPUs with gloo; each takes its share
of every batch.
"""

from typing import Literal

import torch
from accelerate import Accelerator

from model.training.recipe import Precision

Choice = Literal["auto", "float32", "bfloat16", "float16"]
_NAMES: dict[Precision, str] = {"float32": "no", "bfloat16": "bf16", "float16": "fp16"}


def open_accelerator(choice: Choice, *, cpu: bool) -> Accelerator:
    """Join the processes of this run, or be the only one.

    Args:
        choice: of matrix products; `auto` is bfloat16 where it is native.
        cpu: leave GPUs alone.

    Raises:
        ValueError: for float16 without a GPU.
    """
    device = torch.device("cuda" if torch.cuda.is_available() and not cpu else "cpu")
    if choice == "float16" and device.type == "cpu":
        raise ValueError("--precision float16 needs a GPU: on a CPU it is float32 or bfloat16")
    fitting: Precision = "bfloat16" if bf16_is_fast(device) else "float32"
    return Accelerator(cpu=device.type == "cpu", mixed_precision=_NAMES[fitting if choice == "auto" else choice])


def precision_of(accelerator: Accelerator) -> Precision:
    """What `auto` became."""
    return {name: precision for precision, name in _NAMES.items()}[accelerator.mixed_precision]


def bf16_is_fast(device: torch.device) -> bool:
    """Whether bfloat16 matrix products are native: 4.7 x float32 on a CPU with AVX512-BF16, emulated without."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    capabilities = torch.cpu.get_capabilities()
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16") or capabilities.get("bf16"))
