#!/usr/bin/env bash
#SBATCH --job-name=genmask
#SBATCH --nodes=1
#SBATCH --gpus-per-node=8
#SBATCH --ntasks-per-node=8
#SBATCH --cpus-per-task=8
#SBATCH --signal=TERM@120
#SBATCH --requeue
#SBATCH --output=%x-%j.log
# One process per GPU, on one node or several; the processes find each other through SLURM's environment.
#
#   sbatch --nodes=4 launch/pods/slurm.sh python launch/train.py --config=configs/genmask_l.py --workdir=...
#   bash launch/pods/slurm.sh --dry-run python launch/train.py ...      # prints the command of a job
#
# Submit it from the checkout, where .venv has the package with its extra gpu (docs/pods.md). Options of sbatch
# replace those above; --ntasks-per-node must equal --gpus-per-node. Two minutes before its time limit the job
# gets SIGTERM and training writes a checkpoint; submit the same command with --resume to continue. With --resume
# in the command, a job that SLURM requeues after preemption or the failure of a node continues by itself.
set -euo pipefail

dry_run=false
if [[ "${1:-}" == --dry-run ]]; then dry_run=true; shift; fi
if [[ $# -eq 0 ]]; then sed -n '10,19s/^# \{0,1\}//p' "$0"; exit 2; fi

cd "${SLURM_SUBMIT_DIR:-$PWD}"
export PATH="$PWD/.venv/bin:$PATH"
run=(srun --kill-on-bad-exit=1 --cpus-per-task="${SLURM_CPUS_PER_TASK:-8}" "$@")
if $dry_run; then printf '%q ' "${run[@]}"; echo; else exec "${run[@]}"; fi
