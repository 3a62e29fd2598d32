"""One image of a data set: what it is called, where its bytes are, and why there may be none."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from service.errors import RequestError

IMAGE_SUFFIXES = frozenset(
    ("jpg", "jpeg", "jpe", "jfif", "png", "webp", "gif", "bmp", "tif", "tiff", "avif", "heic", "jp2")
)
_MOST_BYTES = 268_435_456  # of one image file; a film that is called x.jpg must not fill the memory


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why an image has no label: a stable code and a fixed sentence, those of the HTTP service where it has them."""

    code: str
    sentence: str

    @classmethod
    def of(cls, error: RequestError) -> Self:
        """What the service would have answered."""
        return cls(error.code, error.detail)


UNREADABLE = Refusal("unreadable", "The file cannot be read.")
TOO_LARGE = Refusal("file_too_large", f"The file has more than {_MOST_BYTES} bytes.")


@dataclass(frozen=True, slots=True)
class Slice:
    """Bytes of a file: `size` of them from `offset` on, or all of it."""

    path: Path
    offset: int = 0
    size: int | None = None

    def read(self) -> bytes | Refusal:
        """The bytes."""
        try:
            with self.path.open("rb") as file:
                size = os.fstat(file.fileno()).st_size if self.size is None else self.size
                if size > _MOST_BYTES:
                    return TOO_LARGE
                file.seek(self.offset)
                return file.read(size)
        except (OSError, ValueError):  # ValueError: a path with a zero byte
            return UNREADABLE


@dataclass(frozen=True, slots=True)
class Entry:
    """One image. `content` is its bytes, where they are, or why there are none."""

    key: str
    content: bytes | Slice | Refusal

    def read(self) -> bytes | Refusal:
        """The bytes, read now if they were not."""
        return self.content.read() if isinstance(self.content, Slice) else self.content


def is_image_name(name: str) -> bool:
    """Whether a file name is that of an image that is worth a try; hidden files are not."""
    base = name.rsplit("/", 1)[-1]
    return not base.startswith(".") and base.rpartition(".")[2].lower() in IMAGE_SUFFIXES
