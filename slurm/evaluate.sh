#!/bin/bash
# Computes held-out scores of models, as a job with one task:
#
#   slurm/evaluate.sh [--test-only] runs/X/student --shards shards/X --teacher bert-base-uncased --json scores.json
#   sbatch --gpus=1 slurm/evaluate.sh …
#
# The arguments are those of `stillhouse evaluate`. slurm/cluster.sh is read as in distil_pretrain.sh; its flags for nodes and tasks are
# overridden.
#SBATCH --job-name=stillhouse-evaluate
#SBATCH --output=%x-%j.out --nodes=1 --ntasks=1
set -euo pipefail
name=evaluate.sh
script=$0
if [ -n "${SLURM_JOB_ID:-}" ] && [[ $script == */slurm_script ]]; then
  script=$(scontrol -o show job "$SLURM_JOB_ID") && script=${script#* Command=} # path and arguments; both can contain spaces
  case $script in *"/$name"*) script=${script%%"/$name"*}/$name ;; *) script=${script%% *} ;; esac
fi
scripts=$(CDPATH= cd -- "$(dirname -- "$script")" && pwd)
root=${STILLHOUSE_ROOT:-$(dirname "$scripts")}
without="stillhouse evaluate …"
source "$scripts/common.sh"

if [ -z "${SLURM_JOB_ID:-}" ]; then
  if [ "${1:-}" = --test-only ]; then test=1; shift; fi
  check evaluate "$@"
  # shellcheck disable=SC2086  # flags are split into words
  submit --nodes=1 --ntasks=1 --ntasks-per-node=1 ${EVALUATE_FLAGS:-} -- "$scripts/evaluate.sh" "$@"
  [ -n "${test:-}" ] || echo "Submitted batch job $job"
  exit
fi
export SRUN_CPUS_PER_TASK=${SLURM_CPUS_PER_TASK:-1}
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-$SRUN_CPUS_PER_TASK}
# shellcheck disable=SC2086  # flags and prefix are split into words
exec srun --ntasks=1 --nodes=1 ${SRUN_FLAGS:-} ${STEP_PREFIX:-} "$python" -u -m launcher.cli evaluate "$@"
