#!/usr/bin/env bash
# On a worker: one job, its log, its process group and its exit status.
# usage: job.sh start JOB -- COMMAND... | status JOB | log JOB [LINES] | attach JOB | stop JOB [GRACE]
# $GEEX_HOME/jobs/JOB/ holds command, pid ("PID STARTTIME"), started, log and, at the end, exit;
# `terminated` beside it says that a SIGTERM came, `stopped` that it was ours.
set -euo pipefail
home=${GEEX_HOME:-$HOME/.geex}
verb=${1:?verb} job=${2:?job}
shift 2
folder=$home/jobs/$job

# When a process began, in ticks since boot: a recycled pid has another.
began() { # PID
  local stat fields
  stat=$(cat "/proc/$1/stat" 2>/dev/null) || return 1
  read -ra fields <<<"${stat##*) }" # a name may hold spaces and brackets
  [ "${fields[0]}" != Z ] || return 1
  printf '%s\n' "${fields[19]}"
}

# The pid of our job if it is running, and really ours.
running() {
  local pid ticks
  [ -f "$folder/pid" ] || return 1
  read -r pid ticks <"$folder/pid"
  [ "$(began "$pid")" = "$ticks" ] || return 1
  printf '%s\n' "$pid"
}

seconds() {
  local end
  end=$(date +%s)
  [ ! -f "$folder/exit" ] || end=$(stat -c %Y "$folder/exit")
  printf '%s\n' $((end - $(cat "$folder/started")))
}

start() {
  local pid
  [ "${1-}" = -- ] && shift
  [ $# -gt 0 ] || { echo "job.sh: no command" >&2; exit 2; }
  if pid=$(running); then
    echo "job $job runs already (pid $pid): stop it first" >&2
    exit 2
  fi
  mkdir -p "$folder"
  rm -f "$folder"/{exit,pid,stopped,terminated}
  printf '%q ' "$@" >"$folder/command"
  date +%s >"$folder/started"
  printf '=== %s: %s\n' "$(date -u +%FT%TZ)" "$(cat "$folder/command")" >>"$folder/log"
  local work=$HOME
  [ ! -d "$home/source" ] || work=$home/source
  # A session of its own: it outlives this connection, and its group is all of it.
  PATH=$home/venv/bin:$PATH setsid nohup bash "$0" run "$job" "$work" "$@" \
    >>"$folder/log" 2>&1 </dev/null &
  pid=$!
  printf '%s %s\n' "$pid" "$(began "$pid" || echo 0)" >"$folder/pid.new"
  mv "$folder/pid.new" "$folder/pid"
  echo "$(hostname): job $job started, pid $pid"
}

# The job's leader: passes SIGTERM on, and writes down how the command ended.
lead() { # WORK COMMAND...
  local child='' code=0 seen=0 late
  cd "$1"
  shift
  terms=0
  trap 'terms=$((terms + 1)); [ -z "$child" ] || kill -TERM "$child" 2>/dev/null || true' TERM
  "$@" &
  child=$!
  [ "$terms" = 0 ] || kill -TERM "$child" # it came before there was a child to pass it to
  wait "$child" || code=$?
  while [ "$terms" -gt "$seen" ]; do # the signal ended the waiting, not the command
    seen=$terms late=0
    wait "$child" || late=$?
    [ "$late" = 127 ] || code=$late
  done
  [ "$terms" = 0 ] || : >"$folder/terminated"
  printf '%s\n' "$code" >"$folder/exit.new"
  mv "$folder/exit.new" "$folder/exit"
}

status() {
  local pid line code
  if [ ! -f "$folder/started" ]; then
    line=state=none
  elif pid=$(running); then
    line="state=running pid=$pid seconds=$(seconds)"
  elif [ -f "$folder/exit" ]; then
    code=$(cat "$folder/exit")
    line=failed
    [ "$code" != 0 ] || line="done"
    # geex train saves and ends with 0 when the machine is taken away: that is not the run's end.
    [ ! -f "$folder/terminated" ] || line=terminated
    [ ! -f "$folder/stopped" ] || line=stopped
    line="state=$line code=$code seconds=$(seconds)"
  else
    line=state=lost # the machine was restarted under it, or it was killed from outside
  fi
  echo "geex-job $job $line host=$(hostname)"
}

attach() {
  local pid
  [ -f "$folder/log" ] || { echo "no job $job here" >&2; exit 2; }
  if pid=$(running); then
    tail -n 50 --pid="$pid" -f "$folder/log"
  else
    tail -n 50 "$folder/log"
  fi
  [ -f "$folder/exit" ] || { echo "job $job ended without a word" >&2; exit 1; }
  exit "$(cat "$folder/exit")"
}

stop() { # GRACE
  local pid waited=0
  pid=$(running) || { echo "$(hostname): job $job does not run"; return; }
  : >"$folder/stopped"
  # To the leader, which passes it on: the program saves and ends.
  kill -TERM "$pid"
  while running >/dev/null && [ "$waited" -lt $((${1:-120} * 5)) ]; do
    sleep 0.2
    waited=$((waited + 1))
  done
  if running >/dev/null; then
    kill -KILL -- "-$pid" # the group that start made
    echo "$(hostname): job $job killed"
  else
    echo "$(hostname): job $job ended"
  fi
}

case $verb in
  start) start "$@" ;;
  run) lead "$@" ;;
  status) status ;;
  log) tail -n "${1:-50}" "$folder/log" ;;
  attach) attach ;;
  stop) stop "$@" ;;
  *) echo "job.sh: unknown verb $verb" >&2; exit 2 ;;
esac
