#!/usr/bin/env bash
# runtimes/build.sh container|vm|all DIR: makes the runtime's images from Debian packages and our static agent, without a
# registry. One image serves the runtimes python3 and provided.
#
#   container   DIR/lambda-python3.tar          a root filesystem, for `docker import`
#               DIR/lambda-python3-docker.tar   the same as an image with its command, for `docker load` and for Glance
#   vm          DIR/vmlinuz DIR/initramfs.gz    kernel and first file system
#               DIR/python3.raw                 root disk
#
# What is there and was made from the same inputs (packages, agent, these files) is left alone. LAMBDA_AGENT names a
# ready agent program; else it is target/agent/lambda-agent, built if need be. runtimes/publish.sh brings images to
# Docker and to Glance.
set -euo pipefail
export LC_ALL=C SOURCE_DATE_EPOCH=0

HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
NAME=lambda-python3
VERSION=1
PYTHON=python3.11

fail() { echo "build.sh: $*" >&2; exit 1; }
say() { echo "build.sh: $*" >&2; }
case ${1-} in container | vm) kinds=$1 ;; all) kinds='container vm' ;; *) fail 'usage: build.sh container|vm|all DIR' ;; esac
[ $# = 2 ] || fail 'usage: build.sh container|vm|all DIR'
needed='apt-get dpkg tar sha256sum'
[ "$1" = container ] || needed+=' apt-cache cpio depmod modprobe mkfs.ext4 strip'
for tool in $needed; do
  PATH=$PATH:/usr/sbin:/sbin type -P "$tool" >/dev/null || fail "$tool is missing (packages: dpkg apt cpio kmod binutils e2fsprogs)"
done
PATH=$PATH:/usr/sbin:/sbin
# Files in the images are root's: so are we, if only by name.
[ "$(id -u)" = 0 ] || exec unshare --map-root-user "$0" "$@"

agent=${LAMBDA_AGENT:-}
if [ -z "$agent" ]; then
  agent=${CARGO_TARGET_DIR:-$HERE/../target}/agent/lambda-agent
  [ -x "$agent" ] || make -C "$HERE/.." agent >&2
fi
[ -x "$agent" ] || fail "there is no agent program $agent"
agent=$(realpath "$agent")
if ldd "$agent" 2>/dev/null | grep -q '=>'; then fail "$agent is not static: it would not start in every image"; fi

mkdir -p "$2"
OUT=$(cd "$2" && pwd)
WORK=$(mktemp -d "$OUT/.work-XXXXXX")
trap 'rm -rf "$WORK"' EXIT

packages=()
while read -r package; do
  case $package in '' | '#'*) ;; *) packages+=("$package") ;; esac
done <"$HERE/packages"

kernel_package() {
  local meta
  meta=linux-image-cloud-$(dpkg --print-architecture)
  apt-cache depends "$meta" | awk '/Depends: linux-image-[0-9]/ { print $2; exit }'
}

# Names, versions and digests of packages, one a line.
describe() {
  apt-get download --print-uris "$@" | awk '{ print $2, $4 }' | sort || fail 'apt knows no such packages; apt-get update?'
}

# What an image is made of: it is made anew when this changes.
inputs() {
  echo "version $VERSION"
  sha256sum <"$agent" | sed 's/^/agent /'
  local files=(build.sh packages)
  [ "$1" != vm ] || files+=(vm/init vm/main vm/udhcpc)
  (cd "$HERE" && sha256sum "${files[@]}")
  describe "${packages[@]}"
  [ "$1" != vm ] || describe "$(kernel_package)"
}

