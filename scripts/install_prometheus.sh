#!/bin/sh
# Make sure there are prometheus and promtool for the tests that need them. They are skipped without, so this
# never fails. Debian's package would start a server of its own: it is kept from doing so.
set -u
command -v prometheus >/dev/null && command -v promtool >/dev/null && exit 0
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    apt-get update -qq &&
        RUNLEVEL=1 DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends prometheus &&
        exit 0
fi
echo "note: no prometheus, so the tests with one are skipped; they want Debian's package prometheus" >&2
