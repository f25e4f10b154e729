#!/usr/bin/env bash
# Makes, in the folder given, what the guest boots with: a kernel with simulated GPIO (vmlinuz,
# initrd.gz) and the GPIO library of a Pi 5 built for Debian trixie's Python (gpio/). The kernel is
# trixie-backports': trixie's own is built without gpio-sim. Two to three minutes, once.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
out=$1
rm -rf "$out.new"
mkdir -p "$out.new"
out=$(cd "$out.new" && pwd)

python3 -m pip download --quiet --disable-pip-version-check --no-deps --require-hashes \
  --dest "$out/wheels" --requirement "$here/gpio.lock" 2> >(grep -v '^WARNING: Location' >&2)

mkdir "$out/made"
# shellcheck disable=SC2016 # $1 is mmdebstrap's
mmdebstrap --quiet --mode=root --variant=minbase --format=null \
  --include=gcc,libc6-dev,python3-dev,python3-setuptools,swig \
  --aptopt='APT::Install-Recommends "false"' --aptopt='Acquire::Languages "none"' \
  --dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/doc/*' \
  --setup-hook='sed -n "s/ trixie main/ trixie-backports main/p" "$1/etc/apt/sources.list" \
    > "$1/etc/apt/sources.list.d/backports.list"' \
  --customize-hook="copy-in $out/wheels /root" \
  --customize-hook='chroot "$1" sh -ec "cd /root; tar xzf wheels/lgpio-*.tar.gz; cd lgpio-*
    PYPI=1 python3 setup.py -q build >&2; mkdir -p /root/made; cp build/lib*/* /root/made"' \
  --customize-hook='cd "$1/root/made" &&
    of() { APT_CONFIG=$MMDEBSTRAP_APT_CONFIG apt-cache show "$1" | sed -n "s/^Depends:.*linux-image-\([0-9][^ ,]*\).*/\1/p" | head -n 1; } &&
    kernel=$(of linux-image-amd64/trixie-backports) &&
    APT_CONFIG=$MMDEBSTRAP_APT_CONFIG apt-get download -qq "linux-binary-$kernel" "linux-modules-$kernel"' \
  --customize-hook="copy-out /root/made $out" \
  trixie /dev/null

mkdir "$out/gpio" "$out/kernel"
for package in "$out"/made/linux-*.deb; do dpkg-deb -x "$package" "$out/kernel"; done
mv "$out"/made/lgpio.py "$out"/made/_lgpio*.so "$out/gpio"
python3 -m zipfile -e "$out"/wheels/rpi_lgpio-*.whl "$out/gpio"
find "$out/kernel" -name vmlinuz -exec cp {} "$out/vmlinuz" \;

# In the order in which they need each other.
mkdir -p "$out"/initrd/{bin,proc,sys,dev,lower,upper,root,modules}
for module in netfs 9pnet 9pnet_virtio 9p overlay configfs gpio-sim; do
  find "$out/kernel" -name "$module.ko.xz" -exec xz -dc {} \; >"$out/initrd/modules/$module.ko"
done
cp "$(command -v busybox)" "$out/initrd/bin"
install -m 0755 "$here/init" "$out/initrd/init"
(cd "$out/initrd" && find . | cpio --quiet -o -H newc | gzip -1) >"$out/initrd.gz"
rm -rf "$out/kernel" "$out/initrd" "$out/made" "$out/wheels"
rm -rf "$1"
mv "$out" "$1"
