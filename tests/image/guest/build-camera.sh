#!/usr/bin/env bash
# Makes, in the folder given, what the guest needs for a camera: a Debian with libcamera 0.7 from
# trixie-backports (tree/), and picamera2 for its Python (site/). Two minutes, once.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
rm -rf "$1.new"
mkdir -p "$1.new"
out=$(cd "$1.new" && pwd)

# shellcheck disable=SC2016 # $1 is mmdebstrap's
mmdebstrap --quiet --mode=root --variant=minbase \
  --include=python3-libcamera,libcamera-ipa,python3-minimal,libpython3-stdlib \
  --aptopt='APT::Install-Recommends "false"' --aptopt='Acquire::Languages "none"' \
  --dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/doc/*' \
  --dpkgopt='path-exclude=/usr/share/locale/*' \
  --setup-hook='sed -n "s/ trixie main/ trixie-backports main/p" "$1/etc/apt/sources.list" \
    > "$1/etc/apt/sources.list.d/backports.list"' \
  --setup-hook='printf "Package: src:libcamera\nPin: release n=trixie-backports\nPin-Priority: 990\n" \
    > "$1/etc/apt/preferences.d/backports"' \
  trixie "$out/tree"
cat >"$out/tree/usr/share/libcamera/pipeline/virtual/virtual.yaml" <<'YAML'
%YAML 1.1
---
"Virtual0":
  supported_formats:
  - width: 640
    height: 480
    frame_rates:
    - 10
    - 60
  test_pattern: "bars"
  location: "CameraLocationFront"
  model: "Virtual"
YAML

python3 -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes \
  --target "$out/site" --only-binary=:all: --implementation cp --python-version 3.13 \
  --platform manylinux_2_28_x86_64 --platform manylinux_2_27_x86_64 \
  --platform manylinux_2_17_x86_64 --platform manylinux2014_x86_64 \
  --requirement "$here/camera.lock" 2> >(grep -v '^WARNING: Location' >&2)
cp -r "$here/../../../image-build/unused/." "$out/site"

rm -rf "$1"
mv "$out" "$1"
