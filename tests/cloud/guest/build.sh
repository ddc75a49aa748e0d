#!/usr/bin/env bash
# Builds, from Debian's packages only:
#
#   build.sh DIR       DIR/vmlinuz      the cloud kernel as it is   DIR/initramfs.gz   busybox, modules, init
#                      DIR/blank.raw    an empty disk               DIR/python.raw     an ext4 disk with Python
#                      DIR/busybox.tar  a container's root          DIR/python.tar     the same with Python
set -euo pipefail
HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
OUT=$1
WORK=$OUT/work
rm -rf "$OUT"
mkdir -p "$WORK"/{debs,kernel,tiny,python}
cd "$WORK"

python_packages=(libc6 libexpat1 zlib1g python3.11-minimal libpython3.11-minimal libpython3.11-stdlib libssl3 libffi8
  libbz2-1.0 liblzma5 libuuid1 libcrypt1)
kernel_package=$(apt-cache depends linux-image-cloud-amd64 | awk '/Depends: linux-image-[0-9]/ { print $2; exit }')
(cd debs && apt-get -qq -o APT::Sandbox::User=root download "$kernel_package" "${python_packages[@]}")
dpkg -x debs/linux-image-*.deb kernel
rm debs/linux-image-*.deb
version=$(ls kernel/lib/modules)
cp "kernel/boot/vmlinuz-$version" "$OUT/vmlinuz"

# The modules in the order of loading, as 10-name.ko, 11-name.ko, …
depmod -b kernel "$version"
mkdir -p tiny/{bin,dev,proc,sys,run,tmp,lib/modules,etc,newroot}
number=10
while read -r file; do
  strip --strip-debug -o "tiny/lib/modules/$number-$(basename "$file")" "$file"
  number=$((number + 1))
done < <(for module in virtio_pci virtio_blk virtio_net virtio_rng ext4 isofs sr_mod ata_piix; do
  modprobe -d kernel -S "$version" --show-depends --ignore-install $module | awk '/^insmod/ { print $2 }'
done | awk '!seen[$0]++')

cp "$(readlink -f "$(type -P busybox)")" tiny/bin/busybox
for name in $(tiny/bin/busybox --list); do
  [ "$name" = busybox ] || ln -sf busybox "tiny/bin/$name"
done
gcc -O2 -static -s -o tiny/bin/report "$HERE/report.c"
install -m 755 "$HERE/init" "$HERE/main" tiny/
(cd tiny && find . -print0 | cpio --null -o -H newc --quiet -R 0:0) | gzip -9 -n >"$OUT/initramfs.gz"
tar -C tiny --exclude=./lib/modules --exclude=./init --exclude=./main -cf "$OUT/busybox.tar" .

for deb in debs/*.deb; do dpkg -x "$deb" python; done
rm -rf python/usr/share/{doc,man,lintian,locale,bug,binfmts,applications,pixmaps,python3} python/etc/{ld.so.conf.d,python3.11} \
  python/usr/lib/x86_64-linux-gnu/{gconv,engines-3,ossl-modules,audit}
(cd python/usr/lib/python3.11 && rm -rf test idlelib tkinter turtledemo lib2to3 ensurepip distutils pydoc_data unittest \
  __pycache__ config-*)
cp -a tiny/bin python/
mkdir -p python/{dev,proc,sys,run,tmp,etc,root,lib64}
ln -sf python3.11 python/usr/bin/python3
echo 'root:x:0:0:root:/root:/bin/sh' >python/etc/passwd
echo '127.0.0.1 localhost' >python/etc/hosts
cp "$HERE/main" python/
# Compiled beforehand, which takes long under emulation. Some files of the library are not meant to compile.
/usr/bin/python3.11 -m compileall -q -s python -p / --invalidation-mode unchecked-hash -j 2 python/usr/lib/python3.11 || true
tar -C python -cf "$OUT/python.tar" .
truncate -s $(($(du -sm --apparent-size python | cut -f1) * 13 / 10 + 8))M "$OUT/python.raw"
mkfs.ext4 -q -F -O ^has_journal -m 0 -d python "$OUT/python.raw"
truncate -s 1M "$OUT/blank.raw"
cd "$OUT"
rm -rf "$WORK"
