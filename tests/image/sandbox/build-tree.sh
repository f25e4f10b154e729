#!/usr/bin/env bash
# A small Debian in the folder given: what systemd needs to boot, and a Python for the probe.
# The release and its systemd are those of the node's image. About 20 s and 130 MB, once.
set -euo pipefail

tree=$1
mkdir -p "$(dirname "$tree")"
rm -rf "$tree.new"
mmdebstrap --quiet --mode=root --variant=minbase \
  --include=systemd,systemd-sysv,dbus,python3-minimal,libpython3-stdlib \
  --aptopt='APT::Install-Recommends "false"' --aptopt='Acquire::Languages "none"' \
  --dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/doc/*' \
  --dpkgopt='path-exclude=/usr/share/locale/*' trixie "$tree.new"
mv "$tree.new" "$tree"
