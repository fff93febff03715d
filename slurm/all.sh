#!/bin/bash
# Builds shards, trains and evaluates, as a chain of jobs. Each job starts when the one before has succeeded.
#
#   slurm/all.sh [--test-only] --parts 16 --out shards/wiki --tokenizer bert-base-uncased texts/*.jsonl \
#     -- --config configs/X.yaml run.folder=runs/X key=value … [-- --json scores.json …]
#
# Before the first --: the arguments of slurm/build_shards.sh. Then those of distil_pretrain.sh; data.shards is set to the folder that was built.
# Then further arguments of evaluate.sh, which scores the student. With --teacher it also compares the student with that teacher.
set -euo pipefail
name=all.sh
script=$0
scripts=$(CDPATH= cd -- "$(dirname -- "$script")" && pwd)
root=${STILLHOUSE_ROOT:-$(dirname "$scripts")}
without="stillhouse shards build, stillhouse train, then stillhouse evaluate"
source "$scripts/common.sh"
[ -z "${SLURM_JOB_ID:-}" ] || die "expected to run on a login node, got a job; run it where you submit jobs"

test=
if [ "${1:-}" = --test-only ]; then test=1; shift; fi
build=() train=() evaluate=() stage=build
for word in "$@"; do
  case $stage-$word in
    build---) stage=train ;;
    train---) stage=evaluate ;;
    build-*) build+=("$word") ;;
    train-*) train+=("$word") ;;
    *) evaluate+=("$word") ;;
  esac
done
out= folder=
for ((n = 0; n < ${#build[@]}; n++)); do [ "${build[n]}" != --out ] || out=${build[n + 1]:-}; done
for word in "${train[@]}"; do [[ $word != run.folder=* ]] || folder=${word#run.folder=}; done
[ -n "$out" ] || die "expected --out FOLDER in the arguments for shards, got none; add it"
[ -n "$folder" ] || die "expected run.folder=FOLDER in the arguments for training, got none; add it"

command -v sbatch >/dev/null || die "expected Slurm's sbatch on PATH, got none; without Slurm: $without"
parts=("${build[@]}") # build_shards.sh reads its --parts N itself
[ "${parts[0]}" != --parts ] || parts=("${parts[@]:2}")
check shards build "${parts[@]}"
check train "${train[@]}" "data.shards=$out"
check evaluate "$folder/student" --shards "$out" "${evaluate[@]}"

number() { sed -n 's/^Submitted batch job //p'; }
plain=${SBATCH_FLAGS:-}
only=()
[ -z "$test" ] || only=(--test-only)
shards=$("$scripts/build_shards.sh" "${only[@]}" "${build[@]}" | number)
[ -z "$shards" ] || after="--dependency=afterok:$shards --kill-on-invalid-dep=yes"
job=$(SBATCH_FLAGS="$plain ${after:-}" "$scripts/distil_pretrain.sh" "${only[@]}" "${train[@]}" "data.shards=$out" | number)
[ -z "$job" ] || after="--dependency=afterok:$job --kill-on-invalid-dep=yes"
scores=$(EVALUATE_FLAGS="${EVALUATE_FLAGS:-} ${after:-}" "$scripts/evaluate.sh" "${only[@]}" "$folder/student" --shards "$out" "${evaluate[@]}" | number)
[ -n "$test" ] || echo "Submitted batch jobs $shards (shards) $job (train) $scores (evaluate)"
