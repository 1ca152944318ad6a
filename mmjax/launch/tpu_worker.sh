#!/usr/bin/env bash
# What each host of a TPU VM does: tpu_worker.sh HOST:/SHARE-or-nothing VERB ...
set -euo pipefail

nfs="$1"
shift
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

# gcloud runs the command again when a connection breaks; the TPU belongs to one process at a time.
exec 9> "$HOME/.mmjax.lock"
flock 9

packages=()
command -v python3.11 > /dev/null || packages+=(python3.11 python3.11-venv)
[ -z "$nfs" ] || command -v mount.nfs > /dev/null || packages+=(nfs-common)
if [ "${#packages[@]}" -gt 0 ]; then
  sudo apt-get -qq update
  sudo DEBIAN_FRONTEND=noninteractive apt-get -qq install -y "${packages[@]}" > /dev/null
fi
if [ -n "$nfs" ] && ! mountpoint -q /mnt/mmjax; then
  sudo mkdir -p /mnt/mmjax
  sudo mount -t nfs "$nfs" /mnt/mmjax
fi

export PYTHON=python3.11 MMJAX_ACCELERATOR=tpu
exec ./launch.sh "$@"
