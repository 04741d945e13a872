#!/usr/bin/env bash
# Runs a command on all workers of a Cloud TPU VM (a slice of any size), from a checkout of this project.
#
#   launch/pods/tpu_vm.sh [--dry-run] install NAME ZONE
#   launch/pods/tpu_vm.sh [--dry-run] run NAME ZONE 'python launch/train.py --config=... --workdir=gs://...'
#   launch/pods/tpu_vm.sh [--dry-run] stop NAME ZONE
#
# install: sends the committed files to every worker and creates its environment. PYTHON may name the
#      interpreter, 3.11 or newer.
# run: the same command on every worker at once; they find each other through the slice's metadata. It keeps
#      running when this terminal is closed, and logs to ~/genmask_jax/run.log on each worker.
# stop: sends SIGTERM, so that training writes a checkpoint; `run` it again with --resume.
# --dry-run prints the commands. The slice must exist: gcloud compute tpus tpu-vm create --help.
set -euo pipefail

usage() { sed -n '2,15s/^# \{0,1\}//p' "$0"; exit 2; }

dry_run=false
if [[ "${1:-}" == --dry-run ]]; then dry_run=true; shift; fi
[[ $# -ge 3 ]] || usage
action=$1 name=$2 zone=$3 command=${4:-}

do_it() {
  if $dry_run; then printf '%q ' "$@"; echo; else "$@"; fi
}

on_all_workers() {
  do_it gcloud compute tpus tpu-vm ssh "$name" --zone="$zone" --worker=all --command="$1"
}

case $action in
  install)
    archive=$(mktemp -t genmask_jax.XXXXXX)
    trap 'rm -f "$archive"' EXIT
    do_it git archive --format=tar.gz --output="$archive" HEAD
    do_it gcloud compute tpus tpu-vm scp "$archive" "$name:genmask_jax.tar.gz" --zone="$zone" --worker=all
    on_all_workers 'set -e; mkdir -p genmask_jax; tar -xzf genmask_jax.tar.gz -C genmask_jax; cd genmask_jax
      '"${PYTHON:-python3}"' -m venv .venv
      .venv/bin/pip install --quiet -c constraints.txt --editable ".[tpu,qwen,tensorboard]"'
    ;;
  run)
    [[ -n "$command" ]] || usage
    on_all_workers "cd genmask_jax || exit; export PATH=\$PWD/.venv/bin:\$PATH
      nohup bash -c $(printf '%q' "$command") > run.log 2>&1 < /dev/null &"
    ;;
  stop)
    on_all_workers "pkill -TERM -f '[l]aunch/' || true"  # the pattern does not match this command itself
    ;;
  *) usage ;;
esac
