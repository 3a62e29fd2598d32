#!/usr/bin/env bash
# offline-base.sh OUT.tar [MINOR]: a root file system that stands in for python:MINOR-slim-bookworm, by default 3.12.
#
# For machines that reach a Debian mirror but no image registry. Debian bookworm comes from apt's own mirror, CPython
# from this machine (PYTHON_HOME, else the newest MINOR of pyenv) and lies in /usr/local as in the official image.
# Needs root, mmdebstrap and about 300 MB. For tests only: publish images built on the official base.
set -euo pipefail

minor=${2:-3.12}
out=${1:?usage: offline-base.sh OUT.tar [MINOR]}
home=${PYTHON_HOME:-$(printf '%s\n' "${PYENV_ROOT:-$HOME/.pyenv}"/versions/"$minor".* | sort -V | tail -n 1)}
[ -x "$home/bin/python$minor" ] || { echo "no CPython $minor: set PYTHON_HOME to its prefix" >&2; exit 1; }
# shellcheck disable=SC2016 # a field of apt's, not of the shell
mirror=$(apt-get indextargets --format '$(SITE)' 'Created-By: Packages' | awk '/\/debian$/ && !seen++')

stage=$(mktemp -d)
trap 'rm -rf "$stage"' EXIT
library=lib/python$minor
chmod 755 "$stage"  # it becomes /usr/local
mkdir -p "$stage/bin" "$stage/$library/site-packages"
cp "$home/bin/python$minor" "$stage/bin/"
ln -s "python$minor" "$stage/bin/python3"
ln -s python3 "$stage/bin/python"
find "$home/lib" -maxdepth 1 -name 'libpython*.so*' -exec cp -P {} "$stage/lib/" \;
# What the official image leaves out as well: tests, the editor, the build configuration, byte code, other packages.
tar -C "$home/$library" --exclude=./test --exclude=./idlelib --exclude='./config-*' --exclude=__pycache__ \
    --exclude='./site-packages/*' -cf - . | tar -C "$stage/$library" -xf -
cp -r "$home/$library/site-packages/"pip* "$stage/$library/site-packages/"
find "$stage" -name __pycache__ -prune -exec rm -rf {} +
printf '#!/bin/sh\nexec python3 -m pip "$@"\n' > "$stage/bin/pip"
chmod 755 "$stage/bin/pip"

# The libraries that the standard library's own extension modules are linked with.
libraries=ca-certificates,libbz2-1.0,libexpat1,libffi8,liblzma5,libsqlite3-0,libssl3,libuuid1,zlib1g
# shellcheck disable=SC2016 # "$1" is for mmdebstrap to fill in
mmdebstrap --quiet --variant=apt --include="$libraries" \
    --dpkgopt='path-exclude=/usr/share/doc/*' \
    --dpkgopt='path-exclude=/usr/share/locale/*' \
    --dpkgopt='path-exclude=/usr/share/man/*' \
    --customize-hook="cp -a '$stage/.' \"\$1/usr/local/\" && chown -R 0:0 \"\$1/usr/local\"" \
    --customize-hook='chroot "$1" ldconfig && : > "$1/etc/resolv.conf"' \
    --customize-hook='chroot "$1" python3 -B -c "import bz2, ctypes, lzma, sqlite3, ssl, uuid, zlib; import pip"' \
    bookworm "$out" "$mirror"
