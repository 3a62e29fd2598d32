"""From the bytes of an image to a sequence of patches: the one path of evaluation, export checks and the service.

`H`, `W` height and width in pixels, `C` channels (3, RGB), `P` side of a patch, `N` patches. Images stand upright
(EXIF turned) in all sizes here; grids are (rows, columns). NumPy, Pillow, the decoder of `model.jpeg` and the SIMD
resampler of `model.resampling` only; thread-safe, no state.
"""

import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from io import BytesIO
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile, UnidentifiedImageError
from PIL import WebPImagePlugin as _WebPImagePlugin  # noqa: F401 - or the first WebP would load every plugin there is

from model.headers import ImageError, ImageHeader, ImageLimits, ImageTooLarge, InvalidImage, read_header
from model.jpeg import decode_usual_jpeg
from model.manifest import Preprocessing
from model.resampling import Picture, resample, size_of

_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_ROWS_AT_ONCE = 256
_DRAFT_MARGIN = 2  # a JPEG decoded at a reduced scale stays this many times larger than the resized image


@dataclass(frozen=True, slots=True, eq=False)
class PatchSequence:
    """One image, ready for the graph.

    Attributes:
        patches: uint8 [N, P*P*C], row by row over the grid, (row, col, channel) inside a patch.
        grid: (rows, columns), rows*columns = N.
        width, height: of the image, pixels, upright.
        format: as Pillow names it.
    """

    patches: NDArray[np.uint8]
    grid: tuple[int, int]
    width: int
    height: int
    format: str


def preprocess(
    data: bytes | bytearray,
    spec: Preprocessing,
    limits: ImageLimits,
    *,
    max_patches: int | None = None,
    exact: bool = False,
    header: ImageHeader | None = None,
    out: NDArray[np.uint8] | None = None,
) -> PatchSequence:
    """Turn the bytes of an image file into patches.

    Args:
        data: the file.
        spec: what the model was trained on.
        limits: what the header may claim; not read when `header` is given.
        max_patches: a budget below the model's own.
        exact: as the model's source does it: a JPEG decoded at full size even if a reduced one is enough, and resized
            by Pillow.
        header: the result of `read_header`, if it is known already.
        out: where the patches go, see `patchify`.

    Raises:
        ImageError: if the image is refused or cannot be decoded.
    """
    header = header or read_header(data, limits)
    grid = choose_grid(*header.upright_size, spec, max_patches)
    image = decode_for_grid(data, header, spec, grid, exact=exact)
    return cut(image, header, spec, grid, out, exact=exact)


def decode_for_grid(
    data: bytes | bytearray, header: ImageHeader, spec: Preprocessing, grid: tuple[int, int], *, exact: bool = False
) -> Picture:
    """Decode to upright RGB, a JPEG at the smallest scale that this grid allows unless `exact`.

    Raises:
        ImageError: if the image cannot be decoded.
    """
    at_least = None if exact else enough(header, spec, grid)
    if not exact and (pixels := decode_usual_jpeg(data, header, at_least)) is not None:
        return pixels
    return decode(data, header, at_least=at_least, background=spec.background)


def cut(
    image: Picture,
    header: ImageHeader,
    spec: Preprocessing,
    grid: tuple[int, int],
    out: NDArray[np.uint8] | None = None,
    *,
    exact: bool = False,
) -> PatchSequence:
    """Resize a decoded image and cut it into the patches of its grid, written into `out` if given: see `patchify`."""
    pixels = resize(image, spec, grid, region(header, size_of(image)), exact=exact)
    return PatchSequence(patchify(pixels, spec.patch_size, out), grid, *header.upright_size, header.format)


# --- geometry -------------------------------------------------------------------------------------------------------
def choose_grid(width: int, height: int, spec: Preprocessing, max_patches: int | None = None) -> tuple[int, int]:
    """The (rows, columns) that an image of this size gets: its cost, known before it is decoded.

    `crop` and `squash` take the native grid, or the largest of its shape within the budget. `aspect` keeps the
    image's own shape and never enlarges, except up to whole patches. rows*columns stays the same when the sides swap.

    Raises:
        ValueError: if `max_patches` is below 1.
    """
    budget = spec.max_patches if max_patches is None else min(max_patches, spec.max_patches)
    if budget < 1:
        raise ValueError(f"max_patches must be at least 1, not {budget}")
    if spec.resize == "aspect":
        return _fit(height / spec.patch_size, width / spec.patch_size, budget)
    if spec.native_patches <= budget:
        return spec.native_grid
    return _fit(*spec.native_grid, budget)


