"""Every setting, grouped by the part that uses it, with default, unit and meaning.

A flag of `patchserve serve` beats the environment variable `PATCHSERVE_<FIELD>`, which beats the default. A value out
of range, an unknown flag or an unknown `PATCHSERVE_` variable stops the start with one line.
"""

import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from pydantic_settings import BaseSettings, CliApp, CliPositionalArg, NoDecode, SettingsConfigDict, SettingsError

from model.headers import ImageLimits
from service.errors import StartError

_PREFIX = "PATCHSERVE_"


class _Group(BaseModel):
    model_config = ConfigDict(frozen=True)


def _whole(value: Any) -> Any:
    return int(value) if isinstance(value, str) and value.isdecimal() else value


class EngineSettings(_Group):
    """The model file and how ONNX Runtime runs it."""

    model: CliPositionalArg[Path | None] = Field(
        default=None,
        description="artifact (.onnx) to serve, or a folder of them; default: the bundled one. A checkpoint (a file, a "
        "folder, hf:ORG/NAME[@REVISION], timm:NAME, torchvision:NAME) is exported first, once",
    )
    default_model: str | None = Field(
        default=None,
        description="name of the model that answers requests which name none; default: that of the first file by name",
    )
    model_sha256: str | None = Field(
        default=None,
        pattern=r"^[0-9a-f]{64}(,[0-9a-f]{64})*$",
        description="SHA-256 of the only file that may be served, hexadecimal; several, separated by commas",
    )
    reload_timeout_s: float = Field(
        default=120.0, gt=0, description="time in which a child process must have tried a new model file, seconds"
    )
    cache_dir: Path | None = Field(
        default=None, description="where exported checkpoints are kept; default: patchserve in the user's cache folder"
    )
    export_options: str = Field(
        default="", description="options of python -m export.to_onnx for a checkpoint, such as '--precision float16'"
    )
    refresh_model: bool = Field(default=False, description="export a checkpoint again, at the newest revision")
    provider: Literal["cpu", "cuda", "tensorrt"] = Field(
        default="cpu", description="execution provider; never falls back"
    )
    device_id: int = Field(default=0, ge=0, le=255, description="GPU number")
    engine_threads: int = Field(
        default=0,
        ge=0,
        le=1024,
        description="threads of an engine run that has all cores; 0: one per usable core. "
        "N > 1 also means --engine-lanes 1, where that is not set",
    )
    engine_lanes: int = Field(
        default=0,
        ge=0,
        le=1024,
        description="batches that run at a time, each on one thread; an image alone still runs on all cores, for which "
        "the weights are in memory twice, unless --engine-threads is 1 or one thread takes less than 5 ms. "
        "1: one batch after the other, each on all cores; 0: on a CPU one per usable core, on a GPU 1",
    )
    engine_spinning: bool = Field(
        default=False, description="engine threads spin while idle: starves decoding on the same cores"
    )
    engine_timeout_s: float = Field(
        default=60.0,
        gt=0,
        description="an engine that runs one batch for longer has failed: its process is replaced, "
        "or ends with status 1 when it is the only one, seconds",
    )
    canary_interval_s: float = Field(
        default=30.0, ge=0, description="time between two checks that the model still answers well, seconds; 0: none"
    )
    gpu_memory_bytes: int = Field(default=0, ge=0, description="upper bound of the CUDA arena, bytes; 0: none")
    gpu_tf32: bool = Field(
        default=False, description="CUDA may round float32 factors to 10 bits: faster, and differs from the CPU"
    )
    length_buckets: str = Field(
        default="auto",
        pattern=r"^(auto|none|[1-9]\d{0,5}(,[1-9]\d{0,5})*)$",
        description="lengths in patches that batches are padded to, separated by commas, or none; auto: a quarter "
        "apart on a GPU, none on the CPU",
    )
    max_warm_up_shapes: int = Field(
        default=256, ge=0, description="shapes [images, patches] of the buckets that run before the service is ready"
    )
    cuda_graphs: bool = Field(
        default=False, description="replay each warmed-up shape as one CUDA graph; only with --provider cuda"
    )
    tensorrt_cache_dir: Path | None = Field(
        default=None, description="where TensorRT keeps its engines and timings; default: built at every start"
    )
    tensorrt_fp16: bool = Field(
        default=False, description="TensorRT may compute a float32 model in float16, but for LayerNorm"
    )
    tensorrt_max_images: int = Field(
        default=64, ge=1, le=65536, description="images of the largest batch that TensorRT prepares for"
    )

    def lanes(self, cores: int) -> int:
        """How many batches run at a time, given the cores that may be used.

        Threads of one run wait for each other at every operator; runs of one thread each do not.
        """
        if self.engine_lanes:
            return self.engine_lanes
        return cores if self.provider == "cpu" and self.engine_threads <= 1 else 1


