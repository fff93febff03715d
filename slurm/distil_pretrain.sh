#!/bin/bash
# Distils on one node or many, one task a rank:
#
#   sbatch --nodes=2 --ntasks-per-node=8 --gpus-per-node=8 slurm/distil_pretrain.sh --config configs/X.yaml key=value …
#   slurm/distil_pretrain.sh --config configs/X.yaml key=value …     submits itself with the flags of slurm/cluster.sh
#
# Everything after the script's name goes to the trainer. What differs between clusters is in slurm/cluster.sh (see cluster.sh.example);
# the environment overrides it, and sbatch's flags override both. The job's exit code is the trainer's own.
#SBATCH --job-name=stillhouse --nodes=1 --ntasks-per-node=1
#SBATCH --output=%x-%j.out --open-mode=append
#SBATCH --requeue --signal=B:USR2@300
set -euo pipefail

die() { echo "distil_pretrain.sh: $*" >&2; exit 2; }

# In a job, $0 is Slurm's own copy: ask Slurm where the script came from.
script=$0
if [ -n "${SLURM_JOB_ID:-}" ] && [[ $script == */slurm_script ]]; then
  script=$(scontrol show job -o "$SLURM_JOB_ID" | sed -n 's/.* Command=\([^ ]*\).*/\1/p')
fi
root=${STILLHOUSE_ROOT:-$(cd "$(dirname "$script")/.." && pwd)}
[ -f "$root/launcher/run.py" ] || die "expected the repository at $root, got no launcher/run.py; set STILLHOUSE_ROOT"

cluster=${STILLHOUSE_CLUSTER:-$root/slurm/cluster.sh}
# shellcheck source=/dev/null
if [ -f "$cluster" ]; then set +u; source "$cluster"; set -u; fi

if [ -z "${SLURM_JOB_ID:-}" ]; then
  command -v sbatch >/dev/null || die "expected Slurm's sbatch on PATH, got none; without Slurm: deepspeed launcher/run.py --config …"
  # shellcheck disable=SC2086  # flags are words
  exec sbatch ${SBATCH_FLAGS:-} "$root/slurm/distil_pretrain.sh" "$@"
fi

python=${STILLHOUSE_PYTHON:-$root/.venv/bin/python}
if [ -z "${STILLHOUSE_PYTHON:-}" ] && [ ! -x "$python" ]; then python=$(command -v python || command -v python3) || die "no python on PATH"; fi

# The batch script runs on the job's first node, so a port that is free here is free where rank 0 listens.
MASTER_ADDR=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | sed -n 1p)
MASTER_PORT=${MASTER_PORT:-$((20000 + SLURM_JOB_ID % 10000))}
while (exec 3<>"/dev/tcp/127.0.0.1/$MASTER_PORT") 2>/dev/null; do MASTER_PORT=$((MASTER_PORT + 1)); done
export MASTER_ADDR MASTER_PORT
export SRUN_CPUS_PER_TASK=${SLURM_CPUS_PER_TASK:-1} # srun no longer inherits it from sbatch
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-$SRUN_CPUS_PER_TASK}

# Compiled ops are private to this start of this job on this node, unless TORCH_EXTENSIONS_DIR is set: a job killed while it compiles leaves a
# lock that the next one would meet.
export STILLHOUSE_OPS="${STILLHOUSE_LOCAL:-${TMPDIR:-/tmp}}/stillhouse-ops-$SLURM_JOB_ID-${SLURM_RESTART_COUNT:-0}"
# shellcheck disable=SC2016  # expands on each node
clean() { # on the other nodes only while Slurm still starts steps: not after a scancel
  rm -rf "$STILLHOUSE_OPS"-*
  timeout 30 srun --overlap --nodes="$SLURM_JOB_NUM_NODES" --ntasks="$SLURM_JOB_NUM_NODES" --ntasks-per-node=1 --cpus-per-task=1 \
    bash -c 'rm -rf "$STILLHOUSE_OPS-$SLURM_NODEID"' >/dev/null 2>&1 || true
}

echo "job $SLURM_JOB_ID, start $((${SLURM_RESTART_COUNT:-0} + 1)): $SLURM_NTASKS ranks on $SLURM_JOB_NODELIST, $MASTER_ADDR:$MASTER_PORT, $python"

# The first rank that fails ends the step: the others would wait for it in a collective. (The trainer lets all ranks meet before it leaves with 75.)
# srun then reports the others' end by its own TERM, so the first code is written down. A signal reaches every process of a task: the shell
# lets it pass and waits for the trainer's code.
export STILLHOUSE_CODE="$PWD/.stillhouse-$SLURM_JOB_ID-${SLURM_RESTART_COUNT:-0}.code"
# shellcheck disable=SC2016,SC2086  # the step expands its own variables; flags and prefix are words
srun --kill-on-bad-exit=1 ${SRUN_FLAGS:-} bash -c '
  export RANK=$SLURM_PROCID WORLD_SIZE=$SLURM_NTASKS LOCAL_RANK=$SLURM_LOCALID
  export TORCH_EXTENSIONS_DIR=${TORCH_EXTENSIONS_DIR:-$STILLHOUSE_OPS-$SLURM_NODEID}
  trap : TERM INT USR1 USR2
  "$@"
  code=$?
  [ $code = 0 ] || (set -o noclobber; echo $code >"$STILLHOUSE_CODE") 2>/dev/null
  exit $code' task ${STEP_PREFIX:-} "$python" -u "$root/launcher/run.py" "$@" &
step=$!

# Slurm tells this shell alone, 300 s before the time limit; srun passes the signal to every rank on every node.
# TERM comes with scancel, which Slurm itself sends to the ranks: here only live on until they have left.
trap 'echo "job $SLURM_JOB_ID: USR2, passed on to the ranks"; kill -USR2 $step' USR2
trap : TERM
code=0
while :; do
  wait $step && code=0 || code=$?
  kill -0 $step 2>/dev/null || break
done
if [ -s "$STILLHOUSE_CODE" ]; then code=$(<"$STILLHOUSE_CODE"); rm "$STILLHOUSE_CODE"; fi
echo "job $SLURM_JOB_ID: the trainer left with $code"
clean

# 75: saved after a signal, to be continued. Never against a user's scancel, after which the job is no longer RUNNING.
if [ "$code" = 75 ] && scontrol show job -o "$SLURM_JOB_ID" | grep -q 'JobState=RUNNING '; then
  scontrol requeue "$SLURM_JOB_ID" && sleep 60 # Slurm ends this shell meanwhile
fi
exit "$code"
