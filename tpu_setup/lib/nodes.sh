# shellcheck shell=bash
# shellcheck disable=SC2153 # the settings are made in config.sh
# The slices: their names, their states, and commands on their workers.

# Names of the slices, one a line.
nodes() {
  local i
  if [ "$SLICES" = 1 ]; then
    printf '%s\n' "$NAME"
  else
    for ((i = 0; i < SLICES; i++)); do printf '%s-%s\n' "$NAME" "$i"; done
  fi
}

node() { # NUMBER
  if [ "$SLICES" = 1 ]; then printf '%s\n' "$NAME"; else printf '%s-%s\n' "$NAME" "$1"; fi
}

# The state of the request (queued) or of the slice; ABSENT where there is none, UNKNOWN where the
# cloud did not answer.
state() {
  local text errors out kind=tpu-vm format='value(state)' dry=READY
  if [ -n "$QUEUED" ]; then kind=queued-resources format='value(state.state)' dry=ACTIVE; fi
  local command=(gcloud compute tpus "$kind" describe "$NAME" "--project=$PROJECT" "--zone=$ZONE"
    "--format=$format")
  if [ "$DRY_RUN" = 1 ]; then
    ask "$dry" "${command[@]}"
    return
  fi
  errors=$(mktemp)
  if out=$("${command[@]}" 2>"$errors"); then
    rm -f "$errors"
    printf '%s\n' "${out:-UNKNOWN}"
    return
  fi
  text=$(cat "$errors")
  rm -f "$errors"
  case $text in
    *NOT_FOUND* | *"not found"*) printf 'ABSENT\n' ;;
    *PERMISSION_DENIED* | *"has not been used"* | *SERVICE_DISABLED*) explain "$text" "asking for $NAME" ;;
    *) say "no answer about $NAME: ${text%%$'\n'*}"; printf 'UNKNOWN\n' ;;
  esac
}

# States of the single slices of a queued resource: a preempted slice says so before its request.
node_states() {
  local name
  while read -r name; do
    if [ "$DRY_RUN" = 1 ]; then
      ask READY gcloud compute tpus tpu-vm describe "$name" "--project=$PROJECT" "--zone=$ZONE" '--format=value(state)'
    else
      gcloud compute tpus tpu-vm describe "$name" "--project=$PROJECT" "--zone=$ZONE" \
        '--format=value(state)' 2>/dev/null || printf 'UNKNOWN\n'
    fi
  done < <(nodes)
}

ssh_flags() {
  printf -- '--project=%s\n--zone=%s\n--quiet\n' "$PROJECT" "$ZONE"
  [ -z "$INTERNAL_IPS" ] || printf -- '--internal-ip\n'
}

on_worker() { # NODE WORKERS COMMAND_TEXT
  local flags
  mapfile -t flags < <(ssh_flags)
  run gcloud compute tpus tpu-vm ssh "$1" "${flags[@]}" "--worker=$2" "--command=$3"
}

# The same on all workers of all slices at once: a program over several slices waits for all.
on_all() { # COMMAND_TEXT
  local name pids=() failed=0 pid
  while read -r name; do
    if [ "$DRY_RUN" = 1 ]; then
      on_worker "$name" all "$1"
    else
      on_worker "$name" all "$1" </dev/null &
      pids+=($!)
    fi
  done < <(nodes)
  for pid in "${pids[@]}"; do wait "$pid" || failed=1; done
  return $failed
}

to_all() { # SOURCE TARGET [--recurse]
  local name flags
  mapfile -t flags < <(ssh_flags)
  while read -r name; do
    run gcloud compute tpus tpu-vm scp "${@:3}" "$1" "$name:$2" "${flags[@]}" --worker=all </dev/null ||
      return 1
  done < <(nodes)
}

verb_copy() {
  [ "${#REST[@]}" = 2 ] || die "copy takes SOURCE and TARGET" "tpu_setup/tpu copy data.tar data.tar"
  [ -e "${REST[0]}" ] || die "copy: no file '${REST[0]}'" "give one that exists"
  local recurse=()
  [ ! -d "${REST[0]}" ] || recurse=(--recurse)
  to_all "${REST[0]}" "${REST[1]}" "${recurse[@]}" || die "copying ${REST[0]} failed" "gcloud's own words stand above"
}

verb_ssh() {
  local flags name
  mapfile -t flags < <(ssh_flags)
  name=$(node "$SLICE")
  if [ "${#COMMAND[@]}" = 0 ]; then
    run gcloud compute tpus tpu-vm ssh "$name" "${flags[@]}" "--worker=$WORKER"
  else
    on_worker "$name" "$WORKER" "$(quoted "${COMMAND[@]}")"
  fi
}
