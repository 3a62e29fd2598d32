"""The same service on Ray Serve: replicas on many machines behind Ray's ingress.

    patchserve cluster serve MODEL --max-replicas 8                     a Ray of its own, or --address of a running one
    serve run service.cluster:build model=/models/vit.onnx max_replicas=8        Ray's own command, or a RayService

Batching, admission and deadlines are those of each replica; Ray routes, starts, replaces and ends replicas.
"""

import signal
import threading
from typing import Any

import ray
from ray import serve
from ray.serve.config import AutoscalingConfig, AutoscalingPolicy
from ray.serve.schema import LoggingConfig

from service.cluster_settings import ClusterSettings, read_cluster_settings
from service.errors import StartError
from service.replica import Replica
from service.scaling import QueueScaling

_LOOPBACK = "127.0.0.1"
_LOOK_BACK_S = 15.0  # Ray collects every ten
_HEALTH_PERIOD_S = 5.0
_MARGIN_S = 2.0


def build(arguments: dict[str, Any]) -> serve.Application:
    """The application for `serve run`, `serve deploy` and a `RayService`.

    Args:
        arguments: settings by name, such as `max_replicas`; see `patchserve cluster serve --help`.

    Raises:
        StartError: naming the setting and the rule, in one line.
    """
    return build_application(read_cluster_settings(values=arguments))


def build_application(settings: ClusterSettings) -> serve.Application:
    """The application of the settings."""
    deployment = serve.deployment(
        Replica,
        name="Replica",
        ray_actor_options={"num_cpus": settings.replica_cpus, "num_gpus": settings.gpus()},
        # So many that each replica's own admission decides: what Ray holds back waits in its proxy, with no deadline.
        max_ongoing_requests=settings.max_connections,
        autoscaling_config=_autoscaling(settings),
        health_check_period_s=_HEALTH_PERIOD_S,
        graceful_shutdown_wait_loop_s=settings.drain_delay_s,
        graceful_shutdown_timeout_s=settings.drain_delay_s + settings.shutdown_grace_s + _MARGIN_S,
        logging_config=LoggingConfig(enable_access_log=False),  # the service writes a line for each request
    )
    return deployment.bind(settings.for_replica())


def _autoscaling(settings: ClusterSettings) -> AutoscalingConfig:
    policy = AutoscalingPolicy(
        policy_function=QueueScaling, policy_kwargs={"target_wait_s": settings.target_wait_ms / 1000}
    )
    return AutoscalingConfig(
        min_replicas=settings.min_replicas,
        max_replicas=settings.max_replicas,
        upscale_delay_s=settings.upscale_delay_s,
        downscale_delay_s=settings.downscale_delay_s,
        look_back_period_s=_LOOK_BACK_S,
        policy=policy,
    )


def serve_cluster(settings: ClusterSettings) -> None:
    """Deploy, and take the application away again at SIGTERM or Ctrl-C, when what was accepted is answered.

    Raises:
        StartError: if there is no such cluster, or if the replicas do not start.
    """
    _connect(settings)
    try:
        _deploy(settings)
        print(f"patchserve listens on http://{settings.host}:{settings.port}, on Ray Serve", flush=True)  # noqa: T201
        _wait_for_signal()
        serve.delete(settings.app_name)
    finally:
        if settings.address is None:
            serve.shutdown()
        ray.shutdown()


def _wait_for_signal() -> None:
    stopped = threading.Event()
    for each in (signal.SIGINT, signal.SIGTERM):
        signal.signal(each, lambda *_: stopped.set())
    stopped.wait()


def _connect(settings: ClusterSettings) -> None:
    try:
        if settings.address is None:
            # One machine is all there is, so its parts need not find each other by an address that others reach.
            ray.init(address="local", include_dashboard=False, _node_ip_address=_LOOPBACK)
        else:
            ray.init(address=settings.address)
    except Exception as error:  # noqa: BLE001 - it raises this very class if Ray does not start in time
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        where = f"no Ray cluster at --address {settings.address}" if settings.address else "Ray does not start"
        raise StartError(f"{where}: {reason}") from None


def _deploy(settings: ClusterSettings) -> None:
    serve.start(
        http_options={
            "host": settings.host,
            "port": settings.port,
            "keep_alive_timeout_s": settings.keep_alive_timeout_s,
        }
    )
    try:
        serve.run(build_application(settings), name=settings.app_name)
    except RuntimeError as error:
        raise StartError(f"the replicas did not start: {error}") from None
