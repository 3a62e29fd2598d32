"""The real client of the hub against a small server: what is downloaded, and what each failure says."""

import json
import logging
from collections.abc import Iterator
from pathlib import Path

import huggingface_hub
import pytest
from hub_server import COMMIT, Hub, running_hub
from huggingface_hub import constants

from model.checkpoints.loading import CheckpointError
from model.sources.hub import fetch
from model.sources.source import Reference, parse_source

TIMM = {
    "config.json": json.dumps({"architecture": "vit_tiny_patch16_224", "pretrained_cfg": {}}).encode(),
    "model.safetensors": bytes(range(256)) * 4000,
    "README.md": b"---\ntags:\n- image-classification\nlicense: apache-2.0\n---\n# A model\n",
}
TRANSFORMERS = {
    "config.json": b'{"model_type": "vit"}',
    "preprocessor_config.json": b"{}",
    "pytorch_model.bin.index.json": b'{"weight_map": {"a": "pytorch_model-1.bin", "b": "pytorch_model-2.bin"}}',
    "pytorch_model-1.bin": b"one",
    "pytorch_model-2.bin": b"two",
}


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """Two repositories. The client reads HF_ENDPOINT and its kin when it is imported, so the values are set here."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_IMPLICIT_TOKEN", True)
    monkeypatch.setattr("huggingface_hub.file_download.time.sleep", lambda _: None)  # between two attempts
    monkeypatch.setattr(logging.getLogger("huggingface_hub"), "disabled", True)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_PROGRESS_BARS", True)
    hub = Hub({"timm/tiny": dict(TIMM), "org/vit": dict(TRANSFORMERS)})
    with running_hub(hub):
        monkeypatch.setattr(constants, "ENDPOINT", hub.endpoint)
        monkeypatch.setattr(
            constants, "HUGGINGFACE_CO_URL_TEMPLATE", hub.endpoint + "/{repo_id}/resolve/{revision}/{filename}"
        )
        yield hub
    huggingface_hub.close_session()


def failure(text: str) -> str:
    with pytest.raises(CheckpointError) as caught:
        fetch(parse_source(text))
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_a_timm_repository_comes_with_its_commit_and_licence(hub: Hub) -> None:
    bundle = fetch(parse_source("timm:tiny"))
    assert bundle.origin == f"hf:timm/tiny@{COMMIT}"
    assert (bundle.name, bundle.revision, bundle.licence) == ("tiny", COMMIT, "apache-2.0")
    assert [path.read_bytes() for path in bundle.weights] == [TIMM["model.safetensors"]]
    assert bundle.config is not None
    assert bundle.config.read_bytes() == TIMM["config.json"]
    assert bundle.processor is None
    assert not any("preprocessor_config" in path for _, path, _ in hub.requests)


def test_a_transformers_repository_comes_with_its_processor_and_all_parts(hub: Hub) -> None:
    bundle = fetch(parse_source("hf:org/vit@main"))
    assert bundle.processor is not None
    assert [path.read_bytes() for path in bundle.weights] == [b"one", b"two"]


def test_the_second_time_works_without_a_network(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    first = [fetch(parse_source(text)) for text in ("timm:tiny", "hf:org/vit")]
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    hub.requests.clear()
    assert [fetch(parse_source(text)) for text in ("timm:tiny", "hf:org/vit")] == first
    assert hub.requests == []


def test_a_download_that_is_cut_is_resumed_where_it_stopped(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 1000)  # what the client takes in at a time; else 10 MB
    hub.cut_after = [2500, 70_000]
    bundle = fetch(parse_source("timm:tiny"))
    assert bundle.weights[0].read_bytes() == TIMM["model.safetensors"]
    assert hub.downloads("model.safetensors") == [None, "bytes=2000-", "bytes=72000-"]


def test_a_download_that_is_cut_again_and_again_says_so(hub: Hub) -> None:
    hub.cut_after = [0] * 20
    assert "broke off" in failure("timm:tiny")


def test_bytes_with_another_hash_are_refused_and_not_kept(hub: Hub) -> None:
    hub.wrong = {"model.safetensors"}
    assert "model.safetensors of hf:timm/tiny is damaged: its hash is" in failure("timm:tiny")
    hub.wrong = set()
    assert fetch(parse_source("timm:tiny")).weights[0].read_bytes() == TIMM["model.safetensors"]


def test_a_repository_that_is_not_there(hub: Hub) -> None:
    message = failure("hf:nobody/nothing")
    assert "hf:nobody/nothing does not exist, or is private" in message
    assert "hf auth login" in message
    assert "hf:timm/vit_x does not exist (timm's repositories have a tag" in failure("timm:vit_x")


def test_a_gated_repository_says_how_to_get_in(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.gated = {"timm/tiny"}
    message = failure("timm:tiny")
    assert f"is gated: accept its terms at {hub.endpoint}/timm/tiny" in message
    assert "hf auth login" in message
    assert "HF_TOKEN" in message
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_IMPLICIT_TOKEN", False)
    monkeypatch.setenv("HF_TOKEN", "hf_a_token_for_a_test")
    assert fetch(parse_source("timm:tiny")).revision == COMMIT


def test_a_revision_that_is_not_there(hub: Hub) -> None:
    assert "has no revision 'v9'" in failure("timm:tiny@v9")


@pytest.mark.parametrize(
    ("missing", "message"),
    [
        ("config.json", "hf:org/vit has no config.json"),
        ("pytorch_model.bin.index.json", "has none of model.safetensors"),
        ("pytorch_model-2.bin", "lacks pytorch_model-2.bin, which its index"),
    ],
)
def test_a_file_that_is_not_there(hub: Hub, missing: str, message: str) -> None:
    del hub.repositories["org/vit"][missing]
    assert message in failure("hf:org/vit")


def test_no_network_and_nothing_in_the_cache(monkeypatch: pytest.MonkeyPatch, hub: Hub) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert "not all in the cache, and HF_HUB_OFFLINE is set" in failure("timm:tiny")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(
        constants, "HUGGINGFACE_CO_URL_TEMPLATE", "http://127.0.0.1:9/{repo_id}/resolve/{revision}/{filename}"
    )
    assert "cannot be reached" in failure("timm:tiny")


def test_an_index_may_not_lead_out_of_the_repository(hub: Hub) -> None:
    hub.repositories["org/vit"]["pytorch_model.bin.index.json"] = b'{"weight_map": {"a": "../../../etc/x.bin"}}'
    with pytest.raises(CheckpointError, match=r"names '../../../etc/x\.bin', which is no file of weights"):
        fetch(Reference("hub", "org/vit"))
