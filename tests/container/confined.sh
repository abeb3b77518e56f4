#!/bin/sh
# Run a command as the strictest containers do: as a user whom no list knows, without a home, without
# network, and with a file system of which only two folders can be written to. It needs root, but no
# container engine.
#
#     confined.sh ROOT OUT TMP [FOLDER...] -- COMMAND...
#
# ROOT is a folder with a root file system, such as that of an image, or - for an empty one. FOLDERs
# of this machine are put into it, read-only, at their own paths; OUT as /out and TMP as /tmp. The
# command gets the variables that $CONFINED_ENV lists ("A=1 B=2"), and no others.
set -eu
if [ "${CONFINED:-}" != 1 ]; then
  CONFINED=1 exec unshare --mount --net --pid --ipc --fork sh "$0" "$@"
fi
base=$1 out=$2 tmp=$3
shift 3

root=$(mktemp -d)
if [ "$base" = - ]; then
  mount -t tmpfs tmpfs "$root"
  chmod 755 "$root"
else
  mount --bind "$base" "$root"
fi

while [ "$1" != -- ]; do
  if [ -L "$1" ]; then # such as /lib, which is a link to /usr/lib
    [ -e "$root$1" ] || ln -s "$(readlink "$1")" "$root$1"
  else
    mkdir -p "$root$1"
    mount --bind "$1" "$root$1"
    mount -o remount,bind,ro "$root$1"
  fi
  shift
done
shift

mkdir -p "$root/out" "$root/tmp" "$root/proc" "$root/dev"
mount --bind "$out" "$root/out"
mount --bind "$tmp" "$root/tmp"
mount -t proc proc "$root/proc"
mount -t tmpfs tmpfs "$root/dev"
for name in null zero urandom; do
  touch "$root/dev/$name"
  mount --bind "/dev/$name" "$root/dev/$name"
done
mount -o remount,ro "$root/dev"
if [ "$base" = - ]; then
  mount -o remount,ro "$root"
else
  mount -o remount,bind,ro "$root"
fi

# shellcheck disable=SC2086
exec chroot --userspec=54321:54321 --groups= "$root" /usr/bin/env -i ${CONFINED_ENV:-} "$@"
