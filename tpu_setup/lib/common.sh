# shellcheck shell=bash
# One-line errors, and the one door through which commands go.

die() { # WHAT REMEDY
  printf 'tpu: error: %s; %s\n' "$1" "$2" >&2
  exit 2
}

say() { printf 'tpu: %s\n' "$*" >&2; }

# The command as one could paste it into a shell.
quoted() {
  local word out=''
  for word in "$@"; do
    if [[ $word =~ ^[A-Za-z0-9_@%+=:,./~-]+$ ]]; then
      out+=" $word"
    else
      out+=" '${word//\'/\'\\\'\'}'"
    fi
  done
  printf '%s\n' "${out# }"
}

# Runs a command that changes something or asks the cloud; with --dry-run it only prints it.
run() {
  if [ "$DRY_RUN" = 1 ]; then
    quoted "$@"
  else
    "$@"
  fi
}

# Output of a question to the cloud; with --dry-run the question is printed and the first argument
# is the answer.
ask() { # DRY_ANSWER COMMAND...
  local answer=$1
  shift
  if [ "$DRY_RUN" = 1 ]; then
    quoted "$@" >&2
    printf '%s\n' "$answer"
  else
    "$@"
  fi
}

pause() { [ "$DRY_RUN" = 1 ] || sleep "$1"; }

# One line per known way in which the cloud says no.
explain() { # TEXT_OF_STDERR WHAT
  local text=$1 what=$2
  case $text in
    *"has not been used"* | *"API has not been enabled"* | *SERVICE_DISABLED*)
      die "$what: the TPU API is off in project $PROJECT" \
        "gcloud services enable tpu.googleapis.com --project=$PROJECT" ;;
    *[Qq]uota*)
      die "$what: the quota of $GENERATION chips in $ZONE is used up or 0" \
        "ask for $((CHIPS * SLICES)) chips at https://console.cloud.google.com/iam-admin/quotas (service: Cloud TPU API), or take another zone" ;;
    *"no more capacity"* | *STOCKOUT* | *"not enough resources"* | *RESOURCE_EXHAUSTED*)
      die "$what: $ZONE has no free $TYPE now" \
        "wait in line with --queued --valid-until 6h, or take another zone" ;;
    *PERMISSION_DENIED* | *"does not have permission"* | *"Required '"*)
      die "$what: this account may not" \
        "grant it roles/tpu.admin and roles/iam.serviceAccountUser in project $PROJECT" ;;
    *ALREADY_EXISTS* | *"already exists"*)
      die "$what: $NAME exists already" "tpu_setup/tpu wait, or delete it, or take another --name" ;;
    *"not found"* | *NOT_FOUND*)
      die "$what: $NAME is not there" "tpu_setup/tpu create" ;;
    *)
      printf '%s\n' "$text" >&2
      die "$what failed" "gcloud's own words stand above" ;;
  esac
}

# Runs a command; if it fails, says why in one line and ends.
run_or_explain() { # WHAT COMMAND...
  local what=$1 errors status=0
  shift
  if [ "$DRY_RUN" = 1 ]; then
    quoted "$@"
    return
  fi
  errors=$(mktemp)
  "$@" 2> >(tee "$errors" >/dev/null) || status=$?
  if [ "$status" != 0 ]; then
    local text
    text=$(cat "$errors")
    rm -f "$errors"
    explain "$text" "$what"
  fi
  rm -f "$errors"
}
