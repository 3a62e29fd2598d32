"""What the logits are called: from the checkpoint, from a library that knows the data set, or from a file."""

import importlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from model.checkpoints.loading import CheckpointError


def generic(classes: int) -> tuple[str, ...]:
    """Labels that say nothing but which logit it was."""
    return tuple(f"class {index}" for index in range(classes))


def read_labels(path: Path, classes: int) -> tuple[str, ...]:
    """Labels from a file: one a line, a JSON list, or a JSON object of index to label.

    Raises:
        CheckpointError: if it cannot be read, or has another number of labels than the model has classes.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
        document = json.loads(text) if path.suffix == ".json" else text.splitlines()
    except (OSError, ValueError) as error:
        raise CheckpointError(f"the labels {path} cannot be read: {error}") from None
    try:
        labels = in_order(document)
    except ValueError as error:
        raise CheckpointError(f"the labels {path} cannot be used: {error}") from None
    while labels and not labels[-1].strip():  # empty lines at the end
        labels = labels[:-1]
    if len(labels) != classes:
        raise CheckpointError(f"{path} has {len(labels)} labels, but the model has {classes} classes")
    return labels


def in_order(document: Any) -> tuple[str, ...]:
    """A list of labels, or an object of index to label, as labels by index.

    Raises:
        ValueError: if it is neither, or an index is missing.
    """
    if isinstance(document, Mapping):
        try:
            by_index = {int(index): label for index, label in document.items()}
        except ValueError:
            raise ValueError("the keys of the object are not indices") from None
        missing = sorted(set(range(len(by_index))) - by_index.keys())
        if missing:
            raise ValueError(f"there is no label for index {missing[0]}")
        document = [by_index[index] for index in range(len(by_index))]
    if not isinstance(document, list) or not all(isinstance(label, str) for label in document):
        raise ValueError("neither a list of texts nor an object of index to text")
    return tuple(document)


def of_imagenet(classes: int) -> tuple[str, ...] | None:
    """The labels of the ImageNet set with this many classes, from an installed library; None if there is none.

    timm knows ImageNet-1k, 12k and the versions of 21k, which all differ in size; torchvision knows 1k.
    """
    try:
        data = importlib.import_module("timm.data")
    except ImportError:
        return _of_torchvision() if classes == 1000 else None
    subset = data.infer_imagenet_subset({"num_classes": classes})
    if subset is None:
        return None
    return _short(data.ImageNetInfo(subset).label_descriptions())


def _of_torchvision() -> tuple[str, ...] | None:
    try:
        models = importlib.import_module("torchvision.models")
    except ImportError:
        return None
    categories: Sequence[str] = models.ViT_B_16_Weights.IMAGENET1K_V1.meta["categories"]
    return tuple(categories)


def _short(descriptions: Sequence[str]) -> tuple[str, ...]:
    """WordNet lists every synonym; the first one is enough, unless another class has it too."""
    firsts = [text.split(",")[0].strip() for text in descriptions]
    times = Counter(firsts)
    return tuple(first if times[first] == 1 else text for first, text in zip(firsts, descriptions, strict=True))


def fitting(labels: Sequence[str] | None, classes: int, notes: list[str]) -> tuple[str, ...]:
    """Labels of a checkpoint if they are one per class; generic ones and a note if not."""
    if classes == 0:
        return ()
    if labels is not None and len(labels) == classes:
        return tuple(labels)
    reason = "names no classes" if not labels else f"names {len(labels)} classes"
    notes.append(
        f"the checkpoint {reason} for {classes} logits: labels are 'class 0' and so on; --labels FILE sets them"
    )
    return generic(classes)
