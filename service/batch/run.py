"""The order of work: model, inventory, the parts that are missing, one file.

Parts are classified by an engine of this process, by those of several processes (`service.batch.processes`), or by
those of a Ray cluster (`service.batch.ray_data`).
"""

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path

from service.batch.display import Display
from service.batch.inputs import find_inputs
from service.batch.inventory import Inventory, write_inventory
from service.batch.journal import Journal, disk_errors
from service.batch.processes import Processes
from service.batch.results import merge
from service.batch.stopping import Stop
from service.batch.worker import Finished, Tell, Wanted, open_worker
from service.engine import Model
from service.settings import ImageSettings, Settings

# As `PartWorker.run`.
RunParts = Callable[[Inventory, Sequence[int], Callable[[], bool], Tell], Iterator[Finished]]

# Where and how fast images are decoded changes no answer.
_HARMLESS = {field for field in ImageSettings.model_fields if field.startswith("decode_")} | {"max_pixels_in_flight"}


@dataclass(frozen=True, slots=True)
class Order:
    """What to do.

    Attributes:
        arguments: what to classify.
        output: the Parquet file to write.
        wanted: of each image.
        column: of the images in Parquet files; None: the usual one.
        part_images: what is lost at most by a kill, but for what is being decoded.
        overwrite: see `Journal.held`.
        restart: see `Journal.held`.
    """

    arguments: Sequence[str]
    output: Path
    wanted: Wanted
    column: str | None
    part_images: int
    overwrite: bool = False
    restart: bool = False


@dataclass(frozen=True, slots=True)
class Summary:
    """How a run ended.

    Attributes:
        images: in all.
        done: of them, now and in earlier runs.
        errors: rows with one; known at the end.
        signal: that stopped it; None: it is complete.
    """

    images: int
    done: int
    errors: int = 0
    signal: int | None = None


def classify_data_set(order: Order, settings: Settings, processes: int = 1) -> Summary:
    """Classify on this machine what an earlier run has not.

    Raises:
        StartError: if the model, an input, the output or the disk is at fault.
    """
    journal = Journal(order.output)
    with journal.held(overwrite=order.overwrite, restart=order.restart):
        if processes > 1:
            engines = Processes(settings, order.wanted, journal, processes)
            return complete(order, settings, journal, engines.model, engines.run)
        with closing(open_worker(settings, order.wanted, journal)) as worker:
            return complete(order, settings, journal, worker.model, worker.run)


def complete(order: Order, settings: Settings, journal: Journal, model: Model, run_parts: RunParts) -> Summary:
    """List the inputs, have the missing parts classified, and put all into one file.

    Args:
        order: what to do.
        settings: of images.
        journal: held.
        model: that classifies.
        run_parts: who classifies them.

    Raises:
        BatchError: if an input, the output or the disk is at fault, or an earlier run was another one.
    """
    facts = _facts(order, settings, model)
    journal.check(facts)
    display, stop = Display(), Stop()
    with display.shown():
        inventory = _list(order, journal, facts, display)
        missing = journal.missing(inventory.parts)
        done = inventory.images - sum(map(inventory.size, missing))
        display.begin(inventory.images, done)
        with stop.heard():
            done += sum(part.images for part in run_parts(inventory, missing, stop.asked, display.advance))
    if done < inventory.images:
        return Summary(inventory.images, done, signal=stop.signal)
    return Summary(inventory.images, done, _merge(order, journal, model, inventory))


def _list(order: Order, journal: Journal, facts: dict[str, str], display: Display) -> Inventory:
    inputs = find_inputs(order.arguments)
    with disk_errors(journal.folder):
        inventory = write_inventory(inputs, journal.folder, order.column, order.part_images, display.listed)
    facts = {**facts, "inputs": inventory.digest}
    journal.check(facts)
    journal.write(facts)
    return inventory


def _merge(order: Order, journal: Journal, model: Model, inventory: Inventory) -> int:
    manifest = model.manifest
    facts = {
        "version": version("patchserve"),
        "model": {"name": manifest.name, "version": manifest.version, "digest": model.digest},
        **asdict(order.wanted),
        "images": inventory.images,
    }
    merged = journal.folder / "merged.partial"
    with disk_errors(journal.folder):
        errors = merge(list(map(journal.part, range(inventory.parts))), merged, facts)
        journal.finish(merged)
    return errors


def _facts(order: Order, settings: Settings, model: Model) -> dict[str, str]:
    """What must not change between two runs that share parts."""
    images = {name: getattr(settings, name) for name in ImageSettings.model_fields if name not in _HARMLESS}
    return {
        "model": model.digest,
        "--k": str(order.wanted.k),
        "--max-patches": str(order.wanted.max_patches),
        "--embeddings": str(order.wanted.embeddings),
        "--column": str(order.column),
        "--part-images": str(order.part_images),
        "settings of images": json.dumps(images),
    }
