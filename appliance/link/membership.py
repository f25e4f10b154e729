"""Whether this node has joined a fleet: told by a file, which nobody in here reads.

First boot is root and asks this at every start: it needs no parser of certificates for that.
"""

from __future__ import annotations

from pathlib import Path

CERTIFICATE = "tls.crt"
"""In the link's state folder; the last file that joining writes."""


def joined(state: Path) -> bool:
    """Whether this node has a certificate.

    Args:
        state: folder of the link service.
    """
    return (state / CERTIFICATE).exists()
