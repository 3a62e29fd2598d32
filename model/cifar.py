"""CIFAR-10 and CIFAR-100 in their binary version (Krizhevsky 2009): records of labels and 32x32 RGB planes."""

from pathlib import Path

import numpy as np
import torch

from model.data import DataError, LabelledImages

_PIXELS = 3 * 32 * 32  # bytes of one image, plane by plane


def is_cifar(root: Path) -> bool:
    """Whether a folder holds one of the two."""
    return (root / "test_batch.bin").is_file() or (root / "test.bin").is_file()


def load_cifar(split: str, root: Path) -> LabelledImages:
    """50,000 images for `train`, 10,000 for `test`; of CIFAR-100 the fine labels.

    Raises:
        DataError: when a file is missing or cut off.
    """
    ten = (root / "test_batch.bin").is_file()
    train = [f"data_batch_{number}.bin" for number in range(1, 6)] if ten else ["train.bin"]
    names = train if split == "train" else ["test_batch.bin" if ten else "test.bin"]
    labels = _labels(root / ("batches.meta.txt" if ten else "fine_label_names.txt"))
    records = np.concatenate([_records(root / name, 1 if ten else 2) for name in names])
    targets = records[:, 0 if ten else 1].astype(np.int64)
    if targets.max(initial=0) >= len(labels):
        raise DataError(f"{root}: a label is {targets.max()}, but there are {len(labels)} names")
    images = records[:, -_PIXELS:].reshape(-1, 3, 32, 32)
    return LabelledImages(torch.from_numpy(images.copy()), torch.from_numpy(targets), labels)


def _records(path: Path, label_bytes: int) -> np.ndarray:
    try:
        data = np.frombuffer(path.read_bytes(), np.uint8)
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from None
    if not len(data) or len(data) % (label_bytes + _PIXELS):
        raise DataError(f"{path}: {len(data)} bytes are no whole records of {label_bytes + _PIXELS}: it is cut off")
    return data.reshape(-1, label_bytes + _PIXELS)


def _labels(path: Path) -> tuple[str, ...]:
    try:
        return tuple(line for line in path.read_text().splitlines() if line)
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from None
