#!/bin/sh
# Run a command as the strictest containers do: as a user whom no list knows, without a home, without
# network, and with a file system of which only two folders can be written to, beside /dev/shm. It
# needs root, but no container engine.
#
#     confined.sh ROOT OUT TMP [FOLDER[:PATH]...] -- COMMAND...
#
# ROOT is a folder with a root file system, such as that of an image, or - for an empty one. FOLDERs
# of this machine are put into it, read-only, at their own paths, or FOLDER:PATH at another one; OUT
# as /out and TMP as /tmp. The command gets the variables that $CONFINED_ENV lists ("A=1 B=2"), and no
# others.
set -eu
if [ "${CONFINED:-}" != 1 ]; then
  CONFINED=1 exec unshare --mount --net --pid --ipc --fork sh "$0" "$@"
fi
base=$1 out=$2 tmp=$3
shift 3

ip link set lo up 2>/dev/null || true # containers without network have this one, too
root=$(mktemp -d)
if [ "$base" = - ]; then
  mount -t tmpfs tmpfs "$root"
  chmod 755 "$root"
else
  mount --bind "$base" "$root"
fi

while [ "$1" != -- ]; do
  from=${1%%:*} at=${1#*:}
  if [ -L "$from" ]; then # such as /lib, which is a link to /usr/lib
    [ -e "$root$at" ] || ln -s "$(readlink "$from")" "$root$at"
  else
    mkdir -p "$root$at"
    mount --bind "$from" "$root$at"
    mount -o remount,bind,ro "$root$at"
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
mkdir "$root/dev/shm" # which every container has
mount -t tmpfs -o mode=1777 tmpfs "$root/dev/shm"
mount -o remount,ro "$root/dev"
if [ "$base" = - ]; then
  mount -o remount,ro "$root"
else
  mount -o remount,bind,ro "$root"
fi

# shellcheck disable=SC2086
exec chroot --userspec=54321:54321 --groups= "$root" /usr/bin/env -i ${CONFINED_ENV:-} "$@"