def _fit(rows: float, columns: float, budget: int) -> tuple[int, int]:
    """The grid of whole patches nearest in shape, at most `budget` of them and no larger; ties to more patches."""
    scale = min(1.0, math.sqrt(budget / (rows * columns)))
    candidates = []
    for across in _around(columns * scale, budget):
        for down in _around(rows * scale, budget):
            fits = down * across <= budget
            candidates += [(down, across)] if fits else [(down, budget // down), (budget // across, across)]

    def distortion(grid: tuple[int, int]) -> tuple[float, int]:
        down, across = grid[0] * columns, grid[1] * rows
        return max(down, across) / min(down, across), -grid[0] * grid[1]

    return min(candidates, key=distortion)


def _around(side: float, budget: int) -> set[int]:
    return {min(budget, max(1, whole)) for whole in (math.floor(side), math.ceil(side))}


def _resized(width: float, height: float, spec: Preprocessing, grid: tuple[int, int]) -> tuple[int, int]:
    """(width, height) of the whole resized image, of which the centre is kept."""
    wide, high = grid[1] * spec.patch_size, grid[0] * spec.patch_size
    if spec.resize_to is None:
        return wide, high
    native_short = min(spec.native_grid) * spec.patch_size
    if spec.resize == "squash":
        scale = spec.resize_to / native_short
        return max(wide, round(wide * scale)), max(high, round(high * scale))
    short = max(min(wide, high), round(spec.resize_to * min(wide, high) / native_short))
    size = short, int(short * max(width, height) / min(width, height))
    size = size if width <= height else size[::-1]
    # A long native grid can be wider than a tall image becomes: then the image is enlarged to cover it.
    cover = max(1.0, wide / size[0], high / size[1])
    return max(wide, int(size[0] * cover)), max(high, int(size[1] * cover))


def region(header: ImageHeader, decoded: tuple[int, int]) -> tuple[float, float, float, float]:
    """The box (left, top, right, bottom) that the picture covers in the upright decoded image of this size.

    All of it, unless a JPEG was decoded at 1/2, 1/4 or 1/8: its size is then rounded up, and taken for the picture's it
    would shift the content by up to a pixel, which costs ten times more than the reduced scale itself does.
    """
    width, height = header.upright_size
    scale = next(each for each in (1, 2, 4, 8) if decoded == (math.ceil(width / each), math.ceil(height / each)))
    wide, high = width / scale, height / scale
    # The rounding is at the right and the bottom of the stored image; these orientations turn them round.
    left = decoded[0] - wide if header.orientation in {2, 3, 6, 7} else 0.0
    top = decoded[1] - high if header.orientation in {3, 4, 7, 8} else 0.0
    return left, top, left + wide, top + high


def enough(header: ImageHeader, spec: Preprocessing, grid: tuple[int, int]) -> tuple[int, int]:
    """(width, height) that a decoded JPEG must keep so that resizing it still averages over enough pixels."""
    wide, high = _resized(*header.upright_size, spec, grid)
    return _DRAFT_MARGIN * wide, _DRAFT_MARGIN * high


# --- decoding -------------------------------------------------------------------------------------------------------
def decode(
    data: bytes | bytearray,
    header: ImageHeader,
    *,
    at_least: tuple[int, int] | None,
    background: tuple[int, int, int],
) -> Image.Image:
    """Decode the first frame to RGB, upright, transparency on `background`, colour profiles ignored.

    Args:
        data: the file.
        header: what `read_header` found in it.
        at_least: (width, height) upright that a JPEG must keep when decoded at 1/2, 1/4 or 1/8; None: full size.
        background: RGB 0..255.

    Raises:
        ImageError: whatever is wrong with the file.
    """
    # Pillow warns of corrupt metadata that we never use. Set each time: `catch_warnings` is not thread-safe, and
    # setting the same filter again changes nothing.
    warnings.filterwarnings("ignore", module=r"PIL\.")
    try:
        image = to_rgb(_load(data, header, at_least), background)
        turn = _TURNS.get(header.orientation)
        return image if turn is None else image.transpose(turn)
    except ImageError:
        raise
    except Image.DecompressionBombError:
        raise ImageTooLarge("the image is larger than Pillow's own limit: make it smaller") from None
    except Exception as error:  # noqa: BLE001 - decoders raise anything, from zlib.error to IndexError
        reason = "broken metadata" if isinstance(error, UnidentifiedImageError) else str(error) or type(error).__name__
        raise InvalidImage(f"the {header.format} cannot be decoded ({reason}): send the whole file") from None


def _load(data: bytes | bytearray, header: ImageHeader, at_least: tuple[int, int] | None) -> Image.Image:
    """Open and decode; nothing is allocated for pixels before the sizes are compared."""
    image = Image.open(BytesIO(data), formats=(header.format,))
    # Two parsers that disagree about a file are how limits are passed by.
    if image.size != (header.width, header.height):
        raise InvalidImage(f"the {header.format} header contradicts itself: save the image again")
    if at_least is not None and header.format == "JPEG":
        image.draft(None, at_least if header.orientation < 5 else at_least[::-1])
    if header.format == "PNG" and "transparency" in image.info:
        image.info["transparency"] = _transparent_colour(image)
    image.load()
    return image


def _transparent_colour(image: ImageFile.ImageFile) -> Any:
    """The transparent colour of a PNG in units of the decoded pixels; Pillow gives it in units of the file's.

    Of 16-bit RGB Pillow keeps the high bytes, so the colours that share them with the transparent one vanish too.
    """
    value, stored = image.info["transparency"], image.tile[0].args
    if stored == "RGB;16B":
        return tuple(each >> 8 for each in value)
    scale = {"L;2": 85, "L;4": 17}.get(stored, 1) if isinstance(stored, str) else 1
    return value if scale == 1 else value * scale


def to_rgb(image: Image.Image, background: tuple[int, int, int]) -> Image.Image:
    """The image as 8-bit RGB: alpha composited on `background`, 16-bit grey scaled and never clipped.

    Raises:
        InvalidImage: for a mode without a known range, such as float.
    """
    if image.mode.startswith("I"):
        image = _from_16_bit(image)
    if image.has_transparency_data:
        image = image.convert("RGBA")
        flat = Image.new("RGB", image.size, background)
        flat.paste(image, mask=image.getchannel("A"))
        return flat
    if image.mode not in {"RGB", "L", "P", "1", "CMYK", "YCbCr", "RGBX"}:
        raise InvalidImage(f"pixels of kind {image.mode} are not accepted: save the image with 8 bits a channel")
    return image if image.mode == "RGB" else image.convert("RGB")


def _from_16_bit(image: Image.Image) -> Image.Image:
    """0..65535 to 0..255 by /257, rounded; the transparent value, if there is one, becomes alpha."""
    values = np.asarray(image)  # [H, W], of 2 or 4 bytes each
    if values.min() < 0 or values.max() > 65535:
        raise InvalidImage("the image has more than 16 bits a channel: save it with 8")
    grey = np.empty(values.shape, np.uint8)
    for top in range(0, len(values), _ROWS_AT_ONCE):  # the sums need 4 bytes: for a whole photograph that is a lot
        rows = slice(top, top + _ROWS_AT_ONCE)
        grey[rows] = (values[rows].astype(np.uint32) + 128) // 257
    if "transparency" not in image.info:
        return Image.fromarray(grey)
    opaque = values != image.info["transparency"]
    return Image.merge("LA", (Image.fromarray(grey), Image.fromarray(opaque.astype(np.uint8) * np.uint8(255))))


# --- pixels -----------------------------------------------------------------------------------------------------------
def resize(
    image: Picture,
    spec: Preprocessing,
    grid: tuple[int, int],
    box: tuple[float, float, float, float] | None = None,
    *,
    exact: bool = False,
) -> NDArray[np.uint8]:
    """Resample an RGB image for a grid: uint8 [rows*P, columns*P, C], antialiased, by Pillow if `exact`.

    `crop` follows torchvision (and timm): the shortest side to `resize_to`, then the centre; `crop-floor` is that of
    transformers, which rounds half a pixel down. The crop is taken first, in source coordinates, so that a 1:100 image
    never becomes a huge one on the way. `box` is the part of the image that holds the picture, all of it by default:
    see `region`.
    """
    x, y, right, bottom = box or (0, 0, *size_of(image))
    wide, high = grid[1] * spec.patch_size, grid[0] * spec.patch_size
    inner = shown(right - x, bottom - y, spec, grid)
    source = (x + inner[0], y + inner[1], x + inner[2], y + inner[3])
    return resample(image, (wide, high), spec.interpolation, source, exact=exact)


def shown(width: float, height: float, spec: Preprocessing, grid: tuple[int, int]) -> tuple[float, float, float, float]:
    """The box (left, top, right, bottom) of an upright picture that its patches show: all of it, or the centre."""
    wide, high = grid[1] * spec.patch_size, grid[0] * spec.patch_size
    full_wide, full_high = _resized(width, height, spec, grid)
    centre: Callable[[float], int] = math.floor if spec.resize == "crop-floor" else round
    left, top = centre((full_wide - wide) / 2), centre((full_high - high) / 2)
    return (
        left * width / full_wide,
        top * height / full_high,
        (left + wide) * width / full_wide,
        (top + high) * height / full_high,
    )


def patchify(pixels: NDArray[np.uint8], patch_size: int, out: NDArray[np.uint8] | None = None) -> NDArray[np.uint8]:
    """Cut [H, W, C] into patches, one copy; H and W are multiples of P.

    Args:
        pixels: uint8 [H, W, C].
        patch_size: P.
        out: uint8 [N, P*P*C], C-contiguous, such as the image's place in a batch; a new array by default.

    Returns:
        `out`, filled.

    Raises:
        ValueError: if `out` has another shape or layout.
        TypeError: if it is not of bytes.
    """
    height, width, channels = pixels.shape
    rows, columns = height // patch_size, width // patch_size
    shape = rows * columns, patch_size * patch_size * channels
    out = np.empty(shape, np.uint8) if out is None else out
    if out.shape != shape or not out.flags.c_contiguous:
        raise ValueError(f"out must be a C-contiguous array of shape {shape}")
    tiles = pixels.reshape(rows, patch_size, columns, patch_size, channels)
    np.copyto(out.reshape(rows, columns, patch_size, patch_size, channels), tiles.swapaxes(1, 2), casting="no")
    return out
