"""packages.lock: what is written is read, what differs is named, before anything is downloaded."""

from __future__ import annotations

import importlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

HERE = Path(__file__).resolve().parents[2] / "image-build"
POLICY = """libc6:
  Installed: (none)
  Candidate: 2.41-12+deb13u5
  Version table:
     2.41-12+deb13u5 500
rauc:
  Installed: (none)
  Candidate: 1.13-3
  Version table:
     1.13-3 500
gone:
  Installed: (none)
  Candidate: (none)
"""
FOUND = {"libc6": "2.41-12+deb13u5", "rauc": "1.13-3"}


@pytest.fixture(scope="module")
def lock() -> Iterator[ModuleType]:
    sys.path.insert(0, str(HERE))
    yield importlib.import_module("lock")
    sys.path.remove(str(HERE))
    for name in ("lock", "work"):
        sys.modules.pop(name, None)  # another file may have taken it out


def test_what_is_written_is_read(lock: ModuleType, tmp_path: Path) -> None:
    path = tmp_path / "packages.lock"
    lock.write(path, FOUND)
    assert lock.read(path) == FOUND
    lock.check(path, FOUND)


def test_what_differs_is_named_and_what_to_do(lock: ModuleType, tmp_path: Path) -> None:
    path = tmp_path / "packages.lock"
    lock.write(path, FOUND | {"udev": "257.13-1"})
    with pytest.raises(lock.BuildError) as refused:
        lock.check(path, FOUND | {"rauc": "1.14-1", "dbus": "1.16"})
    assert str(refused.value) == (
        "packages.lock: 3 of 3 packages differ: dbus none is now 1.16, rauc 1.13-3 is now 1.14-1,"
        " udev 257.13-1 is now none: `make image LOCK=new` takes what there is now"
    )


def test_many_differences_are_counted(lock: ModuleType, tmp_path: Path) -> None:
    path = tmp_path / "packages.lock"
    lock.write(path, {f"p{n}": "1" for n in range(40)})
    with pytest.raises(lock.BuildError, match=r"40 of 40 packages differ: .* and 34 more: `make"):
        lock.check(path, {f"p{n}": "2" for n in range(40)})


def test_what_apt_would_take_is_read(lock: ModuleType) -> None:
    assert lock.candidates(POLICY) == FOUND | {"gone": "(none)"}


def test_a_lock_that_is_missing_or_none_is_said(lock: ModuleType, tmp_path: Path) -> None:
    with pytest.raises(lock.BuildError, match=r"^packages\.lock: missing: `make image LOCK=new`"):
        lock.read(tmp_path / "packages.lock")
    (tmp_path / "packages.lock").write_text("# a lock\nlibc6 2.41\nrauc\n")
    with pytest.raises(lock.BuildError, match=r"line 3: 'rauc': a name and a version$"):
        lock.read(tmp_path / "packages.lock")


def test_as_a_program_it_ends_the_build_before_the_download(
    lock: ModuleType, tmp_path: Path
) -> None:
    lock.write(tmp_path / "packages.lock", FOUND | {"gone": "1.0"})
    (tmp_path / "candidates").write_text(POLICY)
    done = subprocess.run(
        [sys.executable, HERE / "lock.py", tmp_path / "packages.lock", tmp_path / "candidates"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert "1 of 3 packages differ: gone 1.0 is now (none)" in done.stderr


def test_every_package_that_is_asked_for_is_locked(lock: ModuleType) -> None:
    names = (HERE / "packages.txt").read_text().splitlines()
    asked = {name for name in names if name and not name.startswith("#")}
    assert asked <= lock.read(HERE / "packages.lock").keys()
