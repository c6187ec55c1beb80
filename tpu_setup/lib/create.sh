# shellcheck shell=bash
# Asking for slices, and waiting for them.

verb_create() {
  request
  wait_ready
}

verb_wait() { wait_ready; }

request() {
  local command=()
  if [ -n "$QUEUED" ]; then
    command=(gcloud compute tpus queued-resources create "$NAME" "--project=$PROJECT" "--zone=$ZONE"
      "--accelerator-type=$TYPE" "--runtime-version=$VERSION")
    if [ "$SLICES" -gt 1 ]; then
      command+=("--node-count=$SLICES" "--node-prefix=$NAME")
    else
      command+=("--node-id=$NAME")
    fi
    [ -z "$VALID_UNTIL" ] || command+=("--valid-until-duration=$VALID_UNTIL")
    command+=(--async) # we wait ourselves, and say what is going on
  else
    command=(gcloud compute tpus tpu-vm create "$NAME" "--project=$PROJECT" "--zone=$ZONE"
      "--accelerator-type=$TYPE" "--version=$VERSION" --async)
  fi
  [ -z "$SPOT" ] || command+=(--spot)
  [ -z "$RESERVED" ] || command+=(--reserved)
  [ -z "$NETWORK" ] || command+=("--network=$NETWORK")
  [ -z "$SUBNETWORK" ] || command+=("--subnetwork=$SUBNETWORK")
  [ -z "$TAGS" ] || command+=("--tags=$TAGS")
  [ -z "$INTERNAL_IPS" ] || command+=(--internal-ips)
  [ -z "$DATA_DISK" ] || command+=("--data-disk=source=$DATA_DISK,mode=read-only")
  if [ -n "$SERVICE_ACCOUNT" ]; then
    command+=("--service-account=$SERVICE_ACCOUNT" --scopes=https://www.googleapis.com/auth/cloud-platform)
  fi
  run_or_explain "creating $NAME" "${command[@]}"
}

# Waits until the slices are ready; ends with one line where they will never be.
wait_ready() {
  local now last='' start=$SECONDS misses=0
  while :; do
    now=$(state) || exit $?
    [ "$DRY_RUN" = 1 ] && return
    if [ "$now" != "$last" ]; then
      say "$NAME: $now ($((SECONDS - start)) s)"
      last=$now
    fi
    case $now in
      ACTIVE | READY) return ;;
      FAILED) die "$NAME: the request FAILED$(reason)" "tpu_setup/tpu delete, then create again, perhaps in another zone" ;;
      SUSPENDED | SUSPENDING) die "$NAME: the request is $now: its time ran out or it was preempted" \
        "tpu_setup/tpu delete, then create; tpu_setup/tpu resume does both" ;;
      PREEMPTED | TERMINATED | STOPPED) die "$NAME: the slice is $now" "tpu_setup/tpu delete, then create; tpu_setup/tpu resume does both" ;;
      ABSENT | UNKNOWN) # just asked for, it may not be listed yet
        misses=$((misses + 1))
        [ "$misses" -lt 6 ] || die "$NAME: nothing known of it" "tpu_setup/tpu create" ;;
    esac
    pause "$POLL"
  done
}

# What the cloud says about a failed request, as " (...)".
reason() {
  local text
  [ -n "$QUEUED" ] || return 0
  text=$(gcloud compute tpus queued-resources describe "$NAME" "--project=$PROJECT" "--zone=$ZONE" \
    '--format=value(state.failedData.error.message)' 2>/dev/null) || return 0
  [ -z "$text" ] || printf ' (%s)' "${text%%$'\n'*}"
}
