"""The table of metrics in docs/observability.md is that of the registry."""

import re
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

from prometheus_client import Counter, Histogram
from tiny_artifact import write_artifact

from service.app import create_app
from service.metrics import Metrics
from service.processes.board import Board
from service.processes.http_process import watch_engine
from service.settings import Settings

PAGE = Path(__file__).parents[2] / "docs" / "observability.md"


def rows(metrics: Metrics) -> Iterator[str]:
    kept = {each._name: each for each in vars(metrics).values() if hasattr(each, "_labelnames")}
    for family in metrics.collect():
        metric = kept.get(family.name)
        labels = ", ".join(f"`{name}`" for name in metric._labelnames) if metric is not None else ""
        ending = "_total" if isinstance(metric, Counter) else ""
        kind = "histogram" if isinstance(metric, Histogram) else family.type
        yield f"| `{family.name}{ending}` | {kind} | {labels} | {family.documentation} |"


def test_every_metric_is_in_the_table_and_no_other(tmp_path: Path) -> None:
    one = create_app(Settings(model=write_artifact(tmp_path / "tiny.onnx"))).state.metrics
    several = Metrics()
    watch_engine(several, cast("Any", SimpleNamespace(board=Board(1), seats=(), engine_up=lambda: True)))
    written = {line for line in PAGE.read_text().splitlines() if re.match(r"\| `patchserve_\w+` \| \w+ \|", line)}
    assert written == {*rows(one), *rows(several)}
