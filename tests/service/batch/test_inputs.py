from pathlib import Path

import pytest

from service.batch.inputs import find_inputs
from service.errors import BatchError


@pytest.fixture(autouse=True)
def shards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("a-09.tar", "a-10.tar", "b.PARQUET", "list.txt", "odd{1}.tar"):
        (tmp_path / name).touch()
    (tmp_path / "photos").mkdir()


@pytest.mark.parametrize(
    ("argument", "names"),
    [
        ("a-{09..10}.tar", ["a-09.tar", "a-10.tar"]),
        ("{list.txt,b.PARQUET}", ["list.txt", "b.PARQUET"]),
        ("{a,a}-{10,09}.tar", ["a-10.tar", "a-09.tar", "a-10.tar", "a-09.tar"]),
        ("a-*.tar", ["a-09.tar", "a-10.tar"]),
        ("{a,q}-*.tar", ["a-09.tar", "a-10.tar"]),
        ("odd{1}.tar", ["odd{1}.tar"]),
    ],
)
def test_braces_and_wildcards_are_resolved(argument: str, names: list[str]) -> None:
    assert [source.name for source in find_inputs([argument])] == names


def test_the_kind_follows_from_the_name() -> None:
    kinds = [source.kind for source in find_inputs(["photos", "list.txt", "b.PARQUET", "a-09.tar"])]
    assert kinds == ["folder", "list", "parquet", "tar"]


def test_numbers_are_as_wide_as_they_are_written() -> None:
    with pytest.raises(BatchError, match=r"there is no x-1\.tar"):
        find_inputs(["x-{1..10}.tar"])


def test_a_wildcard_without_a_match_is_refused() -> None:
    with pytest.raises(BatchError, match=r"there is no c-\*\.tar"):
        find_inputs(["c-*.tar"])


def test_a_changed_file_is_another_input(tmp_path: Path) -> None:
    [before] = find_inputs(["a-09.tar"])
    state = before.state()
    (tmp_path / "a-09.tar").write_text("x")
    assert before.state() != state
