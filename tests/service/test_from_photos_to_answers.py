"""From 20 images a class and a checkpoint to a service that names the classes: train, export, serve."""

import sys
from pathlib import Path

import pytest
from shades import COLOURS, tiny_checkpoint, write_colours

from export import to_onnx
from model import train
from tests.service.conftest import Serving, picture

pytestmark = pytest.mark.anyio


def run(monkeypatch: pytest.MonkeyPatch, module: object, *words: object) -> None:
    monkeypatch.setattr(sys, "argv", ["tool", *map(str, words)])
    with pytest.raises(SystemExit) as leaving:
        module.main()  # type: ignore[attr-defined]
    assert not leaving.value.code, leaving.value.code


async def test_twenty_images_a_class_become_a_service(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, serving: Serving
) -> None:
    photos, output, artifact = (
        write_colours(tmp_path / "photos", 20),
        tmp_path / "runs" / "photos",
        tmp_path / "photos.onnx",
    )
    checkpoint = tiny_checkpoint(tmp_path / "old.safetensors")
    settings = ["--epochs", 6, "--max-patches", 16, "--device", "cpu", "--precision", "float32"]
    run(monkeypatch, train, photos, "--from", checkpoint, "--output", output, *settings)
    run(monkeypatch, to_onnx, output, "-o", artifact, "--quick-check")
    async with serving(model=artifact) as client:
        for name, colour in COLOURS.items():
            answer = await client.post(
                "/classify", content=picture(colour, (50, 40)), headers={"content-type": "image/png"}
            )
            assert answer.status_code == 200
            assert answer.json()["results"][0]["predictions"][0]["label"] == name
            assert answer.json()["model"]["name"] == "photos"
