#!/bin/bash
# Trains on one node or many, with one task per rank:
#
#   sbatch --nodes=2 --ntasks-per-node=8 --gpus-per-node=8 slurm/distil_pretrain.sh --config configs/X.yaml key=value …
#   slurm/distil_pretrain.sh [--test-only] --config configs/X.yaml key=value …     submits itself, with the flags of slurm/cluster.sh
#
# Everything after the script's name goes to the trainer. The settings of your cluster are in slurm/cluster.sh (see cluster.sh.example).
# Environment variables override it, and sbatch's flags override both. Without --ntasks… there is one rank per GPU, or one per node without
# GPUs. The job's exit code is the trainer's. More in docs/cluster.md.
#SBATCH --job-name=stillhouse
#SBATCH --output=%x-%j.out --open-mode=append
#SBATCH --requeue --signal=B:USR2@300
set -euo pipefail
name=distil_pretrain.sh

# In a job, $0 is Slurm's copy of the script. Slurm knows the path of the original.
script=$0
if [ -n "${SLURM_JOB_ID:-}" ] && [[ $script == */slurm_script ]]; then
  script=$(scontrol -o show job "$SLURM_JOB_ID") && script=${script#* Command=} # path and arguments; both can contain spaces
  case $script in *"/$name"*) script=${script%%"/$name"*}/$name ;; *) script=${script%% *} ;; esac
fi
scripts=$(CDPATH= cd -- "$(dirname -- "$script")" && pwd)
root=${STILLHOUSE_ROOT:-$(dirname "$scripts")}
without="deepspeed launcher/run.py --config …"
source "$scripts/common.sh"

if [ -z "${SLURM_JOB_ID:-}" ]; then
  if [ "${1:-}" = --test-only ]; then test=1; shift; fi
  check train "$@"
  submit -- "$scripts/distil_pretrain.sh" "$@"
  [ -n "${test:-}" ] || echo "Submitted batch job $job"
  exit
fi

# Slurm's warning can come before the ranks start: it is stored in $early and passed on later. scancel sends TERM to the ranks too: this shell
# ignores it and waits until they have exited.
early= step=
trap 'early=1; [ -z "$step" ] || kill -USR2 $step' USR1 USR2
trap : TERM

# sbatch passes on its caller's environment. If the caller is another job, these are that job's variables, and Slurm overwrites only some.
facts=$(scontrol -o show job "$SLURM_JOB_ID" | grep "^JobId=$SLURM_JOB_ID ") || true
fact() { sed -n "s#.* $1=\([^ ]*\).*#\1#p" <<<" ${facts%% Command=*} "; }
if [ -n "$facts" ]; then
  tasks=$(fact NumTasks)
  if [[ ${SLURM_NTASKS:-$tasks} != "$tasks" && $tasks =~ ^[0-9]+$ ]]; then
    echo "job $SLURM_JOB_ID: SLURM_NTASKS=$SLURM_NTASKS is another job's, from which sbatch was called; it is ignored (this job has $tasks tasks)"
    unset SLURM_NTASKS SLURM_NPROCS SLURM_NTASKS_PER_NODE
  fi
  [ "${SLURM_ARRAY_JOB_ID:-}" = "$(fact ArrayJobId)" ] || unset SLURM_ARRAY_JOB_ID SLURM_ARRAY_TASK_ID
  SLURM_RESTART_COUNT=$(fact Restarts)
  [[ $facts == *gres* ]] || unset "${!SLURM_GPUS@}" # srun would request them
fi
unset LOCAL_WORLD_SIZE TORCHELASTIC_USE_AGENT_STORE
end=$(fact EndTime)
if [[ $end == *T* ]] && left=$(($(date -d "$end" +%s) - $(date +%s))) && [ $left -le 300 ]; then
  echo "job $SLURM_JOB_ID: $left s are left, but Slurm's warning comes 300 s before the end (or as --signal says); raise --time, or set --signal=B:USR2@SECONDS"
fi