class BatchSettings(_Group):
    """How requests become batches."""

    max_batch_patches: int | None = Field(
        default=None,
        ge=1,
        description="padded patches of one batch (images x longest); default: 2048, and 400 with several lanes, where "
        "larger ones leave the cache of a core",
    )
    max_batch_images: int = Field(default=64, ge=1, le=65536, description="images of one batch")
    batch_overhead_patches: int | None = Field(
        default=None,
        ge=0,
        description="padding of a batch accepted to save an engine run, patches; more for a GPU; default: 32, and 0 "
        "with several lanes, where another run costs next to nothing",
    )

    def batch_patches(self, lanes: int) -> int:
        """Padded patches of one batch."""
        if self.max_batch_patches is not None:
            return self.max_batch_patches
        return 2048 if lanes == 1 else 400  # docs/performance/engine.md, "Batches of a lane"

    def overhead_patches(self, lanes: int) -> int:
        """Padding of a batch that is cheaper than another run, patches."""
        if self.batch_overhead_patches is not None:
            return self.batch_overhead_patches
        return 32 if lanes == 1 else 0


class AdmissionSettings(_Group):
    """What is refused at the door."""

    max_queue_patches: int = Field(default=65_536, ge=1, description="patches accepted and not yet answered")
    max_upload_memory_bytes: int = Field(default=268_435_456, ge=1, description="bytes of all uploads held at a time")
    default_timeout_ms: int = Field(default=2000, ge=1, description="deadline from upload to answer, milliseconds")
    max_timeout_ms: int = Field(default=30_000, ge=1, description="longest deadline a caller may ask for, milliseconds")
    brown_out: bool = Field(
        default=True, description="under load give images fewer patches, if the model's accuracy with fewer is known"
    )
    brown_out_wait_ms: int = Field(
        default=500,
        ge=1,
        description="wait for the engine that is aimed at: over half of it for a second images get fewer patches, "
        "under a fifth for ten seconds more again, milliseconds",
    )
    brown_out_max_loss: float = Field(
        default=0.05, ge=0, le=1, description="accuracy that fewer patches may cost, as a share of all images"
    )
    overload_status: Annotated[Literal[429, 503], BeforeValidator(_whole)] = Field(
        default=429, description="status of a refusal; proxies may count 503 as a fault of this replica"
    )


class UploadSettings(_Group):
    """What a request body may be."""

    max_body_bytes: int = Field(default=10_485_760, ge=1, description="request body, bytes")
    max_files: int = Field(default=16, ge=1, le=1000, description="parts named 'file' in one request")
    max_fields: int = Field(
        default=4, ge=0, le=1000, description="other parts in one request; their content is ignored"
    )
    max_field_bytes: int = Field(default=65_536, ge=0, description="content of one other part, bytes")
    max_part_headers: int = Field(default=8, ge=1, le=100, description="header fields of one part")
    max_part_header_bytes: int = Field(default=4096, ge=64, description="one header field of a part, bytes")
    body_timeout_s: float = Field(default=15.0, gt=0, description="time for the whole body, seconds")
    min_upload_bytes_per_s: float = Field(
        default=16_384.0, gt=0, description="slowest average upload, bytes per second"
    )
    upload_grace_s: float = Field(default=2.0, gt=0, description="time before the upload rate counts, seconds")


def _split(value: Any) -> Any:
    return tuple(value.upper().replace(" ", "").split(",")) if isinstance(value, str) else value


def _split_origins(value: Any) -> Any:
    return tuple(filter(None, value.replace(" ", "").split(","))) if isinstance(value, str) else value


# As a browser writes them: in lower case, without a path. "*" is none of them.
Origin = Annotated[str, Field(pattern=r"^https?://[a-z0-9.\[\]:-]+$")]


class AccessSettings(_Group):
    """Who may ask."""

    api_keys_file: Path | None = Field(
        default=None,
        description="file with one line NAME:ROLE:SHA256[:RATE] for each API key; patchserve key new NAME makes one. "
        "Once there are keys, only probes, pages and /metrics are open without one",
    )
    api_keys: str = Field(default="", description="the same lines, separated by commas or spaces; for a few keys")
    allow_anonymous: bool = Field(
        default=False, description="the service itself needs no key, but admin routes do; a wrong key is still refused"
    )
    metrics_need_key: bool = Field(
        default=False, description="/metrics needs a key of role metrics or admin; it shows the names of the keys"
    )
    cors_origins: Annotated[tuple[Origin, ...], NoDecode, BeforeValidator(_split_origins)] = Field(
        default=(),
        description="web pages that may ask, as origins such as https://shop.example, separated by commas; default: "
        "none but the service's own",
    )


