"""The model files of a service: which there are, what they are called, and what a reload changes.

A model is called as its manifest says, `NAME`. A folder may hold several versions of one name: `NAME` is the newest
one, and each is `NAME@VERSION`. Names are compared with those of manifests and never become part of a path.

A reload is decided name by name, all or nothing. A file that is new is first tried in a child process
(`service.trial`), and what has been opened takes the place of the old versions only if every file of the name is good.
A name whose files are gone keeps its model: a service forgets a name only when it is started again.
"""

import hashlib
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, Literal, Protocol, TypeVar

from model.manifest import METADATA_KEY, Manifest, ManifestError
from service.artifacts import model_files
from service.engine import Model
from service.errors import StartError
from service.onnx_file import metadata_of
from service.settings import Settings

Outcome = Literal["added", "reloaded", "unchanged", "refused"]


class Opened(Protocol):
    """What a file becomes."""

    @property
    def model(self) -> Model:
        """What it is."""

    def discard(self) -> None:
        """Give it up before anybody has used it."""


OpenedT = TypeVar("OpenedT", bound=Opened)


@dataclass(frozen=True, slots=True)
class Change(Generic[OpenedT]):
    """What a reload did to one name.

    Attributes:
        name: of the model; empty for files of no model.
        outcome: what happened; `refused`: nothing.
        before: its versions until now, newest first.
        after: from now on.
        reason: why it was refused, for the log.
    """

    name: str
    outcome: Outcome
    before: tuple[OpenedT, ...] = ()
    after: tuple[OpenedT, ...] = ()
    reason: str = ""


@dataclass(frozen=True, slots=True)
class _File:
    """A file as it is now: what it is called, None if it is no artifact, and its SHA-256."""

    path: Path
    name: str | None
    sha256: str


@dataclass(frozen=True, slots=True)
class _Held(Generic[OpenedT]):
    path: Path
    opened: OpenedT

    @property
    def model(self) -> Model:
        return self.opened.model


