# SPDX-License-Identifier: MIT
# Sourced: what bgfs needs from Debian 12, and how to get it. Lists only what is named directly.

packages_build=(clang-19 lld-19 libclang-rt-19-dev cmake ninja-build pkg-config ccache fuse3
  libfuse3-dev liburing-dev libyaml-cpp-dev libfmt-dev libdeflate-dev zlib1g-dev libzstd-dev libssl-dev)
packages_quickstart=(e2fsprogs)
packages_test=(doctest-dev python3 qemu-utils qemu-system-common fio e2fsprogs xfsprogs btrfs-progs
  fuse2fs fdisk dosfstools attr acl util-linux procps psmisc passwd rsync valgrind)
packages_bench=(libnbd-bin libqcow-utils) # peers to be compared with

# need PACKAGE...: installs those that are missing, as root or with sudo.
need() {
  local missing=() as_root=()
  for package in "$@"; do
    dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null | grep -qx installed ||
      missing+=("$package")
  done
  [ ${#missing[@]} -eq 0 ] && return 0
  if [ "$(id -u)" -ne 0 ]; then
    command -v sudo >/dev/null || {
      echo "these packages are missing, and there is no sudo to install them: ${missing[*]}" >&2
      return 1
    }
    as_root=(sudo)
  fi
  echo "installing: ${missing[*]}"
  "${as_root[@]}" apt-get update -qq
  # A dependency may have to go back to Debian's own version where a newer one is installed.
  "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive \
    apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
}

# configure DIRECTORY OPTION...: one build tree; reconfiguring an existing one is quick.
configure() {
  local tree=$1
  shift
  cmake -S "$top" -B "$tree" -G Ninja -DCMAKE_CXX_COMPILER=clang++-19 "$@" >"$tree.log" 2>&1 || {
    cat "$tree.log" >&2
    return 1
  }
}