Format = Literal["JPEG", "PNG", "WEBP", "GIF", "BMP"]


class ImageSettings(_Group):
    """What an image may be, checked in its header before it is decoded."""

    formats: Annotated[tuple[Format, ...], NoDecode, BeforeValidator(_split)] = Field(
        default=("JPEG", "PNG", "WEBP"), description="image formats, separated by commas; also GIF, BMP"
    )
    max_pixels: int = Field(default=50_000_000, ge=1, description="width x height, pixels")
    max_side: int = Field(default=30_000, ge=1, description="longer side, pixels")
    max_aspect: float = Field(default=100.0, ge=1, description="longer side / shorter side")
    max_scans: int = Field(default=100, ge=1, description="scans of a JPEG")
    max_scan_pixels: int = Field(default=1_000_000_000, ge=1, description="width x height x scans of a JPEG, pixels")
    max_png_chunks: int = Field(default=5000, ge=1, description="chunks of a PNG")
    max_pixels_in_flight: int = Field(
        default=100_000_000,
        ge=1,
        description="pixels being decoded at a time by all processes, at 3 to 16 bytes of memory each; more wait for "
        "their turn, but one image is always decoded",
    )
    exact_decode: bool = Field(
        default=False,
        description="decode large JPEGs at full size even when a reduced one is enough, and resize with Pillow, as the "
        "models' sources do",
    )
    decode_threads: int = Field(
        default=0, ge=0, le=256, description="images decoded at a time by each process; 0: one per usable core in all"
    )
    decode_isolation: Literal["thread", "process"] = Field(
        default="thread",
        description="where images are decoded: in threads of the service, or each in a process that is killed over its "
        "limits, so that a file which crashes or hangs a decoder spoils nothing but its own request",
    )
    decode_timeout_s: float = Field(
        default=1.5,
        gt=0,
        le=600,
        description="time of one image in its decode process, seconds; below --default-timeout-ms the image is to "
        "blame (422), above it the request is late (504). A decode thread over it counts as hung",
    )
    decode_memory_bytes: int = Field(
        default=0,
        ge=0,
        description="address space of one decode process for its image, bytes; 0: what --max-pixels can need",
    )

    def image_limits(self) -> ImageLimits:
        """The limits in the terms of `model.headers`."""
        return ImageLimits(
            max_pixels=self.max_pixels,
            max_side=self.max_side,
            max_aspect=self.max_aspect,
            max_scans=self.max_scans,
            max_scan_pixels=self.max_scan_pixels,
            max_png_chunks=self.max_png_chunks,
            formats=self.formats,
        )


class HttpSettings(_Group):
    """The listening socket and the connections."""

    http_workers: int = Field(
        default=0,
        ge=0,
        le=256,
        description="processes that accept, decode and patchify in front of one engine process; "
        "1: everything in one process; 0: chosen from the cores",
    )
    replicas: int = Field(
        default=1,
        ge=0,
        le=256,
        description="complete services in processes of their own on the one port, each with an engine and its share of "
        "the cores, for small models on a CPU that is theirs alone; 0: one for each core if all models are small, else "
        "1. Not with several --http-workers",
    )
    patch_memory_bytes: int = Field(
        default=134_217_728,
        ge=1_048_576,
        description="address space that each of several HTTP processes shares with the engine process, in pieces for "
        "images of the largest model at the start, bytes; a reload to a model with larger images is refused",
    )
    host: str = Field(default="127.0.0.1", description="address to listen on")
    port: int = Field(default=8000, ge=0, le=65535, description="port to listen on; 0: any free one")
    max_connections: int = Field(
        default=4096,
        ge=1,
        description="open connections of each process; of those that come on top only probes are answered",
    )
    max_header_fields: int = Field(default=64, ge=1, le=10_000, description="header fields of one request")
    max_header_bytes: int = Field(default=32_768, ge=256, description="header block of one request, bytes")
    max_url_bytes: int = Field(default=8192, ge=64, description="address of one request, bytes")
    header_timeout_s: float = Field(default=5.0, gt=0, description="time for first byte and headers, seconds")
    keep_alive_timeout_s: int = Field(default=15, ge=1, description="idle time of a connection, seconds")
    linger_timeout_s: float = Field(
        default=3.0, ge=0, description="time for a refused body to run out before closing, seconds"
    )
    reply_timeout_s: float = Field(
        default=15.0, gt=0, description="time for a client that does not read to begin to, seconds"
    )
    drain_delay_s: float = Field(
        default=0.5, ge=0, description="serving goes on after SIGTERM, readiness is 503, seconds"
    )
    shutdown_grace_s: int = Field(
        default=8, ge=1, description="time for accepted requests to end after the drain delay, seconds"
    )


