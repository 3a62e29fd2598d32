"""LitServe: `workers_per_device` processes with its own batching, two HTTP processes; multipart upload.

As its docs recommend: `max_batch_size` with a short `batch_timeout` (https://lightning.ai/docs/litserve/features/batching),
more than one worker per device and `num_api_servers` for many small requests, `fast_queue` for a ZeroMQ transport
(https://lightning.ai/docs/litserve/speed-up-serving-by-200x). JSON with base64, as in its image examples, costs more
than the upload that it accepts as well, so it is given the upload. The form is read in the HTTP process.
"""

from typing import Any

import litserve as ls
from fastapi import Request

from benchmarks.peers.servers.classifier import Classifier, PeerSettings
from model.preprocess import PatchSequence


class Api(ls.LitAPI):  # type: ignore[misc]
    """JPEG to reply, in batches."""

    def setup(self, device: str) -> None:
        """Open the model in each worker process."""
        self._classifier = Classifier(PeerSettings.from_environment())

    def decode_request(self, request: Request) -> PatchSequence:
        """One form to patches; what arrives is the form of that request."""
        return self._classifier.read(request["file"].file.read())

    def batch(self, inputs: list[PatchSequence]) -> list[PatchSequence]:
        """Stacking is part of `predict`: images differ in length."""
        return list(inputs)

    def predict(self, x: list[PatchSequence]) -> list[dict[str, Any]]:
        """One batch."""
        return self._classifier.classify(x)

    def unbatch(self, output: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Already a list of replies."""
        return output

    def encode_response(self, output: dict[str, Any]) -> dict[str, Any]:
        """As it is."""
        return output


def main() -> None:
    """Serve."""
    settings = PeerSettings.from_environment()
    api = Api(max_batch_size=settings.max_batch, batch_timeout=0.001)
    server = ls.LitServer(
        api, accelerator="cpu", devices=1, workers_per_device=settings.workers, timeout=120, fast_queue=True
    )
    server.run(host="127.0.0.1", port=settings.port, num_api_servers=2, generate_client_file=False, log_level="warning")


if __name__ == "__main__":
    main()
