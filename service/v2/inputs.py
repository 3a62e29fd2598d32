"""From input tensors to what the pipeline takes: image files, or patches that the client has cut itself.

`B` images, `N` patches of the longest image, `P*P*C` values of a patch.
"""

from model.manifest import Preprocessing
from model.preprocess import PatchSequence
from service.errors import BadInference
from service.v2.body import Tensor
from service.v2.tensors import byte_strings, numbers

_WHICH = "Send either the input `image`, or both `patches` and `grid`."
_IMAGE = "`image` is BYTES of shape [B] or [B, 1], where B is 1 to {max_files} images."
_PATCHES = (
    "`patches` is UINT8 of shape [B, N, {patch_dim}] and `grid` INT64 of shape [B, 2], for 1 to {max_files} images "
    "and 1 to {max_patches} patches."
)
_GRID = "A row of `grid` is the rows and columns of one image, each at least 1, together at most the N of `patches`."


def read_inputs(
    tensors: dict[str, Tensor], spec: Preprocessing, max_files: int
) -> tuple[list[bytes], list[PatchSequence]]:
    """Image files or patch sequences; one of the two lists is empty.

    Raises:
        BadInference: if they are not what the model takes.
    """
    if tensors.keys() == {"image"}:
        return _images(tensors["image"], max_files), []
    if tensors.keys() == {"patches", "grid"}:
        return [], _sequences(tensors["patches"], tensors["grid"], spec, max_files)
    raise BadInference(_WHICH)


def _images(image: Tensor, max_files: int) -> list[bytes]:
    shape = image.shape
    if image.datatype != "BYTES" or shape not in {shape[:1], (shape[0], 1)} or shape[0] > max_files:
        raise BadInference(_IMAGE.format(max_files=max_files))
    return byte_strings(image)


def _sequences(patches: Tensor, grid: Tensor, spec: Preprocessing, max_files: int) -> list[PatchSequence]:
    """Each image with as many patches as its grid has; padding stays behind."""
    batch, *lengths = patches.shape
    wanted = (batch, *lengths[:1], spec.patch_dim), (batch, 2), "UINT8", "INT64"
    if (
        (patches.shape, grid.shape, patches.datatype, grid.datatype) != wanted
        or batch > max_files
        or lengths[0] > spec.max_patches
    ):
        limits = {"patch_dim": spec.patch_dim, "max_files": max_files, "max_patches": spec.max_patches}
        raise BadInference(_PATCHES.format(**limits))
    grids = numbers(grid).tolist()
    if any(min(each) < 1 or each[0] * each[1] > lengths[0] for each in grids):
        raise BadInference(_GRID)
    side = spec.patch_size
    return [
        PatchSequence(values[: rows * columns], (rows, columns), columns * side, rows * side, "")
        for values, (rows, columns) in zip(numbers(patches), grids, strict=True)
    ]
