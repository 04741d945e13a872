#!/usr/bin/env bash
# Submits a run to a GKE cluster of TPUs with XPK (https://github.com/AI-Hypercomputer/xpk): one or several
# slices, restarted when a node is preempted.
#
#   launch/pods/xpk.sh [--dry-run] CLUSTER WORKLOAD TPU_TYPE SLICES 'python launch/train.py ... --workdir=gs://...'
#   launch/pods/xpk.sh --dry-run v5e-cluster genmask-l v5litepod-256 1 'python launch/train.py --config=...'
#
# IMAGE may name a container that has the requirements; by default a plain Python image installs them at startup.
# With --resume in the command, a new work directory starts a run, and an existing run is resumed.
# Slices find each other through GKE's environment. With several, --config.mesh.data must be a multiple of them.
set -euo pipefail

dry_run=false
if [[ "${1:-}" == --dry-run ]]; then dry_run=true; shift; fi
if [[ $# -ne 5 ]]; then sed -n '2,12s/^# \{0,1\}//p' "$0"; exit 2; fi
cluster=$1 workload=$2 tpu_type=$3 slices=$4 command=$5

install='pip install --quiet -c constraints.txt -e ".[tpu,qwen,tensorboard]"'
submit=(
  xpk workload create
  --cluster="$cluster" --workload="$workload" --tpu-type="$tpu_type" --num-slices="$slices"
  --base-docker-image="${IMAGE:-python:3.12}" --script-dir=. --max-restarts=100
  --command="$install && $command"
)
if $dry_run; then printf '%q ' "${submit[@]}"; echo; else "${submit[@]}"; fi
