"""An update for nodes that run: the same root and boot slot as the card's, signed for RAUC.

Enters: the packed root, a boot slot's FAT, a certificate and its key. Leaves: a bundle. Its
manifest, which is signed, holds the SHA-256 of both parts, and the boot slot names dm-verity's
root hash: what is signed covers every byte that runs. Format "plain": RAUC 1.13 cannot mount its
"verity" bundles on kernels from 6.19 on.
"""

from __future__ import annotations

import datetime as dt
import os
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID
from work import BuildError, run

_DAYS = 3650
_MANIFEST = """[update]
compatible={compatible}
version={version}

[bundle]
format=plain

[hooks]
filename=hook

[image.rootfs]
filename=rootfs.img

[image.boot]
filename=boot.vfat
hooks=post-install
"""
_HOOK = """#!/bin/sh
# The same boot slot serves as a and as b: its command line is told which, after it was written.
set -eu
[ "$1" = slot-post-install ] || exit 0
case $RAUC_SLOT_BOOTNAME in
  a) part=5 ;;
  b) part=6 ;;
  *) echo "no slot '$RAUC_SLOT_BOOTNAME'" >&2; exit 1 ;;
esac
file=$RAUC_SLOT_MOUNT_POINT/cmdline.txt
sed -e "s/\\(root=PARTUUID=[0-9a-f]*-0\\)[0-9]/\\1$part/" \\
  -e "s/rauc\\.slot=[ab]/rauc.slot=$RAUC_SLOT_BOOTNAME/" "$file" >"$file.new"
sync "$file.new"
mv "$file.new" "$file"
"""


def keys(folder: Path) -> tuple[Path, Path]:
    """Certificate and key that sign updates: given by the environment, or made here to try it.

    Raises:
        BuildError: only one of the two is given, or one is no file.
    """
    certificate, key = (os.environ.get(f"PICKET_UPDATE_{name}") for name in ("CERT", "KEY"))
    if certificate or key:
        for path in (certificate, key):
            if not path or not Path(path).is_file():
                raise BuildError("PICKET_UPDATE_CERT and PICKET_UPDATE_KEY: both must be files")
        return Path(certificate or ""), Path(key or "")
    paths = folder / "update.crt", folder / "update.key"
    if not all(path.exists() for path in paths):
        certify(*paths)
    print(f"  updates are signed by a key made here, {paths[1]}: not for a fleet in earnest")
    return paths


def certify(certificate: Path, key: Path) -> None:
    """Make a key and a certificate of its own for it."""
    private = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Picket updates, for trying")])
    now = dt.datetime.now(dt.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(private.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=_DAYS))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(private, hashes.SHA256())
    )
    key.touch(mode=0o600)
    key.write_bytes(private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    certificate.write_bytes(made.public_bytes(Encoding.PEM))


def make(
    out: Path,
    root: Path,
    boot: Path,
    work: Path,
    *,
    version: str,
    signed_by: tuple[Path, Path],
    compatible: str = "picket-arm64",
) -> None:
    """Write a bundle.

    Args:
        out: the file, new.
        root: squashfs with its hash tree.
        boot: FAT of a boot slot.
        work: a new folder.
        version: of the update.
        signed_by: certificate and key.
        compatible: the kind of image that may take it.
    """
    work.mkdir()
    os.link(root, work / "rootfs.img")
    os.link(boot, work / "boot.vfat")
    (work / "hook").write_text(_HOOK, encoding="ascii")
    (work / "hook").chmod(0o755)
    manifest = _MANIFEST.format(compatible=compatible, version=version)
    (work / "manifest.raucm").write_text(manifest, encoding="ascii")
    certificate, key = signed_by
    run(["rauc", f"--cert={certificate}", f"--key={key}", "bundle", work, out])
