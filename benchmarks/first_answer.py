"""From nothing to an answer: `patchserve serve hf:ORG/NAME` for a ViT-B/16 of transformers, timed.

    PYTHONPATH=tests python -m benchmarks.first_answer

The repository has random weights and stands on a hub on this machine, so the download costs next to nothing: a real one
adds the time of 346 MB. The child process prints the steps of the export that take over two seconds. The second start
finds the artifact in the cache. Recorded runs are in docs/performance.md.
"""

import os
import tempfile
from pathlib import Path

from hub_server import Hub, running_hub
from transformers import ViTConfig, ViTForImageClassification, ViTImageProcessor

from benchmarks.startup import start_once

MODEL = "hf:org/vit-b-16"


def make_repository(folder: Path) -> dict[str, bytes]:
    """The files of a ViT-B/16 for 1,000 classes."""
    model = ViTForImageClassification(ViTConfig(num_labels=1000))  # type: ignore[call-arg]  # it takes any
    model.save_pretrained(folder)
    ViTImageProcessor().save_pretrained(folder)
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def main() -> None:
    """Time the first start and the second."""
    with tempfile.TemporaryDirectory() as folder:
        repository = make_repository(Path(folder) / "repository")
        cache = {"HF_HOME": f"{folder}/hub", "PATCHSERVE_CACHE_DIR": f"{folder}/artifacts"}
        with running_hub(Hub({"org/vit-b-16": repository})) as hub:
            first_s, _ = start_once(MODEL, os.environ | cache | {"HF_ENDPOINT": hub.endpoint}, output=None)
        second_s, _ = start_once(MODEL, os.environ | cache | {"HF_HUB_OFFLINE": "1"}, output=None)
    print(f"first start {first_s:.1f} s, second start {second_s:.1f} s")


if __name__ == "__main__":
    main()
