"""`patchserve train` and `patchserve export`: the tools that need torch.

Serving never loads torch, so these commands only look for it, and then become `python -m model.train` or `python -m
export.to_onnx` with the same arguments: signals reach the tool, and its status is the command's.
"""

import importlib.util
import os
import sys
from collections.abc import Sequence

import typer

from service.errors import StartError

TRAINING_HELP = "Train on your images, or fine-tune a checkpoint on them; `patchserve train --help` lists the options."
EXPORT_HELP = "Export a checkpoint to one .onnx file to serve; `patchserve export --help` lists the options."
_TRAINING = ("torch", "safetensors", "accelerate", "matplotlib")
_EXPORT = ("torch", "onnx", "onnxscript", "safetensors")


def train(context: typer.Context) -> None:
    """Become `python -m model.train`; with `--processes N` in N processes, which torchrun starts."""
    arguments, processes = _without_processes(context.args)
    several = ["torch.distributed.run", "--standalone", "--nproc-per-node", str(processes), "-m"]
    _become("train", _TRAINING, [*(several if processes > 1 else []), "model.train", *arguments])


def export(context: typer.Context) -> None:
    """Become `python -m export.to_onnx`."""
    _become("export", _EXPORT, ["export.to_onnx", *context.args])


def _become(verb: str, needed: Sequence[str], module: Sequence[str]) -> None:
    if missing := [name for name in needed if importlib.util.find_spec(name) is None]:
        raise StartError(f"patchserve {verb} needs {', '.join(missing)}: pip install 'patchserve[{verb}]'")
    os.execv(sys.executable, [sys.executable, "-m", *module])  # noqa: S606 - our own interpreter


def _without_processes(arguments: Sequence[str]) -> tuple[list[str], int]:
    """The arguments without `--processes N`, and N.

    Raises:
        StartError: if N is no number of processes.
    """
    left = list(arguments)
    for place, word in enumerate(left):
        name, equals, value = word.partition("=")
        if name == "--processes":
            number = value if equals else "".join(left[place + 1 : place + 2])
            if not number.isdecimal() or not 1 <= int(number) <= 1024:
                raise StartError(f"--processes must be a number from 1 to 1024, not {number!r}")
            del left[place : place + (1 if equals else 2)]
            return left, int(number)
    return left, 1
