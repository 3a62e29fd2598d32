"""The same run on Ray Data: a pool of engines, each of which takes parts and writes them down.

Only numbers of parts travel through Ray. Images and results do not: every node reads the inputs and writes its parts
into the folder beside the output itself, so all of them need the same file system in the same place.
"""

import logging
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.batch.inventory import Inventory
from service.batch.journal import Journal
from service.batch.run import Order, Summary, complete
from service.batch.worker import Finished, Tell, open_worker, settings_of_one
from service.engine import Model
from service.errors import BatchError
from service.loaded import open_engine
from service.settings import Settings

_PARTS_AT_ONCE = 8  # that an engine takes: at the end of each such task it runs empty


@dataclass(frozen=True, slots=True)
class Pool:
    """Engines: how many, and the cores and GPUs of each."""

    actors: int = 1
    cpus: int = 1
    gpus: float = 0


def classify_with_ray(order: Order, settings: Settings, pool: Pool) -> Summary:
    """Classify on the cluster that `RAY_ADDRESS` names, else on a Ray of this machine's own.

    Raises:
        StartError: if the model, an input, the output or the cluster is at fault.
    """
    ray = _import_ray()
    order = replace(order, output=order.output.absolute())
    settings = settings.model_copy(update={"model": settings.model and settings.model.absolute()})
    journal = Journal(order.output)
    with journal.held(overwrite=order.overwrite, restart=order.restart):
        model = _look_at_model(settings)
        _join(ray)
        try:
            _check_room(ray.cluster_resources(), pool)
            of_one = settings_of_one(settings, model, pool.actors, pool.cpus)
            return complete(order, settings, journal, model, _Cluster(ray, order, of_one, pool))
        finally:
            ray.shutdown()


class _Cluster:
    """Has parts classified by the pool."""

    def __init__(self, ray: Any, order: Order, settings: Settings, pool: Pool) -> None:
        self._ray = ray
        self._order = order
        self._settings = settings
        self._pool = pool

    def __call__(
        self, inventory: Inventory, parts: Sequence[int], stopped: Callable[[], bool], tell: Tell
    ) -> Iterator[Finished]:
        if not parts:
            return
        data = self._ray.data
        data.DataContext.get_current().enable_progress_bars = False
        finished = data.from_items([{"part": part} for part in parts]).map_batches(
            _Actor,
            batch_size=_PARTS_AT_ONCE,
            compute=data.ActorPoolStrategy(size=self._pool.actors),
            num_cpus=self._pool.cpus,
            num_gpus=self._pool.gpus,
            fn_constructor_args=(self._settings, self._order, inventory),
        )
        try:
            for row in finished.iter_rows():
                tell(row["images"], row["errors"])
                yield Finished(int(row["part"]), int(row["images"]), int(row["errors"]))
                if stopped():
                    return
        except self._ray.exceptions.RayError as error:
            raise BatchError(f"Ray gave up, the same command goes on: {_last_line(error)}") from None


class _Actor:
    """One engine of the pool."""

    def __init__(self, settings: Settings, order: Order, inventory: Inventory) -> None:
        self._inventory = inventory
        self._worker = open_worker(settings, order.wanted, Journal(order.output))

    def __call__(self, batch: dict[str, NDArray[np.int64]]) -> Iterator[dict[str, list[int]]]:
        for finished in self._worker.run(self._inventory, batch["part"].tolist()):
            yield {name: [value] for name, value in asdict(finished).items()}


def _join(ray: Any) -> None:
    # Nobody else needs to reach a Ray of this machine's own, so it listens where nobody else can.
    own = {} if os.environ.get("RAY_ADDRESS") else {"address": "local", "_node_ip_address": "127.0.0.1"}
    try:
        ray.init(log_to_driver=False, logging_level="warning", include_dashboard=False, **own)
    except Exception as error:  # noqa: BLE001 - it raises this very class if Ray does not start in time
        raise BatchError(
            f"Ray does not start or answer ({_last_line(error)}): see RAY_ADDRESS, or leave --ray out; the same "
            "command goes on"
        ) from None


def _look_at_model(settings: Settings) -> Model:
    """On the CPU: the node of the command may have no GPU."""
    engine = open_engine(settings.model_copy(update={"provider": "cpu"}))
    engine.close()
    return engine.model


def _check_room(resources: dict[str, float], pool: Pool) -> None:
    """Ray would wait for ever for what it does not have."""
    cores, gpus = resources.get("CPU", 0), resources.get("GPU", 0)
    if cores < pool.actors * pool.cpus or gpus < pool.actors * pool.gpus:
        raise BatchError(
            f"the cluster has {cores:g} cores and {gpus:g} GPUs, too few for {pool.actors} engines of {pool.cpus} and "
            f"{pool.gpus:g}: see --ray-actors, --ray-cpus and --ray-gpus"
        )


def _import_ray() -> Any:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray  # noqa: PLC0415
        import ray.data  # noqa: PLC0415
    except ImportError:
        raise BatchError("--ray needs the extra cluster: pip install 'patchserve[cluster]'") from None
    logging.getLogger("ray.data").setLevel(logging.WARNING)
    return ray


def _last_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[-1][:300]
