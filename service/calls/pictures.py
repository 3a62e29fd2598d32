"""From what Python calls an image to the bytes of a file. Pillow and NumPy are needed only by who passes their objects.

Files are sent as they are: the service decodes, turns and resizes as it does for everybody. Arrays and Pillow's images
become PNG, which loses nothing.
"""

from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, TypeAlias, Union

from service.calls.failures import UnreadableImage

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from PIL.Image import Image

Picture: TypeAlias = Union[str, Path, bytes, bytearray, memoryview, "Image", "NDArray[Any]", BinaryIO]

_SIGNATURES = {b"\xff\xd8": "jpeg", b"\x89PNG": "png", b"RIFF": "webp", b"GIF8": "gif", b"BM": "bmp"}


def bytes_of(picture: Picture) -> bytes:
    """The bytes to send.

    Args:
        picture: a path, the bytes of an image file, a binary file, a Pillow image, or a uint8 array [H, W],
            [H, W, 3] or [H, W, 4] of RGB or RGBA.

    Raises:
        UnreadableImage: if it is none of these, or cannot be read.
    """
    if isinstance(picture, bytes | bytearray | memoryview):
        return bytes(picture)
    if isinstance(picture, str | Path):
        return _read(Path(picture))
    if hasattr(picture, "__array_interface__") and hasattr(picture, "dtype"):
        return _encode_array(picture)
    if hasattr(picture, "getexif") and hasattr(picture, "save"):
        return _encode(picture)
    if hasattr(picture, "read"):
        return _drain(picture)
    raise UnreadableImage(
        f"{type(picture).__name__} is no image: pass a path, bytes, a binary file, a Pillow image or a uint8 array"
    )


def media_type_of(data: bytes) -> str:
    """The type to declare; the service looks at the bytes itself."""
    return next((f"image/{kind}" for signature, kind in _SIGNATURES.items() if data.startswith(signature)), "image/x")


def name_of(picture: Picture) -> str:
    """How an image is called in messages."""
    return str(picture) if isinstance(picture, str | Path) else type(picture).__name__


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise UnreadableImage(error.strerror or "cannot be read") from None
    except ValueError as error:  # such as a null character in the name
        raise UnreadableImage(f"not a path: {error}") from None


def _drain(file: BinaryIO) -> bytes:
    try:
        data = file.read()
    except (OSError, ValueError) as error:
        raise UnreadableImage(f"the file cannot be read: {error}") from None
    if not isinstance(data, bytes):
        raise UnreadableImage("the file gives text: open it with mode 'rb'")
    return data


def _encode_array(array: Any) -> bytes:
    from PIL import Image  # noqa: PLC0415 - only who sends arrays needs it

    channels = array.shape[2:]
    if array.dtype != "uint8" or array.ndim not in {2, 3} or channels not in {(), (3,), (4,)} or array.size == 0:
        raise UnreadableImage(
            f"an array of {array.dtype} {list(array.shape)} is no image: pass uint8 [H, W], [H, W, 3] or [H, W, 4]"
        )
    return _encode(Image.fromarray(array))


def _encode(image: Any) -> bytes:
    """A PNG of a Pillow image, turned upright as the service does with files."""
    from PIL import ImageOps  # noqa: PLC0415 - it is there, the image is its own

    buffer = BytesIO()
    try:
        upright = ImageOps.exif_transpose(image)
        (upright.convert("RGB") if upright.mode in {"CMYK", "YCbCr", "LAB", "HSV"} else upright).save(
            buffer, "PNG", compress_level=1
        )
    except (OSError, ValueError) as error:
        raise UnreadableImage(f"the image of mode {image.mode} cannot be sent: {error}") from None
    return buffer.getvalue()