# One folder per job: the logs of the other ranks, the progress of the run, and which rank failed first.
# The last task of an array has the array's own job number. Slurm would take that number for the whole array and requeue the other tasks too.
task=${SLURM_ARRAY_JOB_ID:+${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID}
task=${task:-$SLURM_JOB_ID}
export STILLHOUSE_LOGS="${STILLHOUSE_LOGS:-$PWD}/stillhouse-$task"
made=$(mkdir -p "$STILLHOUSE_LOGS" 2>&1 && touch "$STILLHOUSE_LOGS/starts" 2>&1) ||
  die "expected to write to $STILLHOUSE_LOGS, got ${made##*: }; set STILLHOUSE_LOGS to a folder that you can write"
export STILLHOUSE_START=$((${SLURM_RESTART_COUNT:-0} + 1))
export STILLHOUSE_CODE="$STILLHOUSE_LOGS/code-$STILLHOUSE_START"
export STILLHOUSE_PROGRESS="$STILLHOUSE_LOGS/progress" # the trainer writes the update of its newest checkpoint to this file

# A job that starts again and again without a newer checkpoint (a node always dies, a signal always comes too early) ends with a message.
progress() { cat "$STILLHOUSE_PROGRESS" 2>/dev/null || echo 0; }
read -r before starts <<<"$(cat "$STILLHOUSE_LOGS/starts" 2>/dev/null || echo "-1 0")"
[ "$(progress)" = "$before" ] && starts=$((starts + 1)) || starts=1
echo "$(progress) $starts" >"$STILLHOUSE_LOGS/starts"
limit=${STILLHOUSE_STARTS:-3}
no_progress() { echo "job $SLURM_JOB_ID: $1 starts in a row came no further than update $(progress); not started again; see the messages above and $STILLHOUSE_LOGS"; }
if [ "$starts" -gt "$limit" ]; then no_progress "$limit"; exit 1; fi

# Number of ranks: --ntasks… if it was given. Otherwise one rank for each GPU that Slurm gave to the job; nodes may differ.
if [ -z "${SLURM_NTASKS:-}" ]; then
  declare -A gpus=()
  while read -r nodes gres; do
    for node in $(scontrol show hostnames "$nodes"); do gpus[$node]=$gres; done
  done < <(scontrol -d -o show job "$task" | grep -oE ' Nodes=[^ ]+ CPU_IDs=[^ ]+ Mem=[^ ]+ GRES=[^ ]*' |
    sed -nE 's/.* Nodes=([^ ]+).*GRES=.*gpu:([^(,]*:)?([0-9]+).*/\1 \3/p; t; s/.*//')
  export SLURM_HOSTFILE="$STILLHOUSE_LOGS/hosts-$STILLHOUSE_START"
  for node in $(scontrol show hostnames "$SLURM_JOB_NODELIST"); do
    count=${gpus[$node]:-0}
    for ((n = 0; n < (count > 0 ? count : 1); n++)); do echo "$node"; done
  done >"$SLURM_HOSTFILE"
  SLURM_NTASKS=$(wc -l <"$SLURM_HOSTFILE")
  layout="--ntasks=$SLURM_NTASKS --distribution=arbitrary --overcommit"
  unset SLURM_NTASKS_PER_NODE SLURM_TASKS_PER_NODE
else
  layout=
  export SRUN_CPUS_PER_TASK=${SLURM_CPUS_PER_TASK:-1} # srun does not inherit it from sbatch any more
fi
export WORLD_SIZE=$SLURM_NTASKS

# The batch script runs on the job's first node, so a port that is free here is free where rank 0 listens.
MASTER_ADDR=$(first_address)
MASTER_PORT=${MASTER_PORT:-$((20000 + SLURM_JOB_ID % 10000))}
while (exec 3<>"/dev/tcp/127.0.0.1/$MASTER_PORT") 2>/dev/null || (exec 3<>"/dev/tcp/$MASTER_ADDR/$MASTER_PORT") 2>/dev/null; do
  MASTER_PORT=$((MASTER_PORT + 1))
done
export MASTER_ADDR MASTER_PORT

# WARN: NCCL then logs the cause of a failure, not only "unhandled error". Only train.timeout_seconds decides how long ranks wait for each other.
# torch's own monitor must not end a process before the trainer has named the lost rank.
export NCCL_DEBUG=${NCCL_DEBUG:-WARN} TORCH_NCCL_HEARTBEAT_TIMEOUT_SEC=${TORCH_NCCL_HEARTBEAT_TIMEOUT_SEC:-3600}

# Copies of remote shards lie on the node's own storage and stay there for the next job.
[ -z "${STILLHOUSE_LOCAL:-}" ] || [[ " $* " == *" data.cache_folder="* ]] || set -- "$@" "data.cache_folder=$STILLHOUSE_LOCAL/stillhouse-shards-$(id -u)"

echo "job $SLURM_JOB_ID, start $STILLHOUSE_START: $SLURM_NTASKS ranks on $SLURM_JOB_NODELIST, $MASTER_ADDR:$MASTER_PORT, $python"

# The first rank that fails ends the step, because the others would wait for it in a collective. (For exit code 75, the trainer lets all ranks
# meet first.) srun then reports TERM for the other ranks, so the task writes the first exit code to a file. A signal reaches every process of a
# task: the shell ignores it and waits for the trainer's exit code. Rank 0 writes to the job's log, the others to their own logs.
# shellcheck disable=SC2016,SC2086  # the step expands its own variables; flags and prefix are split into words
srun --kill-on-bad-exit=1 $layout ${SRUN_FLAGS:-} bash -c '
  export RANK=$SLURM_PROCID LOCAL_RANK=$SLURM_LOCALID
  here=${SLURM_TASKS_PER_NODE:-1}; here=${here%%[!0-9]*}; cores=$(nproc)
  export OMP_NUM_THREADS=${OMP_NUM_THREADS:-${SLURM_CPUS_PER_TASK:-$((cores / here > 0 ? cores / here : 1))}}
  if [ "$RANK" != 0 ]; then
    exec >>"$STILLHOUSE_LOGS/rank-$RANK.log" 2>&1
    echo "start $STILLHOUSE_START on $(hostname)"
  fi
  trap : TERM INT USR1 USR2
  "$@"
  code=$?
  case $code in 138 | 140 | 143) code=75 ;; esac # killed by USR1, USR2 or TERM before the trainer could catch it: nothing to save, start again
  [ $code = 0 ] || (set -o noclobber; echo "$code $RANK $(hostname)" >"$STILLHOUSE_CODE") 2>/dev/null
  [ "$code $RANK" != "0 0" ] || : >"$STILLHOUSE_CODE-done"
  exit $code' task ${STEP_PREFIX:-} "$python" -u "$root/launcher/run.py" "$@" &