class LogSettings(_Group):
    """The log."""

    log_format: Literal["auto", "json", "console"] = Field(
        default="auto", description="auto: console on a terminal, else json"
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="least severe event logged"
    )
    slow_request_ms: int = Field(
        default=1000,
        ge=0,
        description="a request that takes longer from the end of its upload to its answer gets a warning with the time "
        "of every stage, at most five a second; 0: none, milliseconds",
    )


class TraceSettings(_Group):
    """Traces. The rest is said by the standard variables of OpenTelemetry, such as OTEL_EXPORTER_OTLP_ENDPOINT."""

    tracing: bool = Field(
        default=False,
        description="send OpenTelemetry traces as OTLP over HTTP; needs patchserve[otel]. Where to, as which service "
        "and how many say the standard OTEL_ variables, docs/observability.md",
    )


class Settings(
    TraceSettings,
    LogSettings,
    HttpSettings,
    ImageSettings,
    UploadSettings,
    AccessSettings,
    AdmissionSettings,
    BatchSettings,
    EngineSettings,
    BaseSettings,
):
    """Serve one model over HTTP. Every flag is also an environment variable: --max-files is PATCHSERVE_MAX_FILES."""

    model_config = SettingsConfigDict(
        frozen=True,
        extra="forbid",
        env_prefix=_PREFIX,
        cli_prog_name="patchserve serve",
        cli_kebab_case=True,
        cli_implicit_flags=True,
        cli_exit_on_error=False,
        cli_hide_none_type=True,
        protected_namespaces=(),
    )

    def http_processes(self, cores: int) -> int:
        """How many processes accept and decode, given the cores that may be used; 1 is the whole service in one.

        Threads of one process share an interpreter lock, but on two or three cores the engine decides how fast the
        service is: docs/performance/http-workers.md. On a CPU most cores belong to the engine.
        """
        if self.http_workers:
            return self.http_workers
        if cores < 4 or sys.platform != "linux":
            return 1
        return max(2, cores // (4 if self.provider == "cpu" else 2))


SettingsT = TypeVar("SettingsT", bound=Settings)


def read_settings(arguments: Sequence[str], environment: Mapping[str, str] = os.environ) -> Settings:
    """Settings from the command line over the environment over the defaults; see `read_kind`."""
    return read_kind(Settings, arguments, environment)


def read_kind(
    kind: type[SettingsT],
    arguments: Sequence[str] = (),
    environment: Mapping[str, str] = os.environ,
    values: Mapping[str, Any] = MappingProxyType({}),
) -> SettingsT:
    """Settings from the command line over the environment over the defaults.

    Args:
        kind: which settings there are.
        arguments: of its command; `--help` prints every setting and leaves.
        environment: where unknown `PATCHSERVE_` names are looked for.
        values: by name of the field, where there is no command line.

    Raises:
        StartError: naming the flag, the variable and the rule, in one line.
    """
    hint = f"see {kind.model_config['cli_prog_name']} --help"
    _refuse_unknown(kind, environment, hint)
    try:
        return CliApp.run(kind, cli_args=list(arguments), **values)
    except SettingsError as error:
        raise StartError(f"{str(error).removeprefix('error parsing CLI: ')}; {hint}") from None
    except ValidationError as error:
        raise StartError("; ".join(map(_explain, error.errors()))) from None


def _refuse_unknown(kind: type[Settings], environment: Mapping[str, str], hint: str) -> None:
    names = {name for name in environment if name.upper().startswith(_PREFIX)}
    known = {_PREFIX + field.upper() for field in kind.model_fields}
    if unknown := sorted(name for name in names if name.upper() not in known):
        raise StartError(f"no such setting: {', '.join(unknown)}; {hint}")


def _explain(problem: Any) -> str:
    field = str(problem["loc"][0]) if problem["loc"] else "settings"
    name = "MODEL" if field == "model" else f"--{field.replace('_', '-')}"
    return f"{name} (or {_PREFIX}{field.upper()}): {problem['msg']}, not {str(problem['input'])[:80]!r}"
