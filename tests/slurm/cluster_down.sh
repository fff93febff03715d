#!/usr/bin/env bash
# cluster_down.sh FOLDER: ends what cluster_up.sh started there, by process id. A host's `unshare` takes everything on that host with it.
folder=${1:?usage: cluster_down.sh FOLDER}
[ -s "$folder/pids" ] || exit 0
ours() { { tr '\0' ' ' <"/proc/$1/cmdline"; } 2>/dev/null | grep -qF "$folder/"; } # an id may have been given to another process since
while read -r _ pid; do ours "$pid" && kill -KILL "$pid"; done <"$folder/pids"
for _ in $(seq 100); do
  left=$(while read -r name pid; do ours "$pid" && echo "$name:$pid"; done <"$folder/pids")
  [ -z "$left" ] && rm "$folder/pids" && exit 0
  sleep 0.05
done
echo "cluster_down.sh: still alive: $left" >&2
exit 1
