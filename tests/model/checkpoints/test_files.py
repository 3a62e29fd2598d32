"""Files of weights: the same tensors from every format, and nothing in a file is run."""

import os
import pickle
from argparse import Namespace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from model.checkpoints.files import read_weights
from model.checkpoints.loading import CheckpointError

WEIGHTS = {"a.weight": torch.arange(6.0).reshape(2, 3), "b": torch.tensor([1.5], dtype=torch.bfloat16)}


class Hostile:
    """Creates a file when it is unpickled."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.target}",)


def same(left: dict[str, torch.Tensor], right: dict[str, torch.Tensor]) -> bool:
    return left.keys() == right.keys() and all(
        left[name].dtype == right[name].dtype and torch.equal(left[name], right[name]) for name in left
    )


def test_safetensors(tmp_path: Path) -> None:
    save_file(WEIGHTS, tmp_path / "m.safetensors")
    assert same(read_weights(tmp_path / "m.safetensors"), WEIGHTS)


@pytest.mark.parametrize("suffix", [".pth", ".pt", ".bin"])
def test_pytorch_in_both_of_its_formats(tmp_path: Path, suffix: str) -> None:
    for is_zip in (True, False):
        torch.save(WEIGHTS, tmp_path / f"m{suffix}", _use_new_zipfile_serialization=is_zip)
        assert same(read_weights(tmp_path / f"m{suffix}"), WEIGHTS)


@pytest.mark.parametrize("wrapper", ["model", "state_dict", "state_dict_ema"])
def test_the_weights_inside_a_training_checkpoint(tmp_path: Path, wrapper: str) -> None:
    inner = {f"module.{name}": torch.nn.Parameter(tensor) for name, tensor in WEIGHTS.items()}
    torch.save({"epoch": 3, wrapper: inner, "optimizer": {"lr": 0.1}}, tmp_path / "m.pth")
    assert same(read_weights(tmp_path / "m.pth"), WEIGHTS)


def test_numpy_with_the_bfloat16_of_jax(tmp_path: Path) -> None:
    half = WEIGHTS["b"].view(torch.int16).numpy().view(np.dtype("V2"))
    np.savez(tmp_path / "m.npz", **{"a.weight": WEIGHTS["a.weight"].numpy(), "b": half})
    assert same(read_weights(tmp_path / "m.npz"), WEIGHTS)


@pytest.mark.parametrize("is_zip", [True, False], ids=["zip", "legacy"])
def test_a_hostile_pickle_is_refused_and_does_nothing(tmp_path: Path, is_zip: bool) -> None:
    target = tmp_path / "it-ran"
    document = {"w": torch.zeros(1), "x": Hostile(target)}
    torch.save(document, tmp_path / "m.pth", _use_new_zipfile_serialization=is_zip)
    with pytest.raises(CheckpointError, match=r"refused, .* could run code \(it asks for posix\.system"):
        read_weights(tmp_path / "m.pth")
    assert not target.exists()
    torch.load(tmp_path / "m.pth", weights_only=False)  # the negative control: it would have
    assert target.exists()


def test_a_bare_hostile_pickle_is_refused(tmp_path: Path) -> None:
    (tmp_path / "m.bin").write_bytes(pickle.dumps(Hostile(tmp_path / "it-ran")))
    with pytest.raises(CheckpointError, match="refused, because reading it could run code"):
        read_weights(tmp_path / "m.bin")
    assert not (tmp_path / "it-ran").exists()


def test_harmless_objects_are_refused_too_with_their_name(tmp_path: Path) -> None:
    torch.save({"model": WEIGHTS, "args": Namespace(lr=0.1)}, tmp_path / "m.pth")
    with pytest.raises(CheckpointError, match=r"it asks for argparse\.Namespace.*as safetensors"):
        read_weights(tmp_path / "m.pth")


def test_pickled_arrays_are_refused(tmp_path: Path) -> None:
    target = tmp_path / "it-ran"
    np.savez(tmp_path / "m.npz", x=np.array([Hostile(target)], dtype=object))
    with pytest.raises(CheckpointError, match="pickled objects, which may run code"):
        read_weights(tmp_path / "m.npz")
    assert not target.exists()


@pytest.mark.parametrize("name", ["m.safetensors", "m.pth", "m.npz"])
@pytest.mark.parametrize("content", [b"", b"junk", b"\x80\x02}q\x00.", b"PK\x03\x04 but no more"])
def test_a_damaged_file_is_one_clear_line(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(CheckpointError) as caught:
        read_weights(tmp_path / name)
    assert str(caught.value).startswith(f"{tmp_path / name}: ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["m.safetensors", "m.pth", "m.npz"])
def test_a_file_that_was_cut_is_refused(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    tensor = torch.zeros(1000)
    if path.suffix == ".npz":
        np.savez(path, w=tensor.numpy())
    elif path.suffix == ".pth":
        torch.save({"w": tensor}, path)
    else:
        save_file({"w": tensor}, path)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(CheckpointError, match="damaged"):
        read_weights(path)


@pytest.mark.parametrize(
    ("document", "message"),
    [([1, 2], "no state dict"), ({}, "no state dict"), ({"lr": 0.1}, "no state dict")],
)
def test_a_pickle_without_weights_says_so(tmp_path: Path, document: Any, message: str) -> None:
    torch.save(document, tmp_path / "m.pth")
    with pytest.raises(CheckpointError, match=message):
        read_weights(tmp_path / "m.pth")


def test_no_file_and_unknown_kinds(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no such file"):
        read_weights(tmp_path / "m.pth")
    (tmp_path / "m.h5").touch()
    with pytest.raises(CheckpointError, match="not a kind of file that is known"):
        read_weights(tmp_path / "m.h5")
