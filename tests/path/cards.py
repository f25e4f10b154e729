"""A card's picket-provision.toml, for tests to spoil."""

from __future__ import annotations

from typing import Any

PEM = "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n"


def document(**more: Any) -> dict[str, Any]:
    """A good one."""
    return {
        "format": 1,
        "node": {
            "id": "cam-017",
            "fleet": "harbour",
            "authorities": ["ab" * 32],
            "online_key": "cd" * 32,
            "alert_key": "ef" * 1216,
        },
        "link": {"controllers": ["tls+tcp://10.0.0.5:7441"], "join": "tls+tcp://10.0.0.5:7442"},
        "join": {"token": "12" * 32, "ca": PEM},
    } | more
