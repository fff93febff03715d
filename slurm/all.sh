#!/bin/bash
# The whole job as a chain: shards -> train -> evaluate, each when the one before has succeeded.
#
#   slurm/all.sh [--test-only] --parts 16 --out shards/wiki --tokenizer bert-base-uncased texts/*.jsonl \
#     -- --config configs/X.yaml run.folder=runs/X key=value … [-- --json scores.json …]
#
# Before the first --: slurm/build_shards.sh's arguments. Then distil_pretrain.sh's; data.shards is the folder that was built. Then more for
# evaluate.sh, which measures the student and compares it with the teacher of --teacher.
set -euo pipefail
name=all.sh
script=$0
scripts=$(CDPATH= cd -- "$(dirname -- "$script")" && pwd)
root=${STILLHOUSE_ROOT:-$(dirname "$scripts")}
source "$scripts/common.sh"
[ -z "${SLURM_JOB_ID:-}" ] || die "expected to run where jobs are submitted, got a job; start it there"

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
[ -n "$out" ] || die "expected --out FOLDER among the arguments for shards, got none"
[ -n "$folder" ] || die "expected run.folder=FOLDER among the arguments for training, got none"

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
