"""The work itself, wherever it runs: decode, resize, cut. `N` patches, `P*P*C` values of a patch."""

import time
from collections.abc import Callable, Iterable
from io import BytesIO
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from model.headers import ImageHeader, ImageLimits
from model.manifest import Preprocessing
from model.preprocess import PatchSequence, cut, decode_for_grid, preprocess

_QUICK_PIXELS = 100_000  # about half a millisecond, which handing an image to another thread and back costs too
_QUICK_BYTES = 1 << 17

Place = Callable[[], NDArray[np.uint8]]  # uint8 [N, P*P*C], asked for when the patches are about to be written


class Decoded(NamedTuple):
    """One image. `decode_s` is from the file to RGB, `preprocess_s` what came after, seconds."""

    sequence: PatchSequence
    decode_s: float
    preprocess_s: float


class Decoder(Protocol):
    """What the pipeline calls, in its decode threads but for quick images."""

    def decode(
        self, data: bytes, header: ImageHeader, grid: tuple[int, int], place: Place, deadline_s: float
    ) -> Decoded:
        """Decode one image whose header was checked, into the memory that `place` gives.

        Raises:
            ImageError: if it cannot be decoded.
            DeadlineExceeded: if its turn did not come before `deadline_s`, on the monotonic clock.
        """

    def quick(self, data: bytes, header: ImageHeader) -> bool:
        """Whether an image is decoded sooner than another thread has taken it, so that the event loop may do it."""

    def able(self) -> bool:
        """Whether the next image can be decoded."""

    def close(self) -> None:
        """Let go of everything, whatever still runs."""


def is_quick(data: bytes, header: ImageHeader) -> bool:
    """Whether decoding in this process takes no longer than about half a millisecond, whatever the file holds.

    Only a JPEG of one scan is bounded by its size so well: others have passes, profiles and texts that cost more.
    """
    small = header.width * header.height <= _QUICK_PIXELS and len(data) <= _QUICK_BYTES
    return small and header.format == "JPEG" and not header.buffered


def decode_and_cut(
    data: bytes, header: ImageHeader, spec: Preprocessing, grid: tuple[int, int], place: Place, *, exact: bool
) -> Decoded:
    """Decode one image in this thread.

    Raises:
        ImageError: if it cannot be decoded.
    """
    started = time.monotonic()
    image = decode_for_grid(data, header, spec, grid, exact=exact)
    decoded = time.monotonic()
    sequence = cut(image, header, spec, grid, out=place(), exact=exact)
    return Decoded(sequence, decoded - started, time.monotonic() - decoded)


def warm_up_decoders(spec: Preprocessing, formats: Iterable[str]) -> None:
    """Decode a small image of every accepted format: the first image of a format loads its decoder."""
    limits = ImageLimits(formats=tuple(formats))
    for name in limits.formats:
        file = BytesIO()
        Image.new("RGB", (2 * spec.patch_size, 2 * spec.patch_size)).save(file, name)
        preprocess(file.getvalue(), spec, limits)
