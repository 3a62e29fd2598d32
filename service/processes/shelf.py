"""The versions of models in the engine process, each under a number that never comes twice.

A version that has been replaced stays until no HTTP process can submit to it any more.
"""

import asyncio
import itertools
from collections.abc import Callable, Coroutine, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Any

from service.engine import Model
from service.extras import Extras
from service.loaded import Loaded
from service.processes.documents import Catalogue, Version

_NUMBERS_OF_A_LIFE = 1 << 32


@dataclass(slots=True, eq=False)
class Shelved:
    """A version.

    Attributes:
        loaded: the model behind its queue.
        described: as HTTP processes are told of it, with its number.
        max_patches: of an image.
        patch_dim: values of a patch, P*P*C.
        watching: the canary.
    """

    loaded: Loaded
    described: Version
    max_patches: int
    patch_dim: int
    watching: asyncio.Task[None] | None = None

    def offered(self, extras: int) -> Extras:
        """What an image may want of this version beside its ranking.

        Raises:
            ValueError: if it wants something else.
        """
        explained = Extras.ATTENTION if self.loaded.model.manifest.explain else Extras.NONE
        if extras & ~int(Extras.EMBEDDING | explained):
            raise ValueError(f"the model does not have all of {extras}")
        return Extras(extras)


class Shelf:
    """Starts empty.

    Args:
        engine_life: how often the engine process has been started, from 1: it makes its numbers its own.
        default: the name of the model that answers requests which name none.
        watch: looks after a version for as long as it is there; None: nobody does.
    """

    def __init__(
        self, engine_life: int, default: str, watch: Callable[[Loaded], Coroutine[Any, Any, None]] | None = None
    ) -> None:
        self._default = default
        self._watch = watch
        self._opened = False
        self._new_numbers = itertools.count(engine_life * _NUMBERS_OF_A_LIFE)
        self._all: dict[int, Shelved] = {}
        self._names: dict[str, list[Shelved]] = {}  # what requests may choose, newest first
        self._revision = 0
        self._closing: set[asyncio.Task[None]] = set()

    def find(self, number: int) -> Shelved | None:
        """The version of this number, if it is still there."""
        return self._all.get(number)

    @property
    def current(self) -> frozenset[int]:
        """The numbers of what requests may choose."""
        return frozenset(each.described.number for versions in self._names.values() for each in versions)

    def catalogue(self) -> Catalogue:
        """What requests may choose, as HTTP processes are told."""
        names = {name: [each.described for each in versions] for name, versions in self._names.items()}
        return Catalogue(revision=self._revision, default=self._default, names=names)

    def open(self) -> None:
        """The event loop turns: from now on versions are looked after."""
        self._opened = True
        for each in self._all.values():
            self._look_after(each)

    def put(self, name: str, versions: Sequence[Loaded]) -> None:
        """From now on these are the versions of a name, newest first; what is there already keeps its number."""
        before = {each.loaded: each for each in self._names.get(name, ())}
        self._names[name] = [before.get(loaded) or self._add(loaded) for loaded in versions]
        self._revision += 1

    def release(self, held: AbstractSet[int]) -> None:
        """Close what requests may not choose any more, but for the numbers that are held."""
        for number in self._all.keys() - self.current - held:
            closing = asyncio.get_running_loop().create_task(_close(self._all.pop(number)))
            self._closing.add(closing)
            closing.add_done_callback(self._closing.discard)

    async def close(self) -> None:
        """Fail what waits, and let running batches end for a moment. The memory goes with the process."""
        for each in self._all.values():
            _leave_alone(each)
        await asyncio.gather(*(each.loaded.queue.close() for each in self._all.values()))

    def _add(self, loaded: Loaded) -> Shelved:
        number = next(self._new_numbers)
        spec = loaded.model.manifest.preprocessing
        shelved = self._all[number] = Shelved(loaded, _describe(number, loaded.model), spec.max_patches, spec.patch_dim)
        self._look_after(shelved)
        return shelved

    def _look_after(self, shelved: Shelved) -> None:
        if self._opened and self._watch is not None:
            shelved.watching = asyncio.get_running_loop().create_task(self._watch(shelved.loaded))


def _describe(number: int, model: Model) -> Version:
    return Version(number=number, manifest=model.manifest.to_json(), digest=model.digest, provider=model.provider)


async def _close(shelved: Shelved) -> None:
    _leave_alone(shelved)
    await shelved.loaded.close()


def _leave_alone(shelved: Shelved) -> None:
    if shelved.watching is not None:
        shelved.watching.cancel()