step=$!

# Slurm signals only this shell, 300 s before the time limit. srun passes the signal to every rank on every node.
trap 'early=1; echo "job $SLURM_JOB_ID: got a signal to stop, passed it to the ranks"; kill -USR2 $step' USR1 USR2
[ -z "$early" ] || kill -USR2 $step
# srun never returns if the step's daemon was killed, because a killed daemon reports nothing. So the files that the ranks write decide.
code=0 ended=
while kill -0 $step 2>/dev/null; do
  sleep 2 &
  wait -n || true # the step's end, two seconds, or a signal
  kill -PIPE $! 2>/dev/null || true
  [ -e "$STILLHOUSE_CODE" ] || [ -e "$STILLHOUSE_CODE-done" ] || continue
  ended=${ended:-$SECONDS}
  if [ $((SECONDS - ended)) -ge "${STILLHOUSE_STEP_SECONDS:-120}" ] && kill -KILL $step 2>/dev/null; then
    echo "job $SLURM_JOB_ID: the trainer has exited, but Slurm's step did not end within ${STILLHOUSE_STEP_SECONDS:-120} s: no longer waited for"
    [ ! -e "$STILLHOUSE_CODE-done" ] || code=done
  fi
done
if [ $code = 0 ]; then wait $step || code=$?; else code=0; fi
who=
case $code$early in 1381 | 1401) code=75 ;; esac # killed srun itself, before it had started a rank
if [ -s "$STILLHOUSE_CODE" ]; then
  read -r code rank host <"$STILLHOUSE_CODE"
  who=" (rank $rank on $host was the first)"
fi
if [ "$code" != 0 ] && [ "$code" != 75 ]; then # show the messages of the other ranks
  tail -q -n 20 "$STILLHOUSE_LOGS"/rank-*.log 2>/dev/null | grep '^stillhouse:' | sort -u | head -n 20 || true
fi
echo "job $SLURM_JOB_ID: the trainer left with $code$who"

# 75: saved after a signal. After a user's scancel the job is no longer RUNNING, and is not requeued.
if [[ " ${STILLHOUSE_REQUEUE_ON:-75} " == *" $code "* ]] && ask -o show job "$task" | grep -q 'JobState=RUNNING '; then
  if [ "$(progress)" = "$(cut -d' ' -f1 "$STILLHOUSE_LOGS/starts")" ] && [ "$starts" -ge "$limit" ]; then
    no_progress "$starts"
  else
    # If Slurm's controller did not answer when the step ended, the step's daemons wait for a minute to report it. Until they have ended, the node
    # rejects the restarted job (duplicate job id), Slurm drains the node, and the job is held.
    for ((n = 0; n < 90; n++)); do
      pgrep -f "^slurmstepd: \[$SLURM_JOB_ID\.[0-9]" >/dev/null 2>&1 || break
      sleep 1
    done
    ask requeue "$task" && sleep 60 # Slurm ends this shell during the sleep
  fi
fi
exit "$code"
