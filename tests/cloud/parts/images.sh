# What runs in the cloud: guests for Nova (box-tiny, box-python) and images for Docker (box-busybox:1, box-python:1), built from
# Debian's packages, once. No part of its own: Zun and Nova need it.
# shellcheck shell=bash

IMAGES=$CACHE/cloud-images-$(cat "$HERE"/guest/* | sha256sum | cut -c1-12)

images_build() {
  (
    # Zun and Nova ask for it at the same time.
    flock 8
    [ ! -e "$IMAGES/done" ] || exit 0
    say "building images in $IMAGES"
    # What there is to download may never have been asked for, or long ago.
    quietly images apt_get update
    quietly images "$HERE/guest/build.sh" "$IMAGES"
    touch "$IMAGES/done"
    say 'built the images'
  ) 8>"$CACHE/cloud.lock"
}

images_for_docker() {
  local name
  for name in busybox python; do
    docker image inspect box-$name:1 >/dev/null 2>&1 ||
      quietly docker-import docker import -c 'CMD ["/bin/sh"]' "$IMAGES/$name.tar" box-$name:1
  done
}

images_for_nova() {
  local kernel ramdisk options='console=ttyS0 quiet loglevel=3 panic=-1 tsc=unstable'
  kernel=$(image box-kernel aki "$IMAGES/vmlinuz")
  ramdisk=$(image box-initramfs ari "$IMAGES/initramfs.gz")
  guest_image box-tiny "$IMAGES/blank.raw" "$kernel" "$ramdisk" "$options" >/dev/null
  guest_image box-python "$IMAGES/python.raw" "$kernel" "$ramdisk" "$options root=/dev/vda" >/dev/null
}

# A disk that Nova boots with a kernel and an initramfs of their own; prints the id.
guest_image() { # name file kernel-id ramdisk-id kernel-options
  image "$1" raw "$2" "$(jq -nc --arg k "$3" --arg r "$4" --arg o "$5" \
    '{kernel_id: $k, ramdisk_id: $r, os_command_line: $o, hw_video_model: "none", hw_rng_model: "virtio"}')"
}

# Uploads an image once; prints the id.
image() { # name disk-format file [properties-json]
  local id container=bare properties=${4:-null}
  case $2 in aki | ari) container=$2 ;; esac
  id=$(rest GET "$GLANCE/v2/images?name=$1&status=active" | jq -r '.images[0].id // empty')
  if [ -z "$id" ]; then
    id=$(rest POST "$GLANCE/v2/images" "$(jq -nc --arg n "$1" --arg d "$2" --arg c "$container" --argjson p "$properties" \
      '{name: $n, disk_format: $d, container_format: $c, visibility: "public"} + $p')" | jq -r .id)
    rest PUT "$GLANCE/v2/images/$id/file" '' -H 'Content-Type: application/octet-stream' -T "$3" >/dev/null
  fi
  echo "$id"
}