# unpack DIR PACKAGE…
unpack() {
  local root=$1
  shift
  mkdir -p "$WORK/debs"
  # apt would rather download as another user, who may not write here; it says so and goes on.
  (cd "$WORK/debs" && apt-get -qq -o APT::Sandbox::User=root download "$@")
  local deb
  # Not `dpkg -x`, which puts directories where packages have them, over the links of a merged /usr.
  for deb in "$WORK"/debs/*.deb; do dpkg --fsys-tarfile "$deb" | tar -C "$root" --keep-directory-symlink -xf -; done
  rm -r "$WORK/debs"
}

# The root file system that both kinds have. One for both: it is the same.
root() {
  local root=$WORK/root library
  [ ! -d "$root" ] || return 0
  say 'root file system'
  mkdir -p "$root"/usr/{bin,sbin,lib,lib64}
  local name
  for name in bin sbin lib lib64; do ln -s "usr/$name" "$root/$name"; done
  unpack "$root" "${packages[@]}"
  rm -rf "$root"/usr/share/{doc,man,lintian,locale,bug,binfmts,applications,pixmaps,python3,doc-base,debconf,gcc,gdb} \
    "$root"/usr/share/initramfs-tools "$root"/usr/share/zoneinfo/{right,posix} "$root"/usr/lib/binfmt.d \
    "$root"/etc/{ld.so.conf.d,python3.11,apt} "${root:?}/var" "$root"/usr/lib/*/{gconv,engines-3,ossl-modules,audit}
  library=$root/usr/lib/$PYTHON
  (cd "$library" && rm -rf test idlelib tkinter turtledemo lib2to3 ensurepip pydoc_data __pycache__ config-* \
    lib-dynload/_test*.so lib-dynload/_ctypes_test*.so)
  mkdir -p "$root"/{dev,proc,sys,run,root,etc/ssl/certs,usr/lib/ssl,usr/share/udhcpc,var/lib/lambda-agent}
  install -d -m 1777 "$root/tmp" "$root/var/tmp"
  chmod 711 "$root/var/lib/lambda-agent"
  cat "$root"/usr/share/ca-certificates/mozilla/*.crt >"$root/etc/ssl/certs/ca-certificates.crt"
  rm -r "$root/usr/share/ca-certificates"
  ln -s /etc/ssl/certs/ca-certificates.crt "$root/usr/lib/ssl/cert.pem"
  ln -s /etc/ssl/certs "$root/usr/lib/ssl/certs"
  echo 'root:x:0:0:root:/root:/bin/sh
nobody:x:65534:65534:nobody:/nonexistent:/bin/false' >"$root/etc/passwd"
  echo 'root:x:0:
nogroup:x:65534:' >"$root/etc/group"
  echo '127.0.0.1 localhost
::1 localhost' >"$root/etc/hosts"
  echo 'hosts: files dns' >"$root/etc/nsswitch.conf"
  ln -sf "$PYTHON" "$root/usr/bin/python3"
  "$root/usr/bin/busybox" --list-full | while read -r name; do
    name=$root/usr/${name#usr/}
    [ -e "$name" ] || ln -s /usr/bin/busybox "$name"
  done
  install -m 755 "$agent" "$root/usr/bin/lambda-agent"
  # Compiled beforehand, by the very interpreter: on a machine that is emulated this takes longer than all else.
  local loader
  loader=$(echo "$root"/lib64/ld-linux-*.so.*)
  [ -e "$loader" ] || loader=$(echo "$root"/lib/ld-linux-*.so.*)
  local libraries
  libraries=$(echo "$root"/usr/lib/*-linux-gnu*)
  PYTHONHOME=$root/usr PYTHONDONTWRITEBYTECODE=1 "$loader" --library-path "$libraries" "$root/usr/bin/$PYTHON" -S -m compileall \
    -q -s "$root" -p / --invalidation-mode unchecked-hash -j 0 "$library" || fail 'the library could not be compiled'
}

# pack DIR: a tar file that is the same for the same files.
pack() {
  tar -C "$1" --sort=name --mtime=@0 --owner=0 --group=0 --numeric-owner --format=gnu -cf - .
}

build_container() {
  root
  say 'container'
  pack "$WORK/root" >"$WORK/$NAME.tar"
  local layer config
  layer=$(sha256sum "$WORK/$NAME.tar" | cut -d' ' -f1)
  mkdir -p "$WORK/image/$layer"
  ln "$WORK/$NAME.tar" "$WORK/image/$layer/layer.tar"
  printf '{"architecture":"%s","os":"linux","created":"1970-01-01T00:00:00Z","config":{"Cmd":["/usr/bin/lambda-agent","run"],%s},"rootfs":{"type":"layers","diff_ids":["sha256:%s"]},"history":[{"created":"1970-01-01T00:00:00Z","created_by":"runtimes/build.sh"}]}' \
    "$(dpkg --print-architecture)" '"Env":["PATH=/usr/local/bin:/usr/bin:/bin"],"WorkingDir":"/"' "$layer" >"$WORK/config.json"
  config=$(sha256sum "$WORK/config.json" | cut -d' ' -f1).json
  mv "$WORK/config.json" "$WORK/image/$config"
  printf '[{"Config":"%s","RepoTags":["%s:%s"],"Layers":["%s/layer.tar"]}]' "$config" $NAME $VERSION "$layer" >"$WORK/image/manifest.json"
  pack "$WORK/image" >"$WORK/$NAME-docker.tar"
  mv "$WORK/$NAME.tar" "$WORK/$NAME-docker.tar" "$OUT/"
}

build_vm() {
  root
  say 'kernel'
  local kernel=$WORK/kernel version first=$WORK/first file module
  mkdir -p "$kernel/usr/lib"
  ln -s usr/lib "$kernel/lib"
  unpack "$kernel" "$(kernel_package)"
  version=$(basename "$kernel"/lib/modules/*)
  depmod -b "$kernel" "$version"
  mkdir -p "$first"/{bin,dev,proc,sys,run,newroot}
  # In the order in which they have to be loaded. Those of the second directory are for machines of other kinds.
  local number=10
  modules() { # DIRECTORY MODULE…
    local directory=$first/$1
    shift
    mkdir -p "$directory"
    for module; do
      modprobe -d "$kernel" -S "$version" --show-depends --ignore-install "$module" | awk '/^insmod/ { print $2 }'
    done | while read -r file; do
      module=$(basename "$file")
      if compgen -G "$first/modules*/[0-9][0-9]-$module" >/dev/null; then continue; fi
      strip --strip-debug -o "$directory/$number-$module" "$file"
      number=$((number + 1))
    done
  }
  modules modules virtio_pci virtio_blk virtio_net virtio_rng ext4 ata_piix sr_mod isofs tcp_diag
  modules modules-other virtio_scsi sd_mod vfat nls_ascii nls_cp437 nls_iso8859-1
  install -m 755 "$WORK/root/usr/bin/busybox" "$first/bin/busybox"
  install -m 755 "$HERE/vm/init" "$first/init"
  say 'disk'
  install -D -m 755 "$HERE/vm/main" "$WORK/root/usr/lib/lambda-agent/main"
  install -D -m 755 "$HERE/vm/udhcpc" "$WORK/root/usr/share/udhcpc/default.script"
  ln -sf /run/resolv.conf "$WORK/root/etc/resolv.conf"
  find "$first" "$WORK/root" -exec touch -h -d @0 {} +
  # Not compressed: to unpack it takes an emulated processor longer than to read it.
  (cd "$first" && find . -print0 | sort -z | cpio --null -o -H newc --quiet -R 0:0 --reproducible) >"$WORK/initramfs.gz"
  local mib
  mib=$(($(du -sm --apparent-size "$WORK/root" | cut -f1) * 12 / 10 + 8))
  truncate -s ${mib}M "$WORK/python3.raw"
  mkfs.ext4 -q -F -O ^has_journal,^resize_inode -m 0 -N 12000 -L lambda -U 6c616d62-6461-4000-8000-000000000001 \
    -E hash_seed=6c616d62-6461-4000-8000-000000000002,root_owner=0:0,lazy_itable_init=0 -d "$WORK/root" "$WORK/python3.raw"
  cp "$kernel/boot/vmlinuz-$version" "$WORK/vmlinuz"
  mv "$WORK/vmlinuz" "$WORK/initramfs.gz" "$WORK/python3.raw" "$OUT/"
}

made() { # KIND: the files of an image
  case $1 in
    container) echo $NAME.tar $NAME-docker.tar ;;
    vm) echo vmlinuz initramfs.gz python3.raw ;;
  esac
}

for kind in $kinds; do
  inputs "$kind" >"$WORK/inputs"
  current=yes
  for file in $(made "$kind"); do [ -s "$OUT/$file" ] || current=no; done
  if [ $current = yes ] && cmp -s "$WORK/inputs" "$OUT/$kind.inputs"; then
    say "$kind: nothing has changed"
    continue
  fi
  rm -f "$OUT/$kind.inputs"
  "build_$kind"
  mv "$WORK/inputs" "$OUT/$kind.inputs"
done
