"""An artifact on the terminal: one table a section."""

from collections.abc import Iterable, Iterator

from rich.box import SIMPLE_HEAD
from rich.table import Column, Table
from rich.text import Text

from model.manifest import Accuracy, Manifest, Preprocessing
from service.commands.artifact_facts import ArtifactFacts
from service.onnx_graph import Graph, Value

_BAR_WIDTH = 40
_SHOWN_LABELS = 5
_SHOWN_WEIGHTS = 5


def sections_of(facts: ArtifactFacts) -> Iterator[Table]:
    """All sections, in order."""
    yield _pairs(str(facts.path), _model(facts))
    yield _pairs("Preprocessing", _preprocessing(facts.manifest.preprocessing))
    yield _pairs("Graph", _graph(facts.graph))
    yield _operators(facts.graph)
    yield _weights(facts)
    yield _accuracy(facts.manifest.accuracy)
    yield _pairs("Provenance", _provenance(facts.manifest))


def bar(share: float, width: int = _BAR_WIDTH) -> str:
    """A bar from 0 to 1, in eighths of a character."""
    eighths = round(min(1.0, max(0.0, share)) * width * 8)
    return "█" * (eighths // 8) + " ▏▎▍▌▋▊▉"[eighths % 8].strip()


def size_text(count: int) -> str:
    """Bytes for people, in powers of 1000."""
    for unit, power in (("GB", 3), ("MB", 2), ("kB", 1)):
        if count >= 1000**power:
            return f"{count / 1000**power:.1f} {unit}"
    return f"{count} bytes"


def _pairs(title: str, rows: Iterable[tuple[str, str]]) -> Table:
    columns = "", Column(overflow="fold")  # digests are for copying
    table = Table(*columns, title=Text(title), title_justify="left", box=SIMPLE_HEAD, show_header=False)
    for name, value in rows:
        table.add_row(name, Text(value or "-"))  # not markup: labels and sources may hold brackets
    return table


def _model(facts: ArtifactFacts) -> Iterator[tuple[str, str]]:
    manifest = facts.manifest
    labels = ", ".join(manifest.labels[:_SHOWN_LABELS])
    more = ", ..." if len(manifest.labels) > _SHOWN_LABELS else ""
    yield "name", f"{manifest.name} {manifest.version}"
    yield "description", manifest.description
    yield "labels", f"{len(manifest.labels)}: {labels}{more}" if manifest.labels else "none: a feature extractor"
    yield "precision", manifest.precision
    yield "file", size_text(facts.size_bytes)
    yield "digest", facts.digest


def _preprocessing(spec: Preprocessing) -> Iterator[tuple[str, str]]:
    yield "patch", f"{spec.patch_size}x{spec.patch_size} pixels, {spec.channels} channels"
    yield "native grid", f"{spec.native_grid[0]}x{spec.native_grid[1]} patches"
    yield "max_patches", str(spec.max_patches)
    yield "resize", spec.resize if spec.resize_to is None else f"{spec.resize}, shortest side {spec.resize_to}"
    yield "interpolation", spec.interpolation
    yield "mean, std", f"{_list(spec.mean)}; {_list(spec.std)}"
    yield "background", _list(spec.background)


def _graph(graph: Graph) -> Iterator[tuple[str, str]]:
    yield "opset", ", ".join(f"{domain} {version}" for domain, version in graph.opsets.items())
    yield "IR version", str(graph.ir_version)
    yield "producer", graph.producer
    for title, values in (("inputs", graph.inputs), ("outputs", graph.outputs)):
        yield title, "\n".join(map(_signature, values))


def _signature(value: Value) -> str:
    return f"{value.name}: {value.type} [{', '.join(map(str, value.shape))}]"


def _operators(graph: Graph) -> Table:
    table = _table(f"Operators: {graph.operators.total()} nodes", "operator", "nodes")
    for name, count in graph.operators.most_common():
        table.add_row(Text(name), str(count))
    return table


def _weights(facts: ArtifactFacts) -> Table:
    graph = facts.graph
    table = _table(f"Weights: {len(graph.weights)} tensors, {facts.parameters:,} numbers", "", "type", "shape", "size")
    for kind, count in facts.weight_bytes.most_common():
        table.add_row("all", kind, "", size_text(count))
    table.add_section()
    for weight in facts.largest(_SHOWN_WEIGHTS):
        table.add_row(Text(weight.name), weight.type, _list(weight.shape), size_text(weight.bytes))
    return table


def _accuracy(accuracy: Accuracy) -> Table:
    title = f"Top-1 over the patch budget, {accuracy.dataset}" if accuracy.curve else "Accuracy: not measured"
    table = _table(title, "max_patches", "top-1", "")
    for budget, top1 in accuracy.curve:
        table.add_row(str(budget), f"{top1:.2%}", bar(top1))
    return table


def _provenance(manifest: Manifest) -> Iterator[tuple[str, str]]:
    origin = manifest.provenance
    yield "source", origin.source
    yield "SHA-256", origin.sha256
    yield "licence", origin.licence
    yield "libraries", ", ".join(f"{name} {version}" for name, version in origin.libraries.items())
    yield "command", origin.command


def _table(title: str, *columns: str) -> Table:
    return Table(*columns, title=Text(title), title_justify="left", box=SIMPLE_HEAD)


def _list(values: Iterable[float]) -> str:
    return ", ".join(str(value) if isinstance(value, int) else f"{value:g}" for value in values)
