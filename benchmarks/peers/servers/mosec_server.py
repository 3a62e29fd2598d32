"""mosec: one stage of `PEER_WORKERS` processes with dynamic batching behind its Rust HTTP server; raw JPEG bodies.

As its docs recommend: `append_worker(num=..., max_batch_size=..., max_wait_time=...)`, and `deserialize` overridden so
that the body of the request is the input (https://mosecorg.github.io/mosec/reference/interface.html). Decoding and
inference share a process: two processes keep both cores busy, and no patches are pickled between stages. The wait for
a batch is 1 ms, its shortest: workers that are busy let the queue grow anyway. Its timeout of 3 s is raised to 120 s.
"""

from typing import Any

from mosec import Server, Worker, get_logger
from mosec.errors import ValidationError

from benchmarks.peers.servers.classifier import Classifier, PeerSettings

_log = get_logger()


class Inference(Worker):
    """JPEG to reply, in batches."""

    def __init__(self) -> None:
        super().__init__()
        self._classifier = Classifier(PeerSettings.from_environment())

    def deserialize(self, data: bytes) -> bytes:
        """The body is the file."""
        if not data:
            raise ValidationError("no file")
        return data

    def forward(self, data: list[bytes]) -> list[dict[str, Any]]:
        """One batch."""
        return self._classifier.classify_files(data)


def main() -> None:
    """Serve; mosec reads the address from MOSEC_ADDRESS, MOSEC_PORT and MOSEC_TIMEOUT."""
    settings = PeerSettings.from_environment()
    server = Server()
    server.append_worker(Inference, num=settings.workers, max_batch_size=settings.max_batch, max_wait_time=1)
    server.run()


if __name__ == "__main__":
    main()
