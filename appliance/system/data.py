"""What became of the data partition, as picket-data.service has written it down at this start.

Enters: /run/picket-data.json. Leaves: the same as a dictionary: encrypted, by (tpm, otp), why (it
is not), fault (it stays shut). Elsewhere than in an image there is no such file.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

STATE = Path("/run/picket-data.json")


def said(path: Path = STATE) -> dict[str, Any]:
    """What is written there, {} for nothing."""
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError):  # no image of ours, or not yet
        return {}
    return found if isinstance(found, dict) else {}


def in_the_clear(path: Path = STATE) -> bool:
    """Whether this node's image had to leave its data as who takes the card can read it."""
    return said(path).get("encrypted") is False
