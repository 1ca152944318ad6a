#!/usr/bin/env bash
# The one door to mmjax: sets up the environment once, then runs a verb, here or with --on=slurm and
# --on=tpu elsewhere. `./launch.sh help` lists the verbs.
set -euo pipefail

root="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
venv="${MMJAX_VENV:-$root/.venv}"

fail() {
  echo "launch.sh: $*" >&2
  exit 2
}

# Which JAX fits this machine: cpu, cuda or tpu.
accelerator() {
  if [ -n "${MMJAX_ACCELERATOR:-}" ]; then
    case "$MMJAX_ACCELERATOR" in
      cpu | cuda | tpu) echo "$MMJAX_ACCELERATOR" ;;
      *) fail "MMJAX_ACCELERATOR=$MMJAX_ACCELERATOR: expected cpu, cuda or tpu" ;;
    esac
  elif [ -e /dev/accel0 ] || { [ -d /dev/vfio ] && [ -n "${TPU_NAME:-}${TPU_WORKER_ID:-}" ]; }; then
    echo tpu
  elif command -v nvidia-smi > /dev/null 2>&1 && nvidia-smi -L > /dev/null 2>&1; then
    echo cuda
  else
    echo cpu
  fi
}

find_python() {
  local candidate
  for candidate in "${PYTHON:-}" python3 python3.13 python3.12 python3.11 python; do
    if [ -n "$candidate" ] && command -v "$candidate" > /dev/null 2>&1 &&
      "$candidate" -c 'import sys, venv; sys.exit(sys.version_info < (3, 11))' > /dev/null 2>&1; then
      echo "$candidate"
      return
    fi
  done
  fail "no Python >= 3.11 with the venv module found; install one, or name it: PYTHON=/path/to/python ./launch.sh ..."
}

# Installs the locked packages into the environment; a stamp of the lock files makes it happen once.
# $1: a set named in requirements/ (cpu, cuda, tpu, dev, reference).
install() {
  local lock="$root/requirements/$1.lock" stamp="$venv/.installed-$1" want hashes="--require-hashes"
  [ "$1" != reference ] || hashes="" # torch's CPU build has other hashes than its default one
  [ -f "$lock" ] || fail "no lock file $lock"
  want="$(cksum < "$lock") $(cksum < "$root/pyproject.toml")"
  if [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$want" ]; then
    return
  fi
  if [ ! -x "$venv/bin/python" ]; then
    local python
    python="$(find_python)"
    echo "launch.sh: making $venv with $("$python" --version)" >&2
    "$python" -m venv "$venv" || fail "could not make $venv; is Python's venv module complete (python3-venv)?"
  fi
  echo "launch.sh: installing the '$1' packages (once)" >&2
  "$venv/bin/python" -m pip install --quiet --disable-pip-version-check $hashes -r "$lock"
  "$venv/bin/python" -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e "$root"
  echo "$want" > "$stamp"
}

# The TPU compiler, in a folder of its own: where Python finds it, ordinary runs on a CPU look for a TPU.
install_tpu_compiler() {
  local lock="$root/requirements/tpu-plan.lock" place="$venv/tpu-plan"
  export MMJAX_TPU_COMPILER="${MMJAX_TPU_COMPILER:-$place/libtpu/libtpu.so}"
  [ "$MMJAX_TPU_COMPILER" = "$place/libtpu/libtpu.so" ] || return 0
  if [ -f "$place/.installed" ] && [ "$(cat "$place/.installed")" = "$(cksum < "$lock")" ]; then
    return
  fi
  echo "launch.sh: installing the TPU compiler (once)" >&2
  "$venv/bin/python" -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes --upgrade \
    --target "$place" -r "$lock"
  mkdir -p "$place"
  cksum < "$lock" > "$place/.installed"
}

main() {
  local argument kind place verb="${1:-help}"
  [ $# -gt 0 ] && shift
  case "$verb" in
    --on=*)
      # Elsewhere: mmjax/launch says what SLURM or a TPU VM runs, which is launch.sh with the verb again.
      place="${verb#--on=}"
      kind="$(accelerator)"
      install "$kind"
      exec "$venv/bin/python" -m mmjax.launch "$place" "$@"
      ;;
    setup)
      kind="$(accelerator)"
      install "$kind"
      ;;
    test)
      # Tests run on the CPU with eight virtual devices, whatever the machine has.
      # MMJAX_REFERENCE=1 also installs torch and transformers, which weights in and out are compared with,
      # and the TPU compiler.
      install cpu
      install dev
      if [ "${MMJAX_REFERENCE:-0}" = 1 ]; then
        install reference
        install_tpu_compiler
      fi
      cd "$root"
      exec "$venv/bin/python" -m pytest -n "${MMJAX_TEST_WORKERS:-2}" --dist=loadfile "$@"
      ;;
    lint)
      install cpu
      install dev
      cd "$root"
      "$venv/bin/python" -m ruff check .
      exec "$venv/bin/python" -m ruff format --check .
      ;;
    *)
      kind="$(accelerator)"
      install "$kind"
      if [ "$verb" = plan ] && [ "$kind" != tpu ]; then
        for argument; do
          case "$argument" in --topology=v[0-9]*:* | --topology=[0-9]*xv[0-9]*:* | v[0-9]*:* | [0-9]*xv[0-9]*:*) install_tpu_compiler ;; esac
        done
      fi
      [ "$verb" != bench ] || install reference # PyTorch, with which it compares
      # Large pages for what a step allocates and frees: 450,000 page faults less in one of CLIP ViT-B/32.
      [ "$kind" != cpu ] || export GLIBC_TUNABLES="${GLIBC_TUNABLES:-glibc.malloc.hugetlb=1}"
      exec "$venv/bin/python" -m mmjax "$verb" "$@"
      ;;
  esac
}

main "$@"
