"""Every example of README, SECURITY.md and docs runs against one service, or stands in `NOT_RUN` with the reason.

make docs-test      with the dear ones: commands that start a service, make load, classify data sets or export
"""

import json
import re
import shlex
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from commanded import Commands
from page_examples import NO_EXAMPLES, ROOT, Example, Filling, Shell, blocks, examples, pages
from served_process import COMMAND, served

ELSEWHERE = {"docs/open-inference-protocol.md"}  # tests/service/v2/test_documentation.py, which compares the output too
VARYING = {"timing_ms", "request_id"}
DEAR = ("patchserve serve ", "patchserve batch ", "patchserve bench ", "patchserve key ", "python -m ")
NOT_RUN = {
    "sets up an environment, then does what the tests do in theirs": ("make serve", "make test"),
    "downloads packages": (
        "pip install '.[cpu,export]'",
        "pip install '.[cpu,train]'",
        "pip install 'patchserve[cpu,batch]'",
        "pip install 'patchserve[cpu,cluster]'",
        "pip install 'patchserve[client]'",
        "pip install 'patchserve[otel]'",
    ),
    "needs a Chromium": ("make page-test", "make page-screenshots"),
    "downloads the repository": ("git clone URL-OF-THIS-REPOSITORY patchserve && cd patchserve",),
    "downloads a checkpoint; tests/model/sources does it with a hub of its own": (
        "patchserve serve hf:ORG/NAME",
        "python -m export.to_onnx hf:ORG/NAME -o model.onnx",
        "python -m export.to_onnx hf:ORG/NAME --explain",
        "patchserve serve hf:ORG/NAME --export-options=--explain",
        "python -m model.figures hf:ORG/NAME --images photos/ --output figures/",
    ),
    "trains; tests/service/test_from_photos_to_answers.py and tests/model/training do it in small": (
        "patchserve train photos/train --variant Ti/16 --output runs/photos",
        "patchserve train photos/train --variant Ti/16 --mimetic --pooling average --output runs/scratch",
        "patchserve train photos/ --from hf:ORG/NAME --output runs/photos && patchserve export runs/photos -o "
        "photos.onnx && patchserve serve photos.onnx",
        "patchserve train photos/ --from hf:ORG/NAME --output runs/photos --processes 2",
        "python -m model.evaluate runs/photos/model.safetensors --data photos/test --dataset 'photos test' "
        "--max-patches 196,100,49 --write",
        "python -m model.transfer hf:ORG/NAME photos/train photos/test --protocols few-shot,linear,full",
        "patchserve train photos/train --variant R26+S/32:2d --output runs/hybrid",
        "patchserve train photos/train --variant Ti/16 --teacher runs/large --output runs/small",
        "python -m model.pretrain photos/ --variant Ti/16 --target colour --output runs/pretrained && "
        "patchserve train photos/train --from runs/pretrained/model.safetensors --output runs/photos",
        "python -m model.resnet --variant R20x0.25 --epochs 30 --output runs/resnet",
        "python -m benchmarks.paper.run",
        "python -m benchmarks.paper.report docs/paper/results.jsonl",
    ),
    "needs a trained checkpoint and labelled photographs; tests/export does it with small ones": (
        "patchserve export runs/photos -o photos.onnx --report",
        "python -m export.to_onnx model.safetensors --precision int8 --calibrate photos/ --accuracy-folder validation/",
    ),
    "needs Docker: make docker-test": (
        "docker compose --profile cpu up --build --detach --wait",
        "docker run --read-only --cap-drop ALL --security-opt no-new-privileges --memory 3g --pids-limit 256 "
        "-p 127.0.0.1:8000:8000 -v ./keys:/run/patchserve-keys:ro "
        "-e PATCHSERVE_API_KEYS_FILE=/run/patchserve-keys -e PATCHSERVE_DECODE_THREADS=2 patchserve:cpu",
    ),
    "needs Ray: make cluster-test": (
        "patchserve batch photos/ -o results.parquet --ray --ray-actors 2",
        "patchserve cluster serve vit.onnx --max-replicas 4",
        "patchserve cluster serve vit.onnx --max-replicas 8 --address auto --host 0.0.0.0",
        "serve run service.cluster:build model=/models/vit.onnx max_replicas=8",
    ),
    "needs a GPU": (
        "python -m benchmarks.gpu",
        "python -m benchmarks.gpu --provider tensorrt",
        "python -m pytest -m gpu",
    ),
}
LEFT_OUT = {command for commands in NOT_RUN.values() for command in commands}


