"""The layer of the camera stack: what apt is told, and which packages come on top.

Enters: cameras.toml, a layer's name and, for a layer with an archive, its address and key. Leaves:
texts for apt, and a package list. Nothing is fetched here.
"""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from work import BuildError

HERE = Path(__file__).resolve().parent
_ORIGIN_PRIORITY, _REST_PRIORITY = 990, 100
_URL = re.compile(r"https?://[A-Za-z0-9.-]+(:\d+)?(/[A-Za-z0-9._~/-]*)?")


@dataclass(frozen=True)
class Layer:
    """A camera layer.

    Attributes:
        packages: on top of packages.txt; the first is the kernel, "" for trixie-backports'.
        sources: deb822, "" for Debian alone.
        preferences: pins, "" for Debian alone.
        csi: with the kernel's missing drivers, built as modules (csi.py).
    """

    name: str
    kernel: str
    packages: tuple[str, ...]
    sources: str
    preferences: str
    csi: bool = False

    def suffix(self, sensor: str) -> str:
        """Of an image's name and kind: a node must not lose its camera by an update of another."""
        if self.csi:
            return f"-csi-{sensor}"
        return f"-{self.name}" if self.sources else ""


def layer(name: str, *, url: str = "", key: str = "", accelerators: bool = False) -> Layer:
    """Read a layer.

    Args:
        name: a table of cameras.toml.
        url: of its archive, where it has one.
        key: file with the archive's public key.
        accelerators: with what a Hailo or a Coral needs.

    Raises:
        BuildError: there is no such layer, or its archive's address or key is missing.
    """
    tables = tomllib.loads((HERE / "cameras.toml").read_text(encoding="utf-8"))
    if name not in tables:
        raise BuildError(f"PICKET_CAMERAS: no layer '{name}'; there are {', '.join(tables)}")
    table: dict[str, Any] = tables[name]
    if "suite" not in table:
        return Layer(name, "", (), "", "", csi=bool(table.get("csi")))
    if not _URL.fullmatch(url):
        raise BuildError(f"PICKET_CAMERAS_URL: '{url}' is no address of an archive")
    if not Path(key).is_file():
        raise BuildError(f"PICKET_CAMERAS_KEY: '{key}' is no file")
    more = table["accelerators"] if accelerators else []
    return Layer(
        name,
        table["kernel"],
        (table["kernel"], *table["packages"], *more),
        _sources(url, table, key),
        _preferences(url, table),
    )


def _sources(url: str, table: dict[str, Any], key: str) -> str:
    return (
        f"Types: deb\nURIs: {url}\nSuites: {table['suite']}\n"
        f"Components: {' '.join(table['components'])}\nArchitectures: arm64\nSigned-By: {key}\n"
    )


def _preferences(url: str, table: dict[str, Any]) -> str:
    """Pinned by where it comes from: everything there is below Debian but what is named."""
    host = re.sub(r"^https?://", "", url).split("/")[0].split(":")[0]
    origin = f'origin "{host}"'
    named = " ".join(table["pinned"])
    return (
        f"Package: *\nPin: {origin}\nPin-Priority: {_REST_PRIORITY}\n\n"
        f"Package: {named}\nPin: {origin}\nPin-Priority: {_ORIGIN_PRIORITY}\n"
    )
