#!/bin/sh
# Make sure there is a browser for the tests that need one. They are skipped without, so this never fails.
set -u
for name in chromium chromium-browser google-chrome; do
    command -v "$name" >/dev/null && exit 0
done
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    apt-get update -qq &&
        DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends chromium fonts-dejavu-core &&
        exit 0
fi
echo "note: no browser, so the tests in one are skipped; they want Debian's package chromium" >&2
