"""Files of weights to tensors by name: safetensors, PyTorch's `.pth` and NumPy's `.npz`; nothing in them is executed.

A `.pth` file is a pickle, and a pickle is a program: it is read with `weights_only=True`, which builds tensors and
plain containers and refuses everything else.
"""

import pickle
import re
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from torch import Tensor

from model.checkpoints.loading import CheckpointError

SUFFIXES = (".safetensors", ".pth", ".pt", ".bin", ".npz")
# Where training scripts keep the weights inside what they save, the averaged ones first (timm, DeiT, torchvision).
_WRAPPERS = ("state_dict_ema", "model_ema", "state_dict", "model", "module")
_PREFIXES = ("module.", "_orig_mod.")  # left by DataParallel and torch.compile


def read_weights(path: Path) -> dict[str, Tensor]:
    """Every tensor of a file, on the CPU, in its own dtype.

    Raises:
        CheckpointError: if the file is missing, damaged, of an unknown kind, or asks for code to be run.
    """
    if not path.is_file():
        raise CheckpointError(f"{path}: no such file")
    if path.suffix == ".safetensors":
        return _read_safetensors(path)
    if path.suffix == ".npz":
        return _read_npz(path)
    if path.suffix in SUFFIXES:
        return _state_dict(_unpickle(path), path)
    raise CheckpointError(f"{path}: not a kind of file that is known: {', '.join(SUFFIXES)} are")


def safetensors_metadata(path: Path) -> dict[str, str]:
    """The texts in the header of a safetensors file.

    Raises:
        CheckpointError: if it is not one.
    """
    try:
        with safe_open(path, framework="pt") as file:
            return file.metadata() or {}
    except FileNotFoundError:
        raise CheckpointError(f"{path}: no such file") from None
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path}: not a safetensors file, or damaged ({error})") from None


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path}: not a safetensors file, or damaged ({error})") from None


# --- PyTorch --------------------------------------------------------------------------------------------------------
def _unpickle(path: Path) -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of pickle protocols: what cannot be read raises
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise CheckpointError(_refusal(path, str(error))) from None
    except Exception as error:  # noqa: BLE001 - a damaged file raises anything, from EOFError to RuntimeError
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise CheckpointError(f"{path}: not a PyTorch checkpoint, or damaged ({reason[:200]})") from None


def _refusal(path: Path, message: str) -> str:
    """Not PyTorch's page about how to run the code all the same, but what the file asks for."""
    asked = re.search(r"GLOBAL (\w+\.[\w.]+)", message)
    what = f"it asks for {asked[1]}" if asked else "its pickle does more than build tensors"
    return (
        f"{path}: refused, because reading it could run code ({what}), and weights need none. If you trust the file, "
        "read it where that may happen and save its state dict as safetensors"
    )


def _state_dict(document: Any, path: Path) -> dict[str, Tensor]:
    if isinstance(document, Mapping):
        for wrapper in _WRAPPERS:
            inner = document.get(wrapper)
            if isinstance(inner, Mapping) and any(isinstance(value, Tensor) for value in inner.values()):
                document = inner
                break
    if (
        not isinstance(document, Mapping)
        or not document
        or not all(isinstance(each, Tensor) for each in document.values())
    ):
        raise CheckpointError(f"{path}: holds no state dict (a mapping of names to tensors)")
    return {_bare(str(name)): tensor.detach() for name, tensor in document.items()}


def _bare(name: str) -> str:
    for prefix in _PREFIXES:
        name = name.removeprefix(prefix)
    return name


# --- NumPy ----------------------------------------------------------------------------------------------------------
def _read_npz(path: Path) -> dict[str, Tensor]:
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            return {name: _tensor(archive[name]) for name in archive.files}
    except (OSError, ValueError, TypeError, EOFError, KeyError, zipfile.BadZipFile) as error:
        code = "Object arrays" in str(error) or "pickled" in str(error)
        reason = "it holds pickled objects, which may run code" if code else f"damaged ({error})"
        raise CheckpointError(f"{path}: refused as an archive of arrays: {reason}") from None


def _tensor(array: NDArray[Any]) -> Tensor:
    """NumPy has no bfloat16: JAX stores it as two nameless bytes."""
    if array.dtype.kind == "V" and array.dtype.itemsize == 2:
        return torch.from_numpy(array.view(np.int16)).view(torch.bfloat16)
    return torch.from_numpy(array)
