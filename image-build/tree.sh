#!/usr/bin/env bash
# The Debian that the node's root is made of, for arm64, in the folder given. Eight minutes and
# more under emulation: build.py keeps it by the hash of what went in.
#
#   tree.sh OUT PACKAGES LOCK [SOURCES PREFERENCES KERNEL]
#
# PACKAGES: one name a line. LOCK: packages.lock, or "" to take whatever there is; if the mirror has
# other versions, it ends within a minute, and OUT.new/candidates says which. SOURCES, PREFERENCES and
# KERNEL: of a camera layer's archive (cameras.py), as apt takes them. Without them kernel and
# libcamera are trixie-backports'. Leaves OUT/root (the tree), OUT/kernel (its release), OUT/headers
# (Python's, for what is cross-compiled).
set -euo pipefail

out=$1
packages=$(grep -v '^#' "$2" | paste -sd, -)
export LOCK=$3 HERE
HERE=$(cd "$(dirname "$0")" && pwd)
sources=${4:-} preferences=${5:-}
export KERNEL=${6:-linux-image-arm64/trixie-backports}
rm -rf "$out.new"
mkdir -p "$out.new/headers"
NEW=$(cd "$out.new" && pwd)
export NEW

layer=()
if [ -n "$sources" ]; then
  layer+=(--setup-hook="copy-in $sources /etc/apt/sources.list.d" --setup-hook="copy-in $preferences /etc/apt/preferences.d")
fi

# The kernel's packages are unpacked, not installed: their scripts would make an initrd by a program
# that takes minutes here; initrd.py makes a smaller one in a second. Pinned by codename: the
# backports' suite is called stable-backports, and a pin by archive silently does nothing.
# shellcheck disable=SC2016 # $1 and $MMDEBSTRAP_APT_CONFIG are mmdebstrap's
mmdebstrap --quiet --mode=root --variant=minbase --architectures=arm64 \
  --components=main,non-free-firmware --include="$packages" \
  --aptopt='APT::Install-Recommends "false"' --aptopt='Acquire::Languages "none"' \
  --dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/info/*' \
  --dpkgopt='path-exclude=/usr/share/locale/*' \
  --setup-hook='sed -n "s/ trixie main/ trixie-backports main/p" "$1/etc/apt/sources.list" > "$1/etc/apt/sources.list.d/backports.list"' \
  --setup-hook='printf "Package: src:linux src:linux-signed-arm64 src:libcamera\nPin: release n=trixie-backports\nPin-Priority: 990\n" > "$1/etc/apt/preferences.d/backports"' \
  "${layer[@]}" \
  --extract-hook='[ -z "$LOCK" ] || {
    grep -v "^#" "$LOCK" | cut -d" " -f1 | APT_CONFIG=$MMDEBSTRAP_APT_CONFIG xargs apt-cache policy > "$NEW/candidates" &&
    python3 "$HERE/lock.py" "$LOCK" "$NEW/candidates"; }' \
  --customize-hook='mkdir -p "$1/var/tmp/k" && cd "$1/var/tmp/k" && export APT_CONFIG=$MMDEBSTRAP_APT_CONFIG &&
    KV=$(apt-cache show "$KERNEL" | sed -n "s/^Depends:.*linux-image-\([0-9][^ ,]*\).*/\1/p" | head -n 1) &&
    { apt-get download -qq "linux-binary-$KV" "linux-modules-$KV" "linux-base-$KV" || apt-get download -qq "linux-image-$KV"; } &&
    apt-get download -qq raspi-firmware libpython3.13-dev &&
    for deb in linux-*.deb raspi-firmware*.deb; do dpkg-deb -x "$deb" "$1"; dpkg-deb -W --showformat "\${Package} \${Version}\n" "$deb" >> "$1/.unpacked"; done &&
    dpkg-deb -x libpython3.13-dev*.deb "$NEW/headers" &&
    rm -rf "$1/var/tmp/k" && depmod -b "$1" "$KV" && echo "$KV" > "$NEW/kernel"' \
  trixie "$NEW/root"
rm -rf "$out"
mv "$NEW" "$out"
