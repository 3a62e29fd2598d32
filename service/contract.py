"""What a model file must look like to be served: its manifest, its inputs and its outputs."""

from pathlib import Path
from typing import Any, TypeAlias

from model.manifest import METADATA_KEY, Manifest, ManifestError
from service.errors import StartError
from service.extras import ATTENTION, MOST_FEATURES

_Contract: TypeAlias = dict[str, tuple[str, str, int]]  # name: (kind, element type, rank)
_CONTRACT: _Contract = {
    "patches": ("input", "tensor(uint8)", 3),
    "grid": ("input", "tensor(int64)", 2),
    "logits": ("output", "tensor(float)", 2),
    "embedding": ("output", "tensor(float)", 2),
}
_EXPLAINED: _Contract = {ATTENTION: ("output", "tensor(float)", 2)}  # of models whose manifest has `explain`


def read_manifest(session: Any, path: Path) -> Manifest:
    """The manifest of an open session.

    Raises:
        StartError: if the file has none that can be used.
    """
    text = session.get_modelmeta().custom_metadata_map.get(METADATA_KEY)
    if text is None:
        raise StartError(f"the model {path} has no manifest: export it with patchserve's export tools")
    try:
        return Manifest.from_json(text)
    except ManifestError as error:
        raise StartError(f"the model {path}: {' '.join(str(error).split())}") from None


def check_contract(session: Any, manifest: Manifest, path: Path) -> None:
    """Compare names, types and sizes of inputs and outputs.

    Raises:
        StartError: naming everything that is wrong.
    """
    found = {("input", node.name): node for node in session.get_inputs()}
    found |= {("output", node.name): node for node in session.get_outputs()}
    contract = _CONTRACT | (_EXPLAINED if manifest.explain else {})
    problems = [f"unknown input {name!r}" for kind, name in found if kind == "input" and name not in contract]
    for name, (kind, element, rank) in contract.items():
        node = found.get((kind, name))
        if node is None:
            problems.append(f"{kind} {name!r} is missing")
        elif node.type != element or len(node.shape) != rank:
            problems.append(f"{kind} {name!r} is {node.type} of rank {len(node.shape)}, not {element} of rank {rank}")
    shapes = {name: list(found[kind, name].shape) for name, (kind, *_) in contract.items()} if not problems else {}
    problems = problems or _check_open_axes(shapes)
    problems = problems or _check_sizes({name: shape[-1] for name, shape in shapes.items()}, manifest)
    if problems:
        raise StartError(f"the model {path} does not keep the contract: {'; '.join(problems)}")


def _check_open_axes(shapes: dict[str, list[Any]]) -> list[str]:
    """Any number of images and of patches: a graph that fixes one would fail at the first request of another size."""
    return [
        f"{name!r} is fixed to {size} in axis {axis}"
        for name, shape in shapes.items()
        for axis, size in enumerate(shape if name == ATTENTION else shape[:-1])
        if isinstance(size, int)
    ]


def _check_sizes(last: dict[str, Any], manifest: Manifest) -> list[str]:
    """Compare the last axes with the manifest; one that the graph leaves open shows in the warm-up."""
    wanted = {"patches": manifest.preprocessing.patch_dim, "grid": 2, "logits": len(manifest.labels)}
    source = {"patches": "values of a patch", "grid": "sides", "logits": "labels"}
    problems = [
        f"{name!r} has {last[name]} columns, the manifest {size} {source[name]}"
        for name, size in wanted.items()
        if isinstance(last[name], int) and last[name] != size
    ]
    if isinstance(last["embedding"], int) and last["embedding"] > MOST_FEATURES:
        problems.append(f"'embedding' has {last['embedding']} columns, and at most {MOST_FEATURES} can be served")
    return problems
