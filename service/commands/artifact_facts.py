"""What an artifact holds, read from the file without the engine and without the `onnx` package."""

import hashlib
import mmap
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from model.manifest import METADATA_KEY, Manifest, ManifestError
from service.errors import StartError
from service.onnx_file import metadata_of
from service.onnx_graph import Graph, read_graph


@dataclass(frozen=True, slots=True)
class ArtifactFacts:
    """One file.

    Attributes:
        path: of the file.
        size_bytes: of the file.
        digest: `sha256:` and the SHA-256, as `GET /models` shows it.
        manifest: what the model says of itself.
        graph: what it computes.
    """

    path: Path
    size_bytes: int
    digest: str
    manifest: Manifest
    graph: Graph

    @property
    def weight_bytes(self) -> Counter[str]:
        """Bytes of all weights of each type."""
        sizes: Counter[str] = Counter()
        for weight in self.graph.weights:
            sizes[weight.type] += weight.bytes
        return sizes

    @property
    def parameters(self) -> int:
        """Numbers in all weights."""
        return sum(weight.values for weight in self.graph.weights)

    def to_dict(self) -> dict[str, Any]:
        """The JSON form."""
        graph = self.graph
        return {
            "file": str(self.path),
            "bytes": self.size_bytes,
            "digest": self.digest,
            "manifest": asdict(self.manifest),
            "graph": {
                "ir_version": graph.ir_version,
                "producer": graph.producer,
                "opsets": graph.opsets,
                "operators": dict(graph.operators.most_common()),
                "inputs": [asdict(value) for value in graph.inputs],
                "outputs": [asdict(value) for value in graph.outputs],
            },
            "weights": {
                "tensors": len(graph.weights),
                "parameters": self.parameters,
                "bytes": dict(self.weight_bytes.most_common()),
                "largest": [asdict(weight) for weight in self.largest(10)],
            },
        }

    def largest(self, count: int) -> list[Any]:
        """The weights that take the most bytes."""
        return sorted(self.graph.weights, key=lambda weight: weight.bytes, reverse=True)[:count]


def read_facts(path: Path) -> ArtifactFacts:
    """Read an artifact. Its weights stay in the file.

    Raises:
        StartError: if it cannot be read, is no ONNX file, or none of ours.
    """
    try:
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            content = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
        graph = read_graph(content)
    except OSError as error:
        raise StartError(f"the model {path} cannot be read: {error.strerror}") from None
    except ValueError:  # that of an empty file too
        raise StartError(f"{path} is no ONNX file; inspect takes what python -m export.to_onnx writes") from None
    return ArtifactFacts(path, len(content), f"sha256:{digest}", _manifest(path, content), graph)


def _manifest(path: Path, content: memoryview) -> Manifest:
    document = metadata_of(content, METADATA_KEY)
    if document is None:
        raise StartError(
            f"{path} is an ONNX file without a manifest, so patchserve has not made it and cannot serve it: "
            "export its checkpoint with python -m export.to_onnx"
        )
    try:
        return Manifest.from_json(document)
    except ManifestError as error:
        raise StartError(f"{path}: {'; '.join(line.strip() for line in str(error).splitlines())}") from None
