#!/bin/sh
# Make sure that the image can be built for its tests. They are skipped without, so this never fails.
set -u
command -v buildah >/dev/null && command -v mmdebstrap >/dev/null && exit 0
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    apt-get update -qq &&
        DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends buildah mmdebstrap &&
        exit 0
fi
echo "note: no buildah, so the tests of the image are skipped; they want Debian's packages buildah and mmdebstrap" >&2
