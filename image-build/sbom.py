"""What is in an image: Debian's packages and the wheels, as a list and as CycloneDX JSON."""

from __future__ import annotations

import json
import re
import uuid
from pathlib import Path


def debian(tree: Path) -> dict[str, str]:
    """Packages of a tree, those that were only unpacked too; versions by name."""
    status = (tree / "var/lib/dpkg/status").read_text(encoding="utf-8")
    found = {}
    for paragraph in status.split("\n\n"):
        name = re.search(r"^Package: (.+)$", paragraph, re.MULTILINE)
        version = re.search(r"^Version: (.+)$", paragraph, re.MULTILINE)
        if name and version and "Status: install ok installed" in paragraph:
            found[name[1]] = version[1]
    for line in (tree / ".unpacked").read_text(encoding="utf-8").splitlines():
        package, version_ = line.split()
        found[package] = version_
    return dict(sorted(found.items()))


def python(*sites: Path) -> dict[str, str]:
    """Wheels of folders; versions by name."""
    found = {}
    for metadata in (path for site in sites for path in site.glob("*.dist-info/METADATA")):
        text = metadata.read_text(encoding="utf-8")
        name = re.search(r"^Name: (.+)$", text, re.MULTILINE)
        version = re.search(r"^Version: (.+)$", text, re.MULTILINE)
        if name and version:
            found[name[1]] = version[1]
    return dict(sorted(found.items(), key=lambda item: item[0].lower()))


def listing(packages: dict[str, str], wheels: dict[str, str]) -> str:
    """One line each."""
    lines = [f"deb {name} {version}" for name, version in packages.items()]
    return "\n".join([*lines, *(f"wheel {n} {v}" for n, v in wheels.items()), ""])


def cyclonedx(version: str, packages: dict[str, str], wheels: dict[str, str]) -> str:
    """The same for programs (CycloneDX 1.5); its serial number follows from its content."""
    parts = [
        {
            "type": "library", "name": name, "version": v,
            "purl": f"pkg:deb/debian/{name}@{v}?arch=arm64",
        }
        for name, v in packages.items()
    ]  # fmt: skip
    parts += [
        {
            "type": "library", "name": name, "version": v,
            "purl": f"pkg:pypi/{name.lower()}@{v}",
        }
        for name, v in wheels.items()
    ]  # fmt: skip
    serial = uuid.uuid5(uuid.NAMESPACE_OID, version + json.dumps(parts))
    document = {
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "serialNumber": f"urn:uuid:{serial}",
        "version": 1,
        "metadata": {
            "component": {"type": "operating-system", "name": "picket-image", "version": version}
        },
        "components": parts,
    }
    return json.dumps(document, indent=1) + "\n"
