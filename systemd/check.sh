#!/usr/bin/env bash
# Checks the units in the folder of this script, or in the one given: `systemd-analyze verify` says
# nothing (its exit status alone proves nothing: unknown keys leave it 0), and no unit is exposed
# more than its bound. Prints one line per unit; exit status 0 good, 1 not, 77 cannot tell.
set -euo pipefail
shopt -s nullglob

units=${1:-$(dirname "$0")}
# 0 is a service that can do nothing, 10 one that can do everything.
declare -A bound=([picket-watch]=0.8 [picket-indicator]=0.8 [picket-link]=1.4 [picket-join]=1.4)

if ! command -v systemd-analyze >/dev/null; then
  echo "systemd-analyze is missing: the units were not checked"
  exit 77
fi
copy=$(mktemp -d)
trap 'rm -rf "$copy"' EXIT
# Picket is not installed where its units are checked, and verify wants every program to be there.
for unit in "$units"/picket*.service "$units"/picket*.target; do
  sed 's,^\(ExecStart=\)/opt/picket/bin/picket.*,\1/bin/true,' "$unit" >"$copy/${unit##*/}"
done

failed=0
if ! said=$(SYSTEMD_UNIT_PATH="$copy:" systemd-analyze verify --man=no "$copy"/picket* 2>&1) || [ -n "$said" ]; then
  printf 'systemd-analyze verify:\n%s\n' "$said" >&2
  failed=1
fi
for name in picket-watch picket-indicator picket-link picket-join; do
  report=$(systemd-analyze security --offline=true --no-pager "$copy/$name.service" 2>&1) || true
  level=$(sed -n 's/.*Overall exposure level for [^:]*: \([0-9.]*\).*/\1/p' <<<"$report")
  if [ -z "$level" ]; then
    printf '%s: no exposure told:\n%s\n' "$name" "$report" >&2
    failed=1
  elif awk -v level="$level" -v bound="${bound[$name]}" 'BEGIN { exit !(level > bound) }'; then
    echo "$name: exposure $level is above ${bound[$name]}" >&2
    failed=1
  else
    echo "$name: exposure $level (at most ${bound[$name]})"
  fi
done
[ "$failed" = 0 ] && echo "systemd-analyze verify: nothing to say"
exit "$failed"
