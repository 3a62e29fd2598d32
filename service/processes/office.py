"""What the engine process and its HTTP processes have agreed about the models."""

import asyncio
from collections.abc import Callable, Iterable
from typing import TypeVar

from structlog.typing import FilteringBoundLogger

from model.manifest import Preprocessing
from service.errors import StartError
from service.library import Change
from service.loaded import Loaded
from service.processes.documents import Catalogue, Document, Holding, Prepare, Prepared
from service.processes.shelf import Shelf

_LONGEST_S = 30.0  # an HTTP process that has said nothing for so long serves nobody either
ResultT = TypeVar("ResultT")


class Agreement:
    """With one HTTP process, and its successors when it dies.

    Args:
        shelf: the versions.
        send: says something to it.
        let_go: called when it may have let go of a version.
    """

    def __init__(self, shelf: Shelf, send: Callable[[Document], None], let_go: Callable[[], None]) -> None:
        self._shelf = shelf
        self._send = send
        self._let_go = let_go
        self._begun = False
        self.held: frozenset[int] = frozenset()  # the numbers that it may submit to
        self._prepared: dict[int, asyncio.Future[str | None]] = {}  # by question
        self._switched: dict[int, asyncio.Future[None]] = {}  # by revision

    def begin(self) -> None:
        """A new HTTP process: it starts with what there is now, and needs to be asked nothing else."""
        self._begun = True
        self.held = self._shelf.current
        self._send(self._shelf.catalogue())
        for prepared in self._prepared.values():
            _resolve(prepared, None)
        for switched in self._switched.values():
            _resolve(switched, None)
        self._let_go()

    async def prepare(self, question: int, spec: Preprocessing) -> str | None:
        """Have it get ready for a model; None when it is, else why not."""
        if not self._begun:
            return None
        answer: asyncio.Future[str | None] = asyncio.get_running_loop().create_future()
        self._prepared[question] = answer
        self._send(Prepare(question=question, preprocessing=spec.to_dict()))
        try:
            return await answer
        finally:
            del self._prepared[question]

    async def switch(self, catalogue: Catalogue) -> None:
        """Tell it what there is now; returns when its requests find that."""
        if not self._begun:
            return
        switched = self._switched[catalogue.revision] = asyncio.get_running_loop().create_future()
        self._send(catalogue)
        try:
            await switched
        finally:
            del self._switched[catalogue.revision]

    def hear(self, said: Prepared | Holding) -> None:
        """It has answered."""
        if isinstance(said, Prepared):
            if said.question in self._prepared:
                _resolve(self._prepared[said.question], said.reason)
            return
        self.held = said.numbers
        for revision, switched in self._switched.items():
            if revision <= said.revision:
                _resolve(switched, None)
        self._let_go()


class Office:
    """Keeps all agreements.

    Args:
        shelf: the versions.
        log: is told of a process that does not answer.
    """

    def __init__(self, shelf: Shelf, log: FilteringBoundLogger) -> None:
        self._shelf = shelf
        self._log = log
        self._agreements: list[Agreement] = []
        self._questions = 0

    def agree(self, send: Callable[[Document], None]) -> Agreement:
        """An agreement with one more HTTP process."""
        self._agreements.append(Agreement(self._shelf, send, self._release))
        return self._agreements[-1]

    async def prepare(self, spec: Preprocessing) -> None:
        """Have all HTTP processes get ready for a model.

        Raises:
            StartError: if one cannot.
        """
        self._questions += 1
        asked = [each.prepare(self._questions, spec) for each in self._agreements]
        try:
            async with asyncio.timeout(_LONGEST_S):
                reasons = await asyncio.gather(*asked)
        except TimeoutError:
            raise StartError(f"an HTTP process did not get ready for the model in {_LONGEST_S:g} seconds") from None
        if refused := next(filter(None, reasons), None):
            raise StartError(refused)

    async def switch(self, change: Change[Loaded]) -> None:
        """Have all HTTP processes serve what a reload has opened; returns when they do."""
        self._shelf.put(change.name, change.after)
        catalogue = self._shelf.catalogue()
        try:
            async with asyncio.timeout(_LONGEST_S):
                await asyncio.gather(*(each.switch(catalogue) for each in self._agreements))
        except TimeoutError:
            self._log.error("model_switch_late", model=change.name, seconds=_LONGEST_S)
        self._release()

    def _release(self) -> None:
        self._shelf.release(_union(each.held for each in self._agreements))


def _union(sets: Iterable[frozenset[int]]) -> frozenset[int]:
    return frozenset().union(*sets)


def _resolve(future: "asyncio.Future[ResultT]", result: ResultT) -> None:
    if not future.done():
        future.set_result(result)
