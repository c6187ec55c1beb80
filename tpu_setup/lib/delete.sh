# shellcheck shell=bash
# shellcheck disable=SC2153 # the settings are made in config.sh
# Tearing down: exactly the slices of this name, after a question.

verb_delete() {
  local now answer name
  now=$(state) || exit $?
  if [ "$now" = ABSENT ]; then
    say "$NAME is not there: nothing to delete"
    return
  fi
  printf 'to delete, in project %s, zone %s (now %s):\n' "$PROJECT" "$ZONE" "$now"
  [ -z "$QUEUED" ] || printf '  queued resource %s\n' "$NAME"
  while read -r name; do printf '  slice %s (%s) and the disks of its %s host(s)\n' "$name" "$TYPE" "$HOSTS"; done < <(nodes)
  printf 'kept: buckets, shares and data disks\n'
  if [ "$YES" != 1 ] && [ "$DRY_RUN" != 1 ]; then
    printf 'delete? type the name %s: ' "$NAME"
    read -r answer || answer=''
    [ "$answer" = "$NAME" ] || die "not deleted" "type the name, or give --yes"
  fi
  remove
}

remove() {
  if [ -n "$QUEUED" ]; then
    run_or_explain "deleting $NAME" gcloud compute tpus queued-resources delete "$NAME" \
      "--project=$PROJECT" "--zone=$ZONE" --force --quiet
  else
    run_or_explain "deleting $NAME" gcloud compute tpus tpu-vm delete "$NAME" \
      "--project=$PROJECT" "--zone=$ZONE" --quiet
  fi
}
