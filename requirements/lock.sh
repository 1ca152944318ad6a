#!/usr/bin/env bash
# Writes the lock files anew from requirements.txt and requirements/*.txt. Needs `uv` (pip install uv).
set -euo pipefail
cd "$(dirname "$0")/.."

lock() {
  local out="$1"
  shift
  echo "requirements/$out.lock"
  uv pip compile --quiet --universal --generate-hashes --python-version 3.11 --no-emit-index-url \
    --no-header --no-annotate --output-file "requirements/$out.lock" "$@"
}

lock cpu requirements.txt requirements/build.txt
lock cuda requirements.txt requirements/build.txt requirements/cuda.txt
lock tpu requirements.txt requirements/build.txt requirements/tpu.txt
lock tpu-plan requirements/tpu-plan.txt --constraints requirements/tpu.lock
lock dev requirements/dev.txt --constraints requirements/cpu.lock

# What tests compare with. Without hashes, since torch's CPU build has others than its default one; set
# UV_FIND_LINKS to a folder that holds the CPU build, or the CUDA packages are listed too.
echo "requirements/reference.lock"
uv pip compile --quiet --python-version 3.11 --no-emit-index-url --no-emit-find-links --no-header \
  --no-annotate --constraints requirements/cpu.lock requirements/reference.txt |
  sed 's/+cpu$//' > requirements/reference.lock
