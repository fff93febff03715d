#!/usr/bin/env bash
# cluster_up.sh FOLDER: a real, throw-away Slurm on this one machine, as root.
#
# Each host (ctl, and ${PREFIX}1 to ${PREFIX}N) is one `unshare` process with its own network, host name, mounts and process ids.
# The hosts hang on a bridge inside ctl's network; the machine's own network, /etc and /run stay as they are.
# FOLDER/bin holds the client commands; FOLDER/pids the processes, for cluster_down.sh.
#
# As on many machines, a host's own name stands for 127.0.1.1 on that host. There are two partitions: main, whose jobs are preempted with five
# seconds of grace, and urgent, which preempts them.
#
# environment: NODES=3, PREFIX=node (of the hosts' names), and a word for each node (the last word for all that follow): CPUS="4" GPUS="0"
# (devices are copies of /dev/null). CRED_SECONDS=60: a node refuses a start that reaches it later, as on a machine with too much to do; Slurm
# waits as long before it starts a requeued job again.
set -euo pipefail
folder=$(mkdir -p "${1:?usage: cluster_up.sh FOLDER}" && cd "$1" && pwd)
here=$(cd "$(dirname "$0")" && pwd)
NODES=${NODES:-3} PREFIX=${PREFIX:-node} CRED_SECONDS=${CRED_SECONDS:-60}
read -ra cpus <<<"${CPUS:-4}"
read -ra gpus <<<"${GPUS:-0}"
of() { local -n all=$1; echo "${all[$(($2 < ${#all[@]} ? $2 : ${#all[@]} - 1))]}"; } # of LIST NUMBER: its word, or the last
net=198.51.100 # reserved for documentation: never anybody's
# shellcheck disable=SC2154
trap 'code=$?; [ $code = 0 ] || { tail -n 5 "$folder"/log/* >&2 || true; "$here/cluster_down.sh" "$folder" || true; }' EXIT

chmod 755 "$folder" # munged wants its socket reachable for everyone
mkdir -p "$folder"/{bin,etc,log,run,dev,munge,spool/ctld}
chmod 700 "$folder/munge"

# The key that the hosts trust.
(umask 377 && head -c 128 /dev/urandom >"$folder/munge/key")
munged --key-file="$folder/munge/key" --seed-file="$folder/munge/seed" --socket="$folder/run/munge.sock" \
  --pid-file="$folder/run/munged.pid" --log-file="$folder/log/munged.log"
for _ in $(seq 100); do [ -s "$folder/run/munged.pid" ] && break; sleep 0.05; done
echo "munged $(cat "$folder/run/munged.pid")" >>"$folder/pids"

# Configuration.
: >"$folder/etc/gres.conf"
for ((n = 1; n <= NODES; n++)); do
  for ((g = 0; g < $(of gpus $((n - 1))); g++)); do
    [ -e "$folder/dev/gpu$g" ] || mknod "$folder/dev/gpu$g" c 1 3
    echo "NodeName=$PREFIX$n Name=gpu File=$folder/dev/gpu$g" >>"$folder/etc/gres.conf"
  done