def found() -> list[Example]:
    """All examples but those that another test runs."""
    return [each for page in pages() for each in examples(page) if each.page not in ELSEWHERE]


def cases(language: str) -> list[Any]:
    return [
        pytest.param(each, id=str(each), marks=[pytest.mark.docs] if each.text.startswith(DEAR) else [])
        for each in found()
        if each.language == language and each.text not in LEFT_OUT
    ]


def test_every_block_says_what_it_is() -> None:
    """A block without a language would be neither run nor left out."""
    known = NO_EXAMPLES | {"sh", "console", "python"}
    assert {(page.name, language) for page in pages() for language, _ in blocks(page) if language not in known} == set()


@pytest.mark.parametrize("page", pages(), ids=lambda page: page.name)
def test_no_block_is_overlooked(page: Path) -> None:
    """One that is indented, fenced by other signs, or not closed."""
    fences = re.findall(r"^[ >]*(?:```|~~~)", page.read_text("utf-8"), re.MULTILINE)
    assert len(fences) == 2 * len(blocks(page))


def test_what_is_left_out_is_on_a_page() -> None:
    assert LEFT_OUT - {each.text for each in found()} == set()


@pytest.mark.parametrize("example", cases("python"))
def test_a_program_runs(example: Example, filled_in: Filling, place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    exec(compile(filled_in(example.text), example.page, "exec"), {"__name__": "__main__"})  # noqa: S102
    out = capsys.readouterr().out
    assert bool(out) == ("print(" in example.text)
    assert "failed" not in out


@pytest.mark.parametrize("example", cases("sh"))
def test_a_command_runs(example: Example, shell: Shell, commands: Commands, filled_in: Filling, place: Path) -> None:
    text = filled_in(example.text)
    if text.startswith("patchserve serve "):
        start(text)
        return
    status, out, error = commands(*words(text)) if is_plain(text) else shell(text)
    assert status == 0, out + error
    written = re.findall(r"(?:--output|-o|--html|>>?) (\S+)", text)
    assert out or written or text.startswith(("kill ", "export ")), "it said nothing and wrote nothing"
    assert [name for name in written if not (place / name).exists()] == []


def is_plain(text: str) -> bool:
    """Whether it needs neither a shell nor a process of its own, which takes a second."""
    return text.startswith("patchserve ") and not re.search(r"[|<>&;$`]", text)


def words(text: str) -> list[str]:
    """The arguments, wildcards resolved."""
    split = shlex.split(text)[1:]
    return [name for word in split for name in (sorted(map(str, Path().glob(word))) if "*" in word else [word])]


def start(command: str) -> None:
    """Start a service as the command says, but on any free port."""
    arguments = words(re.sub(r" --port \d+", "", command))
    with served(Path(), command=[*COMMAND, *arguments], variables={"PYTHONPATH": str(ROOT)}) as process:
        assert process.get("/readyz")[0] == 200


def is_like(found: Any, shown: Any) -> bool:
    """Whether an answer is the one of a page, but for digits, times, names of requests, and what "..." leaves out."""
    if isinstance(shown, dict):
        return found.keys() == shown.keys() and all(
            name in VARYING or is_like(found[name], value) for name, value in shown.items()
        )
    if isinstance(shown, list):
        return all(any(is_like(each, wanted) for each in found) for wanted in shown)
    if isinstance(shown, str):
        return bool(found.startswith(shown.removesuffix("...")))
    return bool(found == pytest.approx(shown, abs=1e-4)) if isinstance(shown, float) else bool(found == shown)


def answers() -> list[Any]:
    """Commands with the JSON that stands below them."""
    return [
        pytest.param(command, answer, id=f"{page.name}: {command[:60]}")
        for page in pages()
        for (_, command), (language, answer) in pairwise(blocks(page))
        if language == "json"
    ]


@pytest.mark.parametrize(("command", "answer"), answers())
def test_an_answer_is_the_one_shown(command: str, answer: str, shell: Shell, filled_in: Filling) -> None:
    _, out, _ = shell(filled_in(command.removeprefix("$ ")))
    assert is_like(json.loads(out), json.loads(answer)), out
