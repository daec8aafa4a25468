#!/bin/sh
# Make sure there is `ip`, for the tests that make hosts of network namespaces. They are skipped without, so this
# never fails.
set -u
command -v ip >/dev/null && exit 0
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    apt-get update -qq &&
        DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends iproute2 &&
        exit 0
fi
echo "note: no ip, so the tests on several hosts are skipped; they want Debian's package iproute2, and root" >&2
