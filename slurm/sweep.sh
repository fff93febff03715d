#!/bin/bash
# Runs one configuration many times: an array with one run for each line of a list.
#
#   slurm/sweep.sh [--test-only] overrides.txt --config configs/X.yaml run.folder=runs/sweep key=value …
#
# A line of the list holds further key=value settings, quoted as in a shell. Empty lines and lines that begin with # are ignored. The folder of
# run K is FOLDER/K, or the run.folder of its line. SWEEP_FLAGS are sbatch flags for each run. SWEEP_LIMIT=4 runs at most four at a time (the %4
# of --array). Each run is a job as in distil_pretrain.sh, and is requeued in the same way.
#SBATCH --job-name=stillhouse-sweep
#SBATCH --output=%x-%A_%a.out --open-mode=append
#SBATCH --requeue --signal=B:USR2@300
set -euo pipefail
name=sweep.sh
script=$0
if [ -n "${SLURM_JOB_ID:-}" ] && [[ $script == */slurm_script ]]; then
  script=$(scontrol -o show job "$SLURM_JOB_ID") && script=${script#* Command=} # path and arguments; both can contain spaces
  case $script in *"/$name"*) script=${script%%"/$name"*}/$name ;; *) script=${script%% *} ;; esac
fi
scripts=$(CDPATH= cd -- "$(dirname -- "$script")" && pwd)
root=${STILLHOUSE_ROOT:-$(dirname "$scripts")}
without="stillhouse train --config … once for each line"
source "$scripts/common.sh"

lines() { tr -d '\r' <"$1" | grep -v -E '^[[:space:]]*(#|$)' || true; }
split() { xargs -n 1 printf '%s\n' <<<"$1" 2>/dev/null || die "expected words quoted as in a shell, got a quote that does not end: $(hide <<<"$1")"; }
if [ -z "${SLURM_JOB_ID:-}" ]; then
  if [ "${1:-}" = --test-only ]; then test=1; shift; fi
  [ -f "${1:-}" ] || die "expected a file with one line for each run, got ${1:-nothing}; name the list first"
  list=$1
  shift
  count=$(lines "$list" | wc -l)
  [ "$count" -gt 0 ] || die "$list: expected one line for each run, got none; add a line"
  number=0
  while IFS= read -r line; do
    split "$line" >/dev/null
    number=$((number + 1))
    echo "run $number: $line" | hide >&2
  done < <(lines "$list")
  check sweep "$list" "$@"
  kept=$PWD/.stillhouse-sweep-$(date +%Y%m%d-%H%M%S)-$$.txt # the jobs read this copy, because the list can change before they start
  if [ -z "${test:-}" ]; then lines "$list" >"$kept"; fi
  # shellcheck disable=SC2086  # flags are split into words
  submit --array="1-$count${SWEEP_LIMIT:+%$SWEEP_LIMIT}" ${SWEEP_FLAGS:-} -- "$scripts/sweep.sh" "$kept" "$@"
  [ -n "${test:-}" ] || echo "Submitted batch job $job"
  exit
fi
kept=$1
shift
line=$(sed -n "${SLURM_ARRAY_TASK_ID}p" "$kept")
more=$(split "$line")
mapfile -t more <<<"$more"
folder=
for word in "$@"; do [[ $word != run.folder=* ]] || folder=${word#run.folder=}; done
[ -n "$folder" ] || folder=runs/sweep
echo "run $SLURM_ARRAY_TASK_ID: $line" | hide
exec bash "$scripts/distil_pretrain.sh" "$@" "run.folder=$folder/$SLURM_ARRAY_TASK_ID" "${more[@]}"
