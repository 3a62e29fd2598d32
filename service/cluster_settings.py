"""The settings of `patchserve cluster serve`: those of the service, for every replica, and those of the cluster."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from service.artifacts import artifact_of
from service.errors import StartError
from service.settings import Settings, read_kind


class ClusterSettings(Settings):
    """Serve one model from many machines, on Ray Serve. Every flag of patchserve serve is one here as well."""

    model_config = SettingsConfigDict(cli_prog_name="patchserve cluster serve")

    address: str | None = Field(
        default=None,
        description="of a running Ray cluster, such as auto or ray-head:6379; default: a Ray of its own on this "
        "machine, which ends with the command",
    )
    app_name: str = Field(default="patchserve", min_length=1, description="of the application in Ray Serve")
    min_replicas: int = Field(default=1, ge=1, description="replicas without load")
    max_replicas: int = Field(default=1, ge=1, description="replicas under load")
    replica_cpus: int = Field(
        default=1, ge=1, description="cores that Ray keeps for one replica; its threads follow, unless they are set"
    )
    replica_gpus: float | None = Field(
        default=None, ge=0, description="GPUs of one replica, or a share of one; default: 1 unless --provider is cpu"
    )
    target_wait_ms: int = Field(
        default=200,
        ge=1,
        description="queued patches of a replica that are aimed at, as the time in which its engine answers them: more "
        "replicas above, fewer below, milliseconds",
    )
    upscale_delay_s: float = Field(default=10.0, ge=0, description="how long the queue must be too long, seconds")
    downscale_delay_s: float = Field(default=120.0, ge=0, description="how long it must be too short, seconds")
    haproxy: bool = Field(
        default=False,
        description="HAProxy in front of the replicas instead of Ray's own proxy in Python; a running Ray cluster has "
        "chosen already, by RAY_SERVE_ENABLE_HA_PROXY",
    )

    def gpus(self) -> float:
        """GPUs of one replica. Ray lets it see no others, so that `device_id` counts from 0 among them."""
        if self.replica_gpus is not None:
            return self.replica_gpus
        return 0.0 if self.provider == "cpu" else 1.0

    def ray_variables(self) -> dict[str, str]:
        """What Ray reads from the environment when it is imported, and hands to all that it starts."""
        return {
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_SERVE_ENABLE_HA_PROXY": str(int(self.haproxy)),
            # Otherwise a replica behind HAProxy takes 30 seconds to end, however little it has to do.
            "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": str(self.drain_delay_s),
        }

    def for_replica(self) -> Settings:
        """As one replica has them. Ray counts cores and binds nobody to them: threads would be started for all.

        Those of the cluster are left behind, for what a replica starts takes those of the service alone.
        """
        cores = self.replica_cpus
        threads = {
            "engine_lanes": self.lanes(cores),
            "engine_threads": self.engine_threads or cores,
            "decode_threads": self.decode_threads or cores,
        }
        # The replica has another working directory.
        paths = {name: path.absolute() for name, path in self if isinstance(path, Path)}
        service = {name: value for name, value in self if name in Settings.model_fields}
        return Settings.model_construct(**service | threads | paths)


def read_cluster_settings(arguments: Sequence[str] = (), values: Mapping[str, Any] | None = None) -> ClusterSettings:
    """From a command line, or from values by name; a checkpoint is exported here and now.

    Raises:
        StartError: naming the flag and the rule, in one line.
    """
    settings = read_kind(ClusterSettings, arguments, values=values or {})
    if settings.min_replicas > settings.max_replicas:
        raise StartError(f"--min-replicas is {settings.min_replicas}, over --max-replicas, {settings.max_replicas}")
    return settings.model_copy(update={"model": artifact_of(settings)})
