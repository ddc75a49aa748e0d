# What the cloud needs on a machine: Debian's packages, accounts, the Python environment. Again: nothing. Sourced by cloud.sh.
# shellcheck shell=bash

installed() { [ "$(dpkg-query -W -f '${db:Status-Status}' "$1" 2>/dev/null)" = installed ]; }
version_of() { if installed "$1"; then dpkg-query -W -f '${Version}' "$1"; fi; }
candidate_of() { LC_ALL=C apt-cache policy "$1" | awk '$1 == "Candidate:" { print $2 }'; }

# QEMU's packages, all of Debian 12's version: a machine may have some of another, and backported ones break it.
qemu_packages() {
  local package version
  version=$(candidate_of qemu-system-x86)
  echo "qemu-system-x86=$version"
  echo "qemu-utils=$version"
  for package in qemu-system-common qemu-system-data; do
    # What is for all architectures is not rebuilt for one of them.
    [ $package = qemu-system-common ] || version=${version%+b[0-9]*}
    if installed $package && [ "$(version_of $package)" != "$version" ]; then echo "$package=$version"; fi
  done
}

install_packages() {
  local wanted missing=() package policy=/usr/sbin/policy-rc.d made=
  type -P apt-get dpkg-query >/dev/null || die 'the cloud in a box runs on Debian 12, and this is none'
  wanted=$(awk -v parts=" base ${SELECTED[*]} $(needs_images && echo 'images ')" '!/^#/ && index(parts, " " substr($1, 1, length($1) - 1) " ") {
    for (i = 2; i <= NF; i++) print $i }' "$HERE/packages.txt" | sort -u)
  for package in $wanted; do installed "$package" || missing+=("$package"); done
  if selected nova && [ "$(version_of qemu-utils)" != "$(version_of qemu-system-x86)" ]; then missing+=(qemu-utils); fi
  if [ ${#missing[@]} = 0 ]; then return; fi
  say "installing ${missing[*]}"
  awaiting packages
  apt_get update >>"$BOX/log/packages.log" 2>&1 || die 'apt-get update' "$BOX/log/packages.log"
  mapfile -t missing < <(printf '%s\n' "${missing[@]}" | grep -v '^qemu-' || true
    case " ${missing[*]} " in *' qemu-'*) qemu_packages ;; esac)
  # Only the programs are wanted: no service may start, and take a port of the machine.
  if [ ! -e $policy ]; then
    made=yes
    printf '#!/bin/sh\nexit 101\n' >$policy
    chmod 755 $policy
  fi
  apt_get install -y --no-install-recommends --allow-downgrades "${missing[@]}" >>"$BOX/log/packages.log" 2>&1 || {
    [ -z "$made" ] || rm -f $policy
    die "could not install ${missing[*]}" "$BOX/log/packages.log"
  }
  [ -z "$made" ] || rm -f $policy
  arrived packages
}

# The accounts that libvirtd looks up before it reads its configuration. libvirt-daemon-system would make them.
libvirt_accounts() {
  local group
  for group in kvm libvirt libvirt-qemu; do getent group $group >/dev/null || groupadd --system $group; done
  getent passwd libvirt-qemu >/dev/null ||
    useradd --system --gid kvm --home-dir /var/lib/libvirt --no-create-home --shell /usr/sbin/nologin libvirt-qemu
}

python_environment() {
  if [ -e "$VENV/complete" ]; then return; fi
  local uv
  say "making the Python environment of the services in $VENV"
  uv=$CACHE/cloud-uv-$(sha256sum "$HERE/uv.lock.txt" | cut -c1-12)
  [ -x "$uv/bin/uv" ] || {
    # Debian's interpreter, which the pins were made for.
    quietly uv /usr/bin/python3.11 -m venv --clear "$uv"
    quietly uv "$uv/bin/pip" install --disable-pip-version-check --require-hashes --only-binary :all: -r "$HERE/uv.lock.txt"
  }
  quietly venv "$uv/bin/uv" venv --clear --python /usr/bin/python3.11 "$VENV"
  # What has to be built is built with the setuptools that is pinned, not with whatever is newest.
  grep '^setuptools==' "$HERE/requirements.txt" >"$BOX/run/setuptools.txt"
  quietly venv "$uv/bin/uv" pip install --python "$VENV/bin/python" --require-hashes -r "$BOX/run/setuptools.txt"
  quietly venv "$uv/bin/uv" pip sync --python "$VENV/bin/python" --require-hashes --no-build-isolation --compile-bytecode \
    "$HERE/requirements.txt"
  touch "$VENV/complete"
  say "$(grep -c '^[a-z].*==' "$HERE/requirements.txt") Python packages"
}

needs_images() { selected zun || selected nova; }

# For the parts that are selected.
install() {
  install_packages
  if selected nova; then libvirt_accounts; fi
  if selected mongo; then mongod_program >/dev/null; fi
  (
    # Two clones may make it at once.
    flock 8
    python_environment
  ) 8>"$CACHE/cloud.lock"
  if needs_images; then images_build; fi
}