done
{
  cat <<CONF
ClusterName=stillhouse
SlurmctldHost=ctl($net.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket=$folder/run/munge.sock,cred_expire=$CRED_SECONDS
CredType=cred/munge
StateSaveLocation=$folder/spool/ctld
SlurmdSpoolDir=$folder/spool/%n
SlurmctldPidFile=$folder/run/slurmctld.pid
SlurmdPidFile=$folder/run/slurmd.%n.pid
SlurmctldLogFile=$folder/log/slurmctld.log
SlurmdLogFile=$folder/log/slurmd.%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
MailProg=/bin/true
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
JobCompType=jobcomp/filetxt
JobCompLoc=$folder/log/jobcomp.txt
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=2,bf_interval=2,batch_sched_delay=0
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SlurmdParameters=config_overrides
GresTypes=gpu
JobRequeue=1
ReturnToService=2
KillWait=5
MinJobAge=3600
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
SlurmdTimeout=10
TCPTimeout=2
MessageTimeout=10
CompleteWait=0
UnkillableStepTimeout=20
CONF
  for ((n = 1; n <= NODES; n++)); do
    mkdir -p "$folder/spool/$PREFIX$n"
    echo "NodeName=$PREFIX$n NodeHostname=$PREFIX$n NodeAddr=$net.$((10 + n)) CPUs=$(of cpus $((n - 1))) RealMemory=16000 Gres=gpu:$(of gpus $((n - 1))) State=UNKNOWN"
  done
  echo "PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP PriorityTier=1 PreemptMode=REQUEUE GraceTime=5"
  echo "PartitionName=urgent Nodes=ALL MaxTime=INFINITE State=UP PriorityTier=10 PreemptMode=OFF"
} >"$folder/etc/slurm.conf"

# The first process of a host: names it, waits for its cable, starts its daemon, reaps what the daemon's children leave behind.
cat >"$folder/etc/host.sh" <<'HOST'
folder=$1 name=$2 address=$3 device=$4; shift 4
hostname "$name"
mount --bind "$folder/etc/hosts-$name" /etc/hosts
ip link set lo up
for _ in $(seq 500); do ip link show "$device" >/dev/null 2>&1 && break; sleep 0.02; done
ip addr add "$address/24" dev "$device" && ip link set "$device" up
SLURM_CONF=$folder/etc/slurm.conf "$@" &
wait $!
echo "$name: $1 left with $?"
HOST
# bin/boot NAME ADDRESS DEVICE DAEMON…: a host, started or, after a crash, started again.
cat >"$folder/bin/boot" <<'BOOT'
#!/usr/bin/env bash
set -euo pipefail
folder=$(cd "$(dirname "$0")/.." && pwd)
env -i PATH="$PATH" HOME="${HOME:-/root}" LANG=C.UTF-8 \
  setsid unshare --net --uts --mount --pid --fork --kill-child=SIGKILL --mount-proc \
  bash "$folder/etc/host.sh" "$folder" "$@" </dev/null >>"$folder/log/hosts.log" 2>&1 &
pid=$!
port=port-$(tail -c 10 <<<"$1") # an interface's name has at most 15 letters
echo "$1 $pid" >>"$folder/pids"
for _ in $(seq 500); do
  [ "$(readlink /proc/$pid/ns/net)" != "$(readlink /proc/self/ns/net)" ] && break
  sleep 0.02
done
if [ "$1" = ctl ]; then
  nsenter -t $pid -n ip link add bridge type bridge
  nsenter -t $pid -n ip link set bridge up
else
  ctl=$(sed -n 's/^ctl //p' "$folder/pids")
  nsenter -t "$ctl" -n ip link add "$port" type veth peer name eth0 netns $pid
  nsenter -t "$ctl" -n ip link set "$port" master bridge up
fi
BOOT
chmod +x "$folder/bin/boot"
hosts() { # what host NAME takes names for
  echo "127.0.0.1 localhost"
  [ "$1" = ctl ] && echo "$net.1 ctl" || echo "127.0.1.1 $1"
  [ "$1" = ctl ] || echo "$net.1 ctl"
  for ((h = 1; h <= NODES; h++)); do [ "$1" = "$PREFIX$h" ] || echo "$net.$((10 + h)) $PREFIX$h"; done
}
hosts ctl >"$folder/etc/hosts-ctl"
"$folder/bin/boot" ctl $net.1 bridge slurmctld -D
for ((n = 1; n <= NODES; n++)); do
  hosts "$PREFIX$n" >"$folder/etc/hosts-$PREFIX$n"
  "$folder/bin/boot" "$PREFIX$n" "$net.$((10 + n))" eth0 slurmd -D
done
ctl=$(sed -n 's/^ctl //p' "$folder/pids")

# bin/cable NODE up|down: its way to the others; bin/crash NODE: its power.
cat >"$folder/bin/cable" <<CABLE
#!/bin/bash
exec nsenter -t $ctl -n ip link set "port-\$(tail -c 10 <<<"\$1")" "\$2"
CABLE
cat >"$folder/bin/crash" <<CRASH
#!/bin/bash
kill -KILL "\$(awk -v name="\$1" '\$1 == name {pid = \$2} END {print pid}' "$folder/pids")"
CRASH
chmod +x "$folder/bin/cable" "$folder/bin/crash"

# Client commands. They leave their own folder out of PATH: sbatch hands its environment to the job, which needs the real ones.
for command in sbatch srun squeue sinfo scancel scontrol; do
  cat >"$folder/bin/$command" <<CLIENT
#!/bin/bash
PATH=":\$PATH:"; PATH=\${PATH//":$folder/bin:"/:}; PATH=\${PATH#:}; PATH=\${PATH%:}
export PATH SLURM_CONF=$folder/etc/slurm.conf
exec nsenter -t $ctl -n -u -- $(command -v $command) "\$@"
CLIENT
  chmod +x "$folder/bin/$command"
done

# bin/on NODE command…: the command on that host.
cat >"$folder/bin/on" <<ON
#!/bin/bash
host=\$(awk -v name="\$1" '\$1 == name {pid = \$2} END {print pid}' "$folder/pids"); shift
SLURM_CONF=$folder/etc/slurm.conf exec nsenter -t "\$(pgrep -P "\$host" | head -n 1)" -n -u -m -p -- "\$@"
ON
chmod +x "$folder/bin/on"

for _ in $(seq 600); do
  [ "$("$folder/bin/sinfo" -p main -h -o '%T %D' 2>/dev/null)" = "idle $NODES" ] && exit 0
  sleep 0.1
done
echo "cluster_up.sh: expected $NODES idle nodes within 60 s, got: $("$folder/bin/sinfo" -N -h 2>&1)" >&2
exit 1
