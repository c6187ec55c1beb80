# shellcheck shell=bash
# A run that outlives its machines: created, installed and launched again until it ends well.
# The workdir must outlive them too: on --bucket, --share or another disk.

BACKOFF_MOST=900

verb_resume() {
  need_command resume
  [ -n "$BUCKET$SHARE" ] || say "no --bucket and no --share: a workdir on the workers' own disks dies with them"
  local quick_failures=0 backoff=$POLL now outcome launched=''
  while :; do
    now=$(slices_state) || exit $?
    case $now in
      ACTIVE | READY)
        outcome=$(job_outcome)
        # What was stopped before this call is what this call goes on with.
        if [ -z "$launched" ] && [ "$outcome" = stopped ]; then outcome=none; fi
        case ${outcome%% *} in
          done) say "job $JOB ended well"; return ;;
          running) backoff=$POLL; launched=1 ;;
          unknown) ;; # some worker did not answer: perhaps it is going, the next look tells
          stopped) die "job $JOB was stopped by tpu_setup/tpu kill" "tpu_setup/tpu resume goes on with it when called again" ;;
          none | lost | terminated | failed)
            if [ "${outcome%% *}" = failed ]; then
              if [ "${outcome##* }" -lt "$QUICK" ]; then
                quick_failures=$((quick_failures + 1))
              else
                quick_failures=0
              fi
              say "job $JOB: $outcome; quick failures: $quick_failures of $MAX_FAILURES"
              [ "$quick_failures" -lt "$MAX_FAILURES" ] ||
                die "job $JOB failed $quick_failures times within $QUICK s of its start" "tpu_setup/tpu log"
              pause "$backoff"
              backoff=$(longer "$backoff")
            fi
            start_again && launched=1 ;;
        esac
        [ "$DRY_RUN" = 1 ] && return ;;
      UNKNOWN | CREATING | ACCEPTED | PROVISIONING | WAITING_FOR_RESOURCES | STARTING | RESTARTING | DELETING) ;;
      *)
        say "$NAME: $now"
        launched=''
        if ! (recreate "$now"); then
          say "not got; next try in $backoff s"
          pause "$backoff"
          backoff=$(longer "$backoff")
        fi
        continue ;;
    esac
    pause "$POLL"
  done
}

longer() {
  local next=$(($1 * 2))
  [ "$next" -gt "$BACKOFF_MOST" ] && next=$BACKOFF_MOST
  printf '%s\n' "$next"
}

# The state of the request, or of the worst slice of an active one.
slices_state() {
  local now
  now=$(state) || exit $?
  if [ "$now" = ACTIVE ] && [ -n "$QUEUED" ]; then
    local one
    while read -r one; do
      case $one in PREEMPTED | TERMINATED | STOPPED) now=$one ;; esac
    done < <(node_states)
  fi
  printf '%s\n' "$now"
}

recreate() { # STATE
  [ "$1" = ABSENT ] || remove
  request
  wait_ready
  verb_install
}

# Ends what is left of the job on other workers, then starts it everywhere.
start_again() {
  on_all "$(quoted bash .geex/job.sh stop "$JOB" "$GRACE")" || { say "a worker does not answer"; return 1; }
  on_all "$(start_text)" || { say "job $JOB did not start everywhere"; return 1; }
  say "job $JOB started"
}

# done | running | none | lost | terminated | stopped | unknown | "failed CODE SECONDS", over all.
job_outcome() {
  local lines answers failed running ended
  [ "$DRY_RUN" = 1 ] && { job_status >&2; printf 'none\n'; return; }
  lines=$(job_status 2>/dev/null) || { printf 'unknown\n'; return; }
  lines=$(grep -o 'geex-job .*' <<<"$lines" || true)
  answers=$(grep -c . <<<"$lines" || true)
  [ "$answers" = $((HOSTS * SLICES)) ] || { printf 'unknown\n'; return; }
  failed=$(sed -n 's/.* state=failed code=\([0-9]*\) seconds=\([0-9]*\).*/failed \1 \2/p' <<<"$lines" | head -n 1)
  running=$(grep -c ' state=running' <<<"$lines" || true)
  ended=$(grep -c ' state=done' <<<"$lines" || true)
  if [ -n "$failed" ]; then
    printf '%s\n' "$failed"
  elif [[ $lines == *' state=stopped'* ]]; then
    printf 'stopped\n'
  elif [[ $lines == *' state=lost'* ]]; then
    printf 'lost\n'
  elif [[ $lines == *' state=terminated'* ]]; then
    printf 'terminated\n'
  elif [ "$ended" = "$answers" ]; then
    printf 'done\n'
  elif [ $((running + ended)) = "$answers" ]; then
    printf 'running\n'
  else
    printf 'none\n'
  fi
}
