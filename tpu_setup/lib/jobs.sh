# shellcheck shell=bash
# A job: one command on all workers, its log, its end.

need_command() { # VERB
  [ "${#COMMAND[@]}" -gt 0 ] ||
    die "$1 needs a command" "tpu_setup/tpu $1 -- geex train --config=experiments/codegeex_13b.py --workdir=bucket/runs/a"
}

start_text() { printf '%s -- %s' "$(quoted bash .geex/job.sh start "$JOB")" "$(quoted "${COMMAND[@]}")"; }

verb_launch() {
  need_command launch
  on_all "$(start_text)" ||
    die "job $JOB did not start on every worker" "tpu_setup/tpu status shows where; then kill and launch again"
  say "job $JOB started on $((HOSTS * SLICES)) worker(s); tpu_setup/tpu log, attach, status, kill"
}

job_status() { on_all "$(quoted bash .geex/job.sh status "$JOB")"; }

verb_status() {
  local now
  now=$(state) || exit $?
  printf '%s: %s\n' "$NAME" "$now"
  case $now in
    ACTIVE | READY) job_status || die "not every worker answered" "tpu_setup/tpu ssh --worker N" ;;
  esac
}

verb_log() {
  on_worker "$(node "$SLICE")" "$WORKER" "$(quoted bash .geex/job.sh log "$JOB" "$LINES_SHOWN")"
}

verb_attach() {
  on_worker "$(node "$SLICE")" "$WORKER" "$(quoted bash .geex/job.sh attach "$JOB")"
}

verb_kill() {
  on_all "$(quoted bash .geex/job.sh stop "$JOB" "$GRACE")" ||
    die "job $JOB may still run on a worker" "tpu_setup/tpu status"
}
