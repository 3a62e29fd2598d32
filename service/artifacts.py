"""`patchserve serve hf:ORG/NAME`: a checkpoint becomes an artifact in a cache, once, and the artifact is served.

The export runs in a child process: it needs torch, which serving never loads. What it wrote stays: the second start
finds it without a network, torch or the export tools.

    <cache>/<source>-<key>/<revision>.onnx     the artifact; the key is of source and options
    <cache>/<source>-<key>/current.json        which of them is served; written last, so it never names half a file
"""

import hashlib
import importlib.util
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path
from types import FrameType
from typing import Any

from service.errors import StartError
from service.settings import EngineSettings

_SCHEMES = ("hf:", "timm:", "torchvision:")
_SUFFIXES = (".safetensors", ".pth", ".pt", ".bin", ".npz")
_TOOLS = ("torch", "onnx", "onnxscript", "safetensors", "huggingface_hub")


def is_checkpoint(model: Path) -> bool:
    """Whether a MODEL has to be exported before it can be served."""
    if str(model).startswith(_SCHEMES) or model.suffix in _SUFFIXES:
        return True
    return model.is_dir() and not is_model_folder(model)


def is_model_folder(path: Path) -> bool:
    """Whether this is a folder of artifacts: `*.onnx` files and nothing that makes a folder a checkpoint.

    Repositories of checkpoints hold `.onnx` files of other makers as well; what comes with a `config.json` or with
    weights is never taken for ours.
    """
    if not path.is_dir():
        return False
    found = list(path.iterdir())
    is_checkpoint_folder = any(file.name == "config.json" or file.suffix in _SUFFIXES for file in found)
    return not is_checkpoint_folder and any(file.suffix == ".onnx" for file in found)


def bundled_model() -> Path:
    """The model that ships with the package.

    Raises:
        StartError: if this installation has none.
    """
    path = Path(str(files("model"))) / "bundled" / "fashion-mnist.onnx"
    if not path.is_file():
        raise StartError("this installation has no bundled model: name one, as in patchserve serve MODEL.onnx")
    return path


def model_files(settings: EngineSettings) -> list[Path]:
    """The artifacts of the settings, in the order of their names.

    Raises:
        StartError: if there is none.
    """
    place = settings.model or bundled_model()
    if not place.is_dir():
        return [place]
    if not is_model_folder(place):
        raise StartError(f"the folder {place} holds no artifacts (*.onnx), or is a checkpoint")
    return sorted(path for path in place.iterdir() if path.suffix == ".onnx")


def artifact_of(settings: EngineSettings) -> Path | None:
    """The artifact to serve: the model of the settings, or what its export gave.

    Raises:
        StartError: if the model is a checkpoint and cannot be exported.
    """
    if settings.model is None or not is_checkpoint(settings.model):
        return settings.model
    source, options = str(settings.model), _options(settings.export_options)
    folder = (settings.cache_dir or _default_cache()) / _entry(source, options)
    if not settings.refresh_model and (artifact := _current(folder)) is not None:
        return artifact
    _require_tools(source)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with _lock(folder / ".lock", source):
            if not settings.refresh_model and (artifact := _current(folder)) is not None:
                return artifact  # another process has exported it meanwhile
            return _export(source, options, folder)
    except OSError as error:
        raise StartError(f"the cache {folder} cannot be written: {error.strerror}; see --cache-dir") from None


# --- the cache --------------------------------------------------------------------------------------------------------
def _default_cache() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "patchserve"


def _entry(source: str, options: Sequence[str]) -> str:
    """The folder of a source and its options; files are told apart by what they are, not only by their names."""
    parts = [version("patchserve"), source, *options]
    if not source.startswith(_SCHEMES):
        parts += _states(Path(source))
    for option in options:  # such as a file of labels
        parts += _states(Path(option)) if Path(option).is_file() else []
    readable = "".join(letter if letter.isalnum() or letter in "._-" else "-" for letter in source)[-60:].strip("-.")
    return f"{readable}-{hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]}"


def _states(path: Path) -> list[str]:
    try:
        found = sorted(path.iterdir()) if path.is_dir() else [path]
        states = [(file.resolve(), file.stat()) for file in found]
    except OSError as error:
        raise StartError(f"the model {path} cannot be read: {error.strerror}") from None
    return [f"{file} {state.st_size} {state.st_mtime_ns}" for file, state in states]


def _current(folder: Path) -> Path | None:
    try:
        name = json.loads((folder / "current.json").read_text())["artifact"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    artifact = folder / Path(str(name)).name
    return artifact if artifact.is_file() else None


@contextmanager
def _lock(path: Path, source: str) -> Iterator[None]:
    """One export of the same thing at a time; the system frees the lock of a process that dies."""
    try:
        import fcntl  # noqa: PLC0415 - not on Windows: there two exports both succeed, and the last one stays
    except ImportError:
        yield
        return
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            _say(f"another process is exporting {source}: waiting for it")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


# --- the export -------------------------------------------------------------------------------------------------------
def _options(text: str) -> list[str]:
    try:
        return shlex.split(text)
    except ValueError as error:
        raise StartError(f"--export-options: {error}, in {text!r}") from None


def _require_tools(source: str) -> None:
    """Look for the export tools without importing them."""
    if missing := [name for name in _TOOLS if importlib.util.find_spec(name) is None]:
        raise StartError(
            f"{source} is a checkpoint, and exporting it needs {', '.join(missing)}: pip install 'patchserve[export]', "
            "or export it elsewhere with python -m export.to_onnx and serve the .onnx file"
        )


def _export(source: str, options: Sequence[str], folder: Path) -> Path:
    """Export into a folder of its own, and rename the result into place."""
    _say(f"exporting {source} into {folder}; this is done once")
    for left in folder.glob(".export-*"):  # by a process that was killed; the lock says that none is at work
        shutil.rmtree(left, ignore_errors=True)
    work = Path(tempfile.mkdtemp(prefix=".export-", dir=folder))
    try:
        written = work / "model.onnx"
        arguments = [source, *options, "--logits-required", "--quick-check", "--report", "--output", str(written)]
        status = _run([sys.executable, "-m", "export.to_onnx", *arguments])
        if status != 0 or not written.is_file():
            raise StartError(f"{source} was not exported: the reason is above (status {status})")
        provenance = json.loads((work / "model.report.json").read_text())["provenance"]
        artifact = folder / f"{_revision(provenance)}.onnx"
        written.replace(artifact)
        document = {"artifact": artifact.name, "provenance": provenance}
        (work / "current.json").write_text(json.dumps(document, indent=2) + "\n")
        (work / "current.json").replace(folder / "current.json")
        return artifact
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _revision(provenance: dict[str, Any]) -> str:
    """The commit of a repository, else the hash of the weights."""
    commit = str(provenance["source"]).rpartition("@")[2]
    return commit if len(commit) == 40 and commit.isalnum() else str(provenance["sha256"])[:40]


def _run(command: Sequence[str]) -> int:
    """Run a child to its end, and take it along when this process is told to stop; its output goes to the log."""
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=2) as child:  # noqa: S603 - our own interpreter

        def stop(number: int, _: FrameType | None) -> None:
            child.terminate()
            sys.exit(128 + number)

        before = signal.signal(signal.SIGTERM, stop)
        try:
            return child.wait()
        finally:
            if child.poll() is None:
                child.terminate()
            signal.signal(signal.SIGTERM, before)


def _say(text: str) -> None:
    print(f"patchserve: {text}", file=sys.stderr, flush=True)  # noqa: T201
