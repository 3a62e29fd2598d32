"""From one replica to two and back, by queued patches, on a local Ray."""

import pytest
from cluster_process import Load, cluster, wait_until

pytestmark = pytest.mark.cluster


def test_a_queue_brings_a_replica_and_its_end_takes_it_away() -> None:
    delays = ["--upscale-delay-s=1", "--downscale-delay-s=1"]
    with cluster("--max-replicas=2", "--target-wait-ms=20", *delays) as running:
        assert len(running.replicas()) == 1
        with Load(running, clients=32) as load:
            wait_until(lambda: len(running.replicas()) == 2)
            at_two = load.outcomes["200"]
            wait_until(lambda: load.outcomes["200"] > at_two + 200)
        with Load(running, clients=2, pause_s=0.2) as trickle:
            wait_until(lambda: len(running.replicas()) == 1)
        assert set(load.outcomes) == set(trickle.outcomes) == {"200"}
