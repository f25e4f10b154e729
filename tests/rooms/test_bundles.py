"""Bundles on the controller: read by the real rauc where it is, copied whole, given out by part."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from appliance.controller.bundles import PART_BYTES, Bundles, Found, keep, look
from appliance.errors import UpdateError

IMAGE_BUILD = Path(__file__).resolve().parents[2] / "image-build"
CONTENT = b"hsqs" + bytes(2 * PART_BYTES)
DIGEST = hashlib.sha256(CONTENT).digest()
MAKE = """
import sys; from pathlib import Path; import bundle
here = Path(sys.argv[1])
pairs = []
for name in ("one", "two"):
    (here / name).mkdir()
    pairs.append(bundle.keys(here / name))
for name in ("root", "boot"):
    (here / name).write_bytes(bytes(10_000))
bundle.make(here / "real.raucb", here / "root", here / "boot", here / "work", version="0.2.0",
            signed_by=pairs[0])
"""


def only(folder: Path, *programs: str) -> str:
    """A PATH on which there are these programs and no others."""
    folder.mkdir()
    for name in programs:
        found = shutil.which(name)
        assert found is not None
        (folder / name).symlink_to(found)
    return str(folder)


@pytest.mark.skipif(shutil.which("rauc") is None, reason="rauc is missing: apt-get install rauc")
def test_a_bundle_that_rauc_made_is_read_with_and_without_rauc(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = subprocess.run(
        [sys.executable, "-c", MAKE, str(tmp_path)],
        cwd=IMAGE_BUILD, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert made.returncode == 0, made.stderr
    real, certificate, other = (
        tmp_path / name for name in ("real.raucb", "one/update.crt", "two/update.crt")
    )
    assert look(real, None) == Found((0, 2, 0, 0), signed=False)
    assert look(real, certificate) == Found((0, 2, 0, 0), signed=True)
    with pytest.raises(UpdateError, match=r"rauc: .*signature"):
        look(real, other)
    changed = tmp_path / "changed.raucb"
    changed.write_bytes(real.read_bytes().replace(b"hsqs", b"hsqs")[:-100] + bytes(100))
    with pytest.raises(UpdateError, match="rauc"):
        look(changed, certificate)
    monkeypatch.setenv("PATH", only(tmp_path / "alone", "unsquashfs"))
    assert look(real, None) == Found((0, 2, 0, 0), signed=False)
    with pytest.raises(UpdateError, match="rauc is missing, which checks the signature"):
        look(real, certificate)
    cut = tmp_path / "cut.raucb"
    cut.write_bytes(real.read_bytes()[:200])
    with pytest.raises(UpdateError, match="unsquashfs"):
        look(cut, None)


def test_a_tool_that_is_missing_is_named_with_its_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "bundle").write_bytes(CONTENT)
    monkeypatch.setenv("PATH", only(tmp_path / "none"))
    with pytest.raises(UpdateError, match="apt-get install rauc"):
        look(tmp_path / "bundle", None)


def test_what_is_longer_than_a_bundle_may_be_is_refused_unread(tmp_path: Path) -> None:
    with (tmp_path / "long").open("wb") as file:
        file.write(b"hsqs")
        file.truncate(2**30)
    with pytest.raises(UpdateError, match="1073741824 bytes: at most 536870912"):
        look(tmp_path / "long", None)


def test_a_copy_is_whole_or_not_there(tmp_path: Path) -> None:
    (tmp_path / "bundle").write_bytes(CONTENT)
    folder = tmp_path / "updates"
    assert keep(tmp_path / "bundle", folder) == (DIGEST, len(CONTENT))
    assert keep(tmp_path / "bundle", folder) == (DIGEST, len(CONTENT))
    (kept,) = folder.iterdir()
    assert kept.name == f"{DIGEST.hex()}.raucb"
    assert kept.read_bytes() == CONTENT
    with pytest.raises(UpdateError, match="cannot be copied"):
        keep(tmp_path / "none", folder)
    assert list(folder.iterdir()) == [kept]


def test_parts_are_given_of_the_bundle_that_is_open_and_of_no_other(tmp_path: Path) -> None:
    (tmp_path / "bundle").write_bytes(CONTENT)
    keep(tmp_path / "bundle", tmp_path / "updates")
    bundles = Bundles(tmp_path / "updates")
    assert bundles.part(DIGEST, 0) is None
    assert bundles.prepare(DIGEST, len(CONTENT)) == ""
    parts = [bundles.part(DIGEST, index) or b"" for index in range(4)]
    assert [len(part) for part in parts] == [PART_BYTES, PART_BYTES, 4, 0]
    assert b"".join(parts) == CONTENT
    assert bundles.part(b"x" * 32, 0) is None
    assert "No such file" in bundles.prepare(b"x" * 32, 5)
    assert bundles.part(DIGEST, 0) is None
    assert "is not what was rolled out" in bundles.prepare(DIGEST, 5)
    bundles.close()