class Library(Generic[OpenedT]):
    """The models of the settings. Not thread-safe: one call at a time.

    Args:
        settings: where the files are, and which may be served.
        open_model: loads the model of the settings that it is given.
        try_model: the same in a process of its own, which is gone afterwards; raises StartError.
    """

    def __init__(
        self, settings: Settings, open_model: Callable[[Settings], OpenedT], try_model: Callable[[Settings], None]
    ) -> None:
        self._settings = settings
        self._open = open_model
        self._try = try_model
        self._held: dict[str, tuple[_Held[OpenedT], ...]] = {}

    def load(self) -> None:
        """Open every file; one that cannot be served stops the start.

        Raises:
            StartError: if a file cannot be served, or the default model is none of them.
        """
        for path in model_files(self._settings):
            held = _Held(path, self._open(self._settings_for(path)))
            name = held.model.manifest.name
            self._held[name] = _newest_first([*self._held.get(name, ()), held])
        default = self._settings.default_model
        if default is not None and default not in self._held:
            raise StartError(f"--default-model: there is no such model, only {', '.join(self._held)}")

    @property
    def default(self) -> str:
        """The name of the model that answers requests which name none."""
        return self._settings.default_model or next(iter(self._held))

    def versions(self) -> dict[str, tuple[OpenedT, ...]]:
        """Every name, and its versions with the newest first."""
        return {name: tuple(each.opened for each in held) for name, held in self._held.items()}

    def reload(self, name: str | None) -> Iterator[Change[OpenedT]]:
        """Look at the files again, for this name or for all names, and open what is new.

        Yields:
            One name after the other, so that what was opened is in use before anything can go wrong with the next.

        Raises:
            KeyError: if there is no such model.
        """
        if name is not None and name not in self._held:
            raise KeyError(name)
        names = list(self._held) if name is None else [name]
        try:
            found = [_look(path) for path in model_files(self._settings)]
        except StartError as error:  # the folder is gone or empty
            yield from (Change(each, "refused", reason=str(error)) for each in names)
            return
        if name is None:
            names = list(dict.fromkeys([*names, *(file.name for file in found if file.name is not None)]))
        yield from (self._reload(each, found) for each in names)
        if name is None:
            yield from self._strangers(found)

    def _settings_for(self, path: Path, sha256: str | None = None) -> Settings:
        """With `sha256`, only the file as it has been seen is opened, even if it is being replaced meanwhile."""
        changes = {"model": path} | ({} if sha256 is None else {"model_sha256": sha256})
        return self._settings.model_copy(update=changes)

    def _reload(self, name: str, found: Sequence[_File]) -> Change[OpenedT]:
        held = self._held.get(name, ())
        before = tuple(each.opened for each in held)
        served_from = {each.path for each in held}
        files = [file for file in found if file.name == name or (file.name is None and file.path in served_from)]
        opened: list[OpenedT] = []
        if not files:
            return Change(name, "refused", before, before, f"there is no file of the model {name} any more")
        try:
            kept = {each.model.digest: each.opened for each in held}
            current = _newest_first([_Held(file.path, self._keep_or_open(file, kept, opened)) for file in files])
        except Exception as error:
            for each in opened:
                each.discard()
            if not isinstance(error, StartError):
                raise
            return Change(name, "refused", before, before, str(error))
        self._held[name] = current
        after = tuple(each.opened for each in current)
        same = {each.model.digest for each in before} == {each.model.digest for each in after}
        outcome: Outcome = "unchanged" if same else "reloaded" if before else "added"
        return Change(name, outcome, before, after)

    def _keep_or_open(self, file: _File, kept: dict[str, OpenedT], opened: list[OpenedT]) -> OpenedT:
        if (same := kept.get(f"sha256:{file.sha256}")) is not None:
            return same
        wanted = self._settings.model_sha256
        if wanted is not None and file.sha256 not in wanted.split(","):
            raise StartError(f"the model {file.path} has SHA-256 {file.sha256}; the expected SHA-256 is {wanted}")
        settings = self._settings_for(file.path, file.sha256)
        self._try(settings)
        opened.append(self._open(settings))
        return opened[-1]

    def _strangers(self, found: Sequence[_File]) -> Iterator[Change[OpenedT]]:
        served_from = {each.path for held in self._held.values() for each in held}
        for file in found:
            if file.name is None and file.path not in served_from:
                yield Change("", "refused", reason=f"the model {file.path} has no manifest that can be read")


def _look(path: Path) -> _File:
    try:
        content = path.read_bytes()
    except OSError:
        content = b""  # who opens it says why
    try:
        name = Manifest.from_json(metadata_of(content, METADATA_KEY) or "").name
    except ManifestError:
        name = None
    return _File(path, name, hashlib.sha256(content).hexdigest())


def _newest_first(held: Sequence[_Held[OpenedT]]) -> tuple[_Held[OpenedT], ...]:
    """Two versions that are called the same cannot be told apart by whoever asks for one.

    Raises:
        StartError: naming both files.
    """
    by_version: dict[str, _Held[OpenedT]] = {}
    for each in held:
        manifest = each.model.manifest
        other = by_version.setdefault(manifest.version, each)
        if other is not each:
            raise StartError(
                f"{other.path} and {each.path} are both version {manifest.version!r} of the model {manifest.name}: "
                "keep one of them, or export one with another version"
            )
    return tuple(by_version[version] for version in sorted(by_version, key=_version_key, reverse=True))


def _version_key(version: str) -> list[tuple[bool, int, str]]:
    """Numbers in a version count as numbers: 1.10 is newer than 1.9. A release is newer than its candidates."""
    parts = re.findall(r"\d+|[^\W\d_]+", version)
    return [*((part.isdecimal(), int(part) if part.isdecimal() else 0, part) for part in parts), (True, -1, "")]
