"""The golden image: the same patches everywhere and for ever, to ask a model whether it still answers well.

`N` patches of `P*P*3` values each, at the native grid. Standard library and NumPy only: export writes down what the
source model answers, serving compares.
"""

import numpy as np
from numpy.typing import NDArray

from model.manifest import Golden, Manifest, Precision, Preprocessing

_BEST = 5  # of the logits are written down
# Of the largest logit; rounded weights answer noise less exactly than photographs.
_TOLERANCE: dict[Precision, float] = {"float32": 1e-3, "float16": 5e-2, "int8": 0.5}


def golden_patches(spec: Preprocessing) -> NDArray[np.uint8]:
    """The golden image, uint8 [N, P*P*3]: noise by arithmetic, not by a random generator that could change."""
    places = np.arange(spec.native_patches * spec.patch_dim, dtype=np.uint64)
    noise = (places * np.uint64(2654435761)) >> np.uint64(16)
    return (noise & np.uint64(255)).astype(np.uint8).reshape(spec.native_patches, spec.patch_dim)


def golden_of(logits: NDArray[np.float32]) -> Golden:
    """What is written down of the answer to the golden image.

    Args:
        logits: float32 [K]; K is 0 for a feature extractor.
    """
    best = np.argsort(-logits, kind="stable")[:_BEST]
    return tuple((int(index), float(logits[index])) for index in best)


def golden_problem(logits: NDArray[np.float32], manifest: Manifest, *, rounded: bool = False) -> str | None:
    """What is wrong with an answer to the golden image; None if nothing is, or nothing was written down.

    Args:
        logits: float32 [K].
        manifest: of the model.
        rounded: the provider computes with fewer digits than the model has.
    """
    if not manifest.golden:
        return None
    precision: Precision = "float16" if rounded and manifest.precision == "float32" else manifest.precision
    allowed = _TOLERANCE[precision] * max(1.0, *(abs(logit) for _, logit in manifest.golden))
    for index, expected in manifest.golden:
        found = float(logits[index])
        if not abs(found - expected) <= allowed:  # a NaN is not
            return f"logit {index} of the golden image is {found:.4g} instead of {expected:.4g} +- {allowed:.2g}"
    return None
