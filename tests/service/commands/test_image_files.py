from pathlib import Path

import pytest

from service.commands.image_files import expand
from service.errors import StartError


def test_folders_become_their_images_and_files_stay(tmp_path: Path) -> None:
    for name in ("b/z.JPG", "b/a.webp", "b/c/d.png", "b/notes.txt", "b/.hidden.png", "b/.git/e.png", "odd.dat"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "b" / "round").symlink_to(tmp_path / "b")
    names = ["odd.dat", "b", "missing.png"]
    found = [str(path.relative_to(tmp_path)) for path in expand([tmp_path / name for name in names])]
    assert found == ["odd.dat", "b/a.webp", "b/c/d.png", "b/z.JPG", "missing.png"]


def test_a_folder_without_images_is_said(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_bytes(b"")
    with pytest.raises(StartError, match="holds no image"):
        expand([tmp_path])
