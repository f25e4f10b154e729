"""Versions of the image: read, shown, which one runs, and of which kind it is.

Enters: text such as "1.2.3", and the image's /etc/picket-release: the version, and on a second line
the kind, which has the camera layer in it. Leaves: a wire.Version, which is compared as it is; a
kind, which an update must be of, too. Nothing here judges one.
"""

from __future__ import annotations

import re
from pathlib import Path

from appliance.errors import UpdateError
from appliance.wire import Version

RELEASE = Path("/etc/picket-release")
COMPATIBLE = "picket-arm64"
"""What RAUC calls the kind of an image; those with a camera layer have its name behind it."""
_VERSION = re.compile(r"[0-9]{1,9}(\.[0-9]{1,9}){0,3}")
_KIND = re.compile(rf"{COMPATIBLE}(-[a-z0-9-]{{1,40}})?")
_FILE_MAX_BYTES = 128
_SHOWN_AT_LEAST = 3


def parse(text: str) -> Version:
    """A version of one to four numbers; those that are missing are 0.

    Raises:
        UpdateError: it is none.
    """
    if not _VERSION.fullmatch(text):
        raise UpdateError(f"'{text[:40]}' is no version, such as 1.2.3")
    found = [int(part) for part in text.split(".")]
    major, minor, patch, build = found + [0] * (4 - len(found))
    return major, minor, patch, build


def shown(version: Version) -> str:
    """A version for people: three numbers, or four if the last is not 0."""
    numbers = version if version[-1] else version[:_SHOWN_AT_LEAST]
    return ".".join(str(number) for number in numbers)


def running(release: Path = RELEASE) -> Version:
    """The version of the image that runs.

    Args:
        release: where the image says so.

    Raises:
        UpdateError: this is no image of Picket's.
    """
    return parse(_lines(release)[0])


def kind(release: Path = RELEASE) -> str:
    """The kind of the image that runs: COMPATIBLE, where it says nothing else.

    Raises:
        UpdateError: this is no image of Picket's.
    """
    return (*_lines(release), COMPATIBLE)[1]


def is_kind(text: str) -> bool:
    """Whether this is a kind of Picket's images."""
    return _KIND.fullmatch(text) is not None


def _lines(release: Path) -> list[str]:
    try:
        with release.open("rb") as file:
            text = file.read(_FILE_MAX_BYTES).decode("ascii")
    except (OSError, UnicodeDecodeError) as e:
        raise UpdateError(f"{release}: cannot be read: this is no image of Picket's") from e
    return text.strip().split("\n")
