"""Which shapes a GPU is given: pure planning, no device.

`B` images, `N` patches. On a GPU every new shape `[B, N]` is slow once: memory, kernel choice, a TensorRT build or a
CUDA graph. So batches are padded up to one of few shapes, all of which run before the service is ready. On the CPU a
new shape costs nothing and padding costs its full share: there are no buckets by default.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from model.manifest import Manifest
from service.batching import BatchLimits

# Lengths a quarter apart pad a ninth on average; the shortest is what a small batch takes without any gain from less.
_GROWTH, _SHORTEST = 1.25, 16


@dataclass(frozen=True, slots=True)
class Buckets:
    """The shapes of batches.

    Attributes:
        lengths: what N is padded to, rising; empty: every batch keeps its own shape.
        max_patches: B * max(N) of a batch before it is padded.
        max_images: B.
    """

    lengths: tuple[int, ...] = ()
    max_patches: int = 1
    max_images: int = 1

    def shape(self, images: int, longest: int) -> tuple[int, int]:
        """(B, N) of the smallest bucket that holds a batch; its own shape where no bucket does."""
        length = next((each for each in self.lengths if each >= longest), None)
        if length is None:
            return images, longest
        return next((each for each in self._sizes(length) if each >= images), images), length

    def shapes(self, native: int) -> list[tuple[int, int]]:
        """Every shape that `shape` answers, those of the native length first, then the largest first.

        The largest first, because memory that it takes serves all others.
        """
        found = [(size, length) for length in self.lengths for size in self._sizes(length)]
        return sorted(found, key=lambda each: (each[1] != native, -each[0] * each[1]))

    def _sizes(self, length: int) -> list[int]:
        """Doubling up to the most images of a batch whose longest falls into this bucket."""
        shortest = max((each for each in self.lengths if each < length), default=0) + 1
        most = max(1, min(self.max_images, self.max_patches // shortest))
        return [*(2**power for power in range((most - 1).bit_length())), most]


def choose_buckets(
    setting: str, provider: Literal["cpu", "cuda", "tensorrt"], model: Manifest, limits: BatchLimits
) -> Buckets:
    """Buckets for a model.

    Args:
        setting: `auto` (lengths a quarter apart on a GPU, none on the CPU), `none`, or lengths separated by commas.
        provider: what runs the model.
        model: what it is. One whose stem needs one grid per batch gets none: it takes no padding.
        limits: of a batch.
    """
    none = setting == "none" or (setting == "auto" and provider == "cpu") or not limits.mixed_grids
    if none:
        return Buckets()
    spec = model.preprocessing
    chosen = _geometric(spec.max_patches) if setting == "auto" else map(int, setting.split(","))
    inside: Iterable[int] = (length for length in chosen if 0 < length < spec.max_patches)
    lengths = sorted({*inside, spec.native_patches, spec.max_patches})
    return Buckets(tuple(lengths), limits.max_patches, limits.max_images)


def _geometric(longest: int) -> list[int]:
    lengths = [_SHORTEST]
    while lengths[-1] < longest:
        lengths.append(max(lengths[-1] + 1, int(lengths[-1] * _GROWTH)))
    return lengths
