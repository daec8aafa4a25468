#!/bin/sh
# Make the virtual environment. Debian ships python3 without its venv module, so that is installed when it is missing.
set -eu
: "${PYTHON:=python3}" "${VENV:=.venv}"

"$PYTHON" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || {
    echo "error: $PYTHON is older than 3.11; name a newer one: make PYTHON=python3.12" >&2
    exit 1
}
[ -x "$VENV/bin/pip" ] && exit 0
if ! "$PYTHON" -c 'import ensurepip' 2>/dev/null; then
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
        apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq python3-venv
    else
        echo "error: $PYTHON lacks the venv module; install it: sudo apt-get install python3-venv" >&2
        exit 1
    fi
fi
rm -rf "$VENV"
"$PYTHON" -m venv "$VENV"
