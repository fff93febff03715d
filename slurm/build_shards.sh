#!/bin/bash
# Builds shards on many nodes: an array of jobs that tokenise one part each, and one job that merges the parts when all are done.
#
#   slurm/build_shards.sh [--test-only] --parts 16 --out shards/wiki --tokenizer bert-base-uncased texts/*.jsonl
#
# The arguments are those of `stillhouse shards build`. The folder is the same as that of a single build, byte for byte. If a part failed, run
# the same command again: finished work is kept. SHARDS_FLAGS are sbatch flags for both jobs.
#SBATCH --job-name=stillhouse-shards
#SBATCH --output=%x-%A_%a.out --open-mode=append --nodes=1 --ntasks=1 --requeue
set -euo pipefail
name=build_shards.sh
script=$0
if [ -n "${SLURM_JOB_ID:-}" ] && [[ $script == */slurm_script ]]; then
  script=$(scontrol -o show job "$SLURM_JOB_ID") && script=${script#* Command=} # path and arguments; both can contain spaces
  case $script in *"/$name"*) script=${script%%"/$name"*}/$name ;; *) script=${script%% *} ;; esac
fi
scripts=$(CDPATH= cd -- "$(dirname -- "$script")" && pwd)
root=${STILLHOUSE_ROOT:-$(dirname "$scripts")}
without="stillhouse shards build …, which uses all cores of one machine"
source "$scripts/common.sh"

if [ -z "${SLURM_JOB_ID:-}" ]; then
  if [ "${1:-}" = --test-only ]; then test=1; shift; fi
  if [ "${1:-}" != --parts ] || ! [[ ${2:-} =~ ^[1-9][0-9]*$ ]]; then die "expected --parts N as the first arguments, got ${1:-nothing} ${2:-}; give the number of parts"; fi
  parts=$2
  shift 2
  check shards build "$@"
  export SBATCH_FLAGS="${SBATCH_FLAGS:-} --nodes=1 --ntasks=1 --ntasks-per-node=1 ${SHARDS_FLAGS:-}"
  submit --array="1-$parts" -- "$scripts/build_shards.sh" part "$parts" "$@"
  if [ "$job" = 0 ]; then after=(); else after=("--dependency=afterok:$job" --kill-on-invalid-dep=yes); fi
  submit "${after[@]}" --output="%x-%j.out" -- "$scripts/build_shards.sh" seal "$parts" "$@"
  [ -n "${test:-}" ] || echo "Submitted batch job $job"
  exit
fi
what=$1 parts=$2
shift 2
case $what in
  part) form=(--part "$SLURM_ARRAY_TASK_ID/$parts") ;;
  seal) form=(--seal "$parts") ;;
  *) die "expected part or seal from the script itself, got $what; run slurm/build_shards.sh --parts N …" ;;
esac
export SRUN_CPUS_PER_TASK=${SLURM_CPUS_PER_TASK:-1}
# shellcheck disable=SC2086  # flags and prefix are split into words
exec srun --ntasks=1 --nodes=1 ${SRUN_FLAGS:-} ${STEP_PREFIX:-} "$python" -u -m launcher.cli shards build "$@" "${form[@]}"
