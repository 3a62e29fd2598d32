"""Bodies of inference requests under /v2, as clients write them."""

import base64
import json
from typing import Any

import numpy as np
from numpy.typing import NDArray


def packed(*files: bytes) -> bytes:
    """Files as binary BYTES: each behind its length."""
    return b"".join(len(file).to_bytes(4, "little") + file for file in files)


def in_base64(*files: bytes) -> list[str]:
    """Files as they stand in JSON."""
    return [base64.b64encode(file).decode() for file in files]


def with_binary(document: Any, *blobs: bytes) -> tuple[bytes, dict[str, str]]:
    """Body and headers of a request with binary data."""
    text = json.dumps(document).encode()
    return text + b"".join(blobs), {"Inference-Header-Content-Length": str(len(text))}


def image_input(count: int, **rest: Any) -> dict[str, Any]:
    """The input `image` without its values."""
    return {"name": "image", "datatype": "BYTES", "shape": [count], **rest}


def json_images(*files: bytes, **rest: Any) -> dict[str, Any]:
    """A document with images in base64."""
    return {"inputs": [image_input(len(files), data=in_base64(*files))], **rest}


def binary_images(*files: bytes, **rest: Any) -> tuple[bytes, dict[str, str]]:
    """Body and headers of a request with images as binary data."""
    blob = packed(*files)
    document = {"inputs": [image_input(len(files), parameters={"binary_data_size": len(blob)})], **rest}
    return with_binary(document, blob)


def json_patches(patches: NDArray[np.uint8], grid: Any, **rest: Any) -> dict[str, Any]:
    """A document with patches [B, N, P*P*C] and grid [B, 2] as nested lists."""
    return {
        "inputs": [
            {"name": "patches", "datatype": "UINT8", "shape": list(patches.shape), "data": patches.tolist()},
            {"name": "grid", "datatype": "INT64", "shape": [len(grid), 2], "data": [list(each) for each in grid]},
        ],
        **rest,
    }


def binary_patches(patches: NDArray[np.uint8], grid: Any, **rest: Any) -> tuple[bytes, dict[str, str]]:
    """The same with binary data."""
    document = json_patches(patches, grid, **rest)
    blobs = [patches.tobytes(), np.asarray(grid, "<i8").tobytes()]
    for each, blob in zip(document["inputs"], blobs, strict=True):
        del each["data"]
        each["parameters"] = {"binary_data_size": len(blob)}
    return with_binary(document, *blobs)


def binary_outputs(content: bytes, json_bytes: int) -> dict[str, NDArray[np.float32] | list[bytes]]:
    """The outputs of a reply whose binary data begins after so many bytes: arrays, or strings."""
    found: dict[str, NDArray[np.float32] | list[bytes]] = {}
    start = json_bytes
    for output in json.loads(content[:json_bytes])["outputs"]:
        end = start + output["parameters"]["binary_data_size"]
        blob, start = content[start:end], end
        if output["datatype"] == "FP32":
            found[output["name"]] = np.frombuffer(blob, "<f4").reshape(output["shape"])
        else:
            found[output["name"]] = _unpacked(blob)
    assert start == len(content)
    return found


def _unpacked(blob: bytes) -> list[bytes]:
    strings = []
    while blob:
        end = 4 + int.from_bytes(blob[:4], "little")
        strings.append(blob[4:end])
        blob = blob[end:]
    return strings
