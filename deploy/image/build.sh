#!/usr/bin/env bash
# Every command of the image's stages, so that they run without a container engine too (tests/image/rootfs). On Debian 12.
#   build.sh packages                    as root: installs what the build needs, and fetches the grammar engine's sources
#   build.sh build cpu|cuda STAGE        builds this checkout and puts the image's files into STAGE: usr/local/bin,
#                                        usr/local/share/fathom/models, for cuda also cuBLASLt and NCCL in usr/local/lib,
#                                        and usr/local/share/fathom/packages with the packages that the programs need
#   build.sh runtime                     as root, in the image's root with the files of STAGE: installs these packages, and
#                                        makes the user 65532 and its folders
# FATHOM_BUILD_JOBS: compilers at a time (default: one for each 2 GiB of memory, at most the number of CPUs).
set -euo pipefail

programs=(fathom fathom-router fathom-scheduler fathom-worker fathom-replay)
uid=65532
fail() { echo "build.sh: $*" >&2; exit 1; }

# The source tree: this script lies in its deploy/image.
root_of_tree() { cd "$(dirname "$(readlink -f "$0")")/../.." && pwd; }

jobs() {
  local memory_gib cpus
  memory_gib=$(awk '/^MemAvailable/ { print int($2 / 1048576) }' /proc/meminfo)
  cpus=$(nproc)
  echo "${FATHOM_BUILD_JOBS:-$((memory_gib / 2 < 1 ? 1 : memory_gib / 2 < cpus ? memory_gib / 2 : cpus))}"
}

# packages_of PROGRAM...: the packages of the shared libraries that the programs link.
packages_of() {
  local library real
  for library in $(ldd "$@" | awk '$2 == "=>" && $3 ~ /^\// { print $3 }' | sort -u); do
    real=$(readlink -f "$library")
    # The package database knows /lib/... or /usr/lib/..., depending on the package.
    { dpkg-query -S "$library" || dpkg-query -S "$real" || dpkg-query -S "${real#/usr}" || dpkg-query -S "/usr$library"; } \
      2>/dev/null | head -n 1 | sed 's/:.*//' | grep . || fail "no package has $library"
  done | sort -u
}

# copy_library NAME STAGE: a library that is opened at run time, from the CUDA toolkit or the system, under its own name.
copy_library() {
  local folder
  for folder in /usr/local/cuda/lib64 /usr/local/cuda/lib /usr/lib/x86_64-linux-gnu; do
    if [[ -e "$folder/$1" ]]; then
      install -D -m 0644 "$(readlink -f "$folder/$1")" "$2/usr/local/lib/$1"
      return
    fi
  done
  fail "$1 was found neither in /usr/local/cuda nor in /usr/lib/x86_64-linux-gnu"
}

build() {
  local device=$1 stage=$2 cuda=OFF preset=build/image-$1
  case "$device" in
    cpu) ;;
    cuda) cuda=ON ;;
    *) fail "unknown device '$device'; there are cpu and cuda" ;;
  esac
  cd "$(root_of_tree)"
  PATH=$PATH:/usr/local/cuda/bin cmake --preset release -B "$preset" -DFATHOM_CUDA=$cuda -DFATHOM_GUIDED=ON -DFATHOM_TESTS=OFF
  PATH=$PATH:/usr/local/cuda/bin ninja -C "$preset" -j "$(jobs)" "${programs[@]}"
  cmake --install "$preset" --component programs --strip --prefix "$stage/usr/local"
  cmake --install "$preset" --component models --prefix "$stage/usr/local"
  if [[ $device == cuda ]]; then
    copy_library libcublasLt.so.13 "$stage"
    copy_library libnccl.so.2 "$stage"
  fi
  local list=$stage/usr/local/share/fathom/packages
  packages_of "${programs[@]/#/$stage/usr/local/bin/}" >"$list"
  echo "build.sh: $stage has $(du -sh "$stage" | cut -f1) for $device; packages: $(tr '\n' ' ' <"$list")"
}

runtime() {
  local packages
  mapfile -t packages </usr/local/share/fathom/packages
  export DEBIAN_FRONTEND=noninteractive
  apt-get update -qq
  apt-get install -y -qq --no-install-recommends "${packages[@]}"
  rm -rf /var/lib/apt/lists/* /var/cache/apt/* /var/cache/debconf/*-old /var/log/apt /var/log/dpkg.log
  ldconfig
  getent group $uid >/dev/null || groupadd --gid $uid fathom
  getent passwd $uid >/dev/null || useradd --uid $uid --gid $uid --no-create-home --home-dir /run/fathom \
    --shell /usr/sbin/nologin fathom
  install -d -m 0700 -o $uid -g $uid /run/fathom
  # Every library that a program links is there, and no program can be changed by the user.
  local program
  for program in "${programs[@]}"; do
    ldd "/usr/local/bin/$program" | grep 'not found' && fail "$program lacks the libraries above"
    [[ $(stat -c %u:%a "/usr/local/bin/$program") == 0:755 ]] || fail "$program is not root's, or has another mode than 755"
  done
}

case "${1:-}" in
  packages) cd "$(root_of_tree)" && ./deploy/setup --guided ;;
  build) build "${2:?build.sh build cpu|cuda STAGE}" "${3:?build.sh build cpu|cuda STAGE}" ;;
  runtime) runtime ;;
  *) echo "build.sh: unknown command '${1:-}'; there are packages, build and runtime" >&2; exit 64 ;;
esac
