# Functions and variables that the scripts in this folder share. It is sourced, never submitted. Needs $root and $scripts, $name for messages,
# and $without: the command to use without Slurm.
# shellcheck shell=bash

die() { echo "$name: $*" >&2; exit 2; }

# On a login node: --help prints the comment at the top of the script, and a call without arguments is refused.
if [ -z "${SLURM_JOB_ID:-}" ]; then
  for word in "$@"; do
    case $word in -h | --help) sed -n '2,/^[^#]/{/^#SBATCH/d; s/^# \{0,1\}//p}' "$scripts/$name"; exit 0 ;; esac
  done
  [ $# -gt 0 ] || die "expected arguments, got none; see slurm/$name --help"
fi
[ -f "$root/launcher/run.py" ] || die "expected the repository at $root, got no launcher/run.py; set STILLHOUSE_ROOT"
export STILLHOUSE_ROOT=$root

cluster=${STILLHOUSE_CLUSTER:-$root/slurm/cluster.sh}
# shellcheck source=/dev/null
if [ -f "$cluster" ]; then set +u; source "$cluster"; set -u; fi

python=${STILLHOUSE_PYTHON:-$root/.venv/bin/python}
if [ -z "${STILLHOUSE_PYTHON:-}" ] && [ ! -x "$python" ]; then python=$(command -v python || command -v python3) || die "expected python on PATH, got none; set STILLHOUSE_PYTHON"; fi
export PYTHONPATH=$root${PYTHONPATH:+:$PYTHONPATH}

if [ "${STILLHOUSE_OFFLINE:-}" = 1 ]; then # compute nodes without internet
  export HF_HUB_OFFLINE=${HF_HUB_OFFLINE:-1} HF_DATASETS_OFFLINE=${HF_DATASETS_OFFLINE:-1} WANDB_MODE=${WANDB_MODE:-offline}
fi

words() { printf '%q ' "$@"; }

# Hides credentials in URLs, because messages stay in a job's log. The rules are those of launcher/redaction.py, and one table tests both.
# \x01 marks a value to keep, \x02 a hidden one.
hide() {
  local end=$':,.)\x27}!' harmless='page|part|sort|order|limit|offset|length|start|end|version|versionid|revision|ref|format|download|split|lang'
  harmless+='|x-amz-algorithm|x-amz-date|x-amz-expires|x-amz-signedheaders|sv|sr|sp|st|se|spr'
  local value="[^&;#?[:space:]\"<>\\x01\\x02]*[^]&;#?[:space:]\"<>\\x01\\x02$end]"
  local bare="[^=&;#?[:space:]\"<>\\x01\\x02]*[^]=&;#?[:space:]\"<>\\x01\\x02$end]"
  sed -E "
    s#://[^/[:space:]]*@#://***@#g
    s~://[^][/@[:space:]]*:[0-9]*[^/@[:space:]0-9][^/@[:space:]]*/[^[:space:]\"']*@~://***@~g
    s~://[^][/@[:space:]]*:[0-9]*/[^[:space:]\"'?#]*@~://***@~g
    s~([?&;#]($harmless)=)~\\1\\x01~gI
    s~(#)([A-Za-z_-]{1,20}[]$end;]*([[:space:]\"<>]|\$))~\\1\\x01\\2~g
    :path; s~(://[^?#[:space:]\"<>]*;[^]=;/?#[:space:]\"<>]+=)[^];/?#[:space:]\"<>\\x01\\x02]*[^];/?#[:space:]\"<>\\x01\\x02$end]~\\1\\x02~; t path
    :value; s~(://[^[:space:]\"<>]*[?&;#][^=?&;#[:space:]\"<>]*=)$value~\\1\\x02~; t value
    :bare; s~(://[^?#[:space:]\"<>]*[?#]([^[:space:]\"<>]*[?&;#])?)$bare([]$end;]*([?&;#[:space:]\"<>]|\$))~\\1\\x02\\3~; t bare
    s~([?&][^]=?&;#/[:space:]\"']+=)[^]&;#[:space:]\"<>\\x01\\x02]*[^]&;#[:space:]\"<>\\x01\\x02$end]~\\1\\x02~g
    s~\\x02~***~g; s~\\x01~~g"
}

# check VERB [arguments …]: refuses what `stillhouse VERB` would refuse, before anything is submitted. A Python that only the compute nodes have
# checks nothing here.
check() {
  if [ ! -f "$root/launcher/config/check.py" ]; then return; fi # a trainer of your own, by STILLHOUSE_ROOT
  if "$python" -c 'import launcher.config.check' 2>/dev/null; then
    "$python" -m launcher.config.check "$@" || exit
  else
    echo "$name: $python cannot check the arguments on this node; the job checks them" >&2
  fi
}

# submit [sbatch flags …] -- script [arguments …]: prints the plan, submits, and sets $job to the job's number. With $test set, nothing is
# submitted, and Slurm says whether and when the job would start. The cluster file's flags come first, so that later ones override them.
submit() {
  local flags=() answer
  while [ "$1" != -- ]; do flags+=("$1"); shift; done
  shift
  command -v sbatch >/dev/null || die "expected Slurm's sbatch on PATH, got none; without Slurm: $without"
  # shellcheck disable=SC2206  # flags are split into words
  flags=(${SBATCH_FLAGS:-} "${flags[@]}")
  {
    echo "plan: sbatch $(words "${flags[@]}" "$@")"
    echo "  cluster file: $([ -f "$cluster" ] && echo "$cluster" || echo "none ($cluster does not exist)"); python: $python; prefix: ${STEP_PREFIX:-none}"
  } | hide >&2
  if [ -n "${test:-}" ]; then
    sbatch --test-only "${flags[@]}" "$@" 2>&1 | sed 's/^sbatch: //' >&2
    job=0
    return
  fi
  answer=$(sbatch --parsable "${flags[@]}" "$@")
  job=${answer%%;*}
}

# Runs scontrol. While Slurm's controller does not answer (restart, failover), tries again for ten minutes.
ask() {
  local answer tries
  for ((tries = 0; tries < 60; tries++)); do
    if answer=$(scontrol "$@" 2>&1); then echo "$answer"; return; fi
    case $answer in *controller* | *[Cc]onnect* | *[Tt]imed\ out*) ;; *) break ;; esac
    [ $tries != 0 ] || echo "job ${SLURM_JOB_ID:-}: Slurm's controller does not answer; trying again for ten minutes" >&2
    sleep 10
  done
  echo "$answer" >&2
  return 1
}

# The address of the job's first node, as the other nodes reach it: the one that Slurm uses, which can differ from the host name.
first_address() {
  local first address
  first=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | sed -n 1p)
  address=$(scontrol -o show node "$first" 2>/dev/null | sed -n 's/.* NodeAddr=\([^ ]*\).*/\1/p')
  echo "${STILLHOUSE_ADDRESS:-${address:-$first}}"
}
