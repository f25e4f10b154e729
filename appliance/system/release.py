"""Versions of the image: read, shown, and which one runs.

Enters: text such as "1.2.3", and the image's /etc/picket-release. Leaves: a wire.Version, which is
compared as it is. Nothing here judges one.
"""

from __future__ import annotations

import re
from pathlib import Path

from appliance.errors import UpdateError
from appliance.wire import Version

RELEASE = Path("/etc/picket-release")
_VERSION = re.compile(r"[0-9]{1,9}(\.[0-9]{1,9}){0,3}")
_FILE_MAX_BYTES = 64
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
    try:
        with release.open("rb") as file:
            text = file.read(_FILE_MAX_BYTES).decode("ascii").strip()
    except (OSError, UnicodeDecodeError) as e:
        raise UpdateError(f"{release}: cannot be read: this is no image of Picket's") from e
    return parse(text)
