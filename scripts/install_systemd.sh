#!/bin/sh
# Make sure there is systemd-analyze for the tests that need it. They are skipped without, so this never fails.
# No service is started: what Debian's package would start is kept from it.
set -u
command -v systemd-analyze >/dev/null && exit 0
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    apt-get update -qq &&
        RUNLEVEL=1 DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends systemd &&
        exit 0
fi
echo "note: no systemd-analyze, so systemd looks at no unit; the tests want Debian's package systemd" >&2
