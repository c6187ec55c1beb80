# shellcheck shell=bash
# shellcheck disable=SC2034 # the settings are read by the other files
# Settings from flags and from a file of KEY=VALUE lines, checked before anything is asked.

KEYS=(PROJECT ZONE NAME TYPE SLICES VERSION NETWORK SUBNETWORK SERVICE_ACCOUNT TAGS INTERNAL_IPS
  SPOT RESERVED QUEUED VALID_UNTIL DATA_DISK BUCKET SHARE PACKAGE PYTHON JOB WORKER SLICE POLL
  QUICK MAX_FAILURES GRACE LINES_SHOWN)
SWITCHES=' INTERNAL_IPS SPOT RESERVED QUEUED '

set_defaults() {
  local key
  for key in "${KEYS[@]}"; do printf -v "$key" '%s' ''; done
  SLICES=1 PYTHON=3.11 JOB=train WORKER=0 SLICE=0 POLL=20 QUICK=600 MAX_FAILURES=3 GRACE=120
  LINES_SHOWN=50 DRY_RUN=0 YES=0 REST=() COMMAND=()
}

read_settings() {
  set_defaults
  local file='' given=0 i=1 words=("$@") flags=()
  while [ "$i" -le $# ]; do
    case ${words[i - 1]} in
      --) break ;;
      --env) file=${words[i]-}; given=1; i=$((i + 1)) ;;
      --env=*) file=${words[i - 1]#--env=}; given=1 ;;
      *) flags+=("${words[i - 1]}") ;;
    esac
    i=$((i + 1))
  done
  COMMAND=("${words[@]:i}")
  if [ "$given" = 1 ]; then
    [ -f "$file" ] || die "--env: no file '$file'" "copy tpu_setup/example.env and fill it in"
    read_file "$file"
  elif [ -f tpu.env ]; then
    read_file tpu.env
  fi
  read_flags "${flags[@]}"
  check_settings
}

read_file() {
  local line key value number=0
  while IFS= read -r line || [ -n "$line" ]; do
    number=$((number + 1))
    line=${line%$'\r'}
    [[ $line =~ ^[[:space:]]*(#.*)?$ ]] && continue
    # Parsed, not sourced: a settings file runs nothing.
    [[ $line =~ ^[[:space:]]*([A-Z_]+)=(.*)$ ]] ||
      die "$1:$number: '$line' is not KEY=VALUE" "write one setting a line, such as ZONE=us-west4-a"
    key=${BASH_REMATCH[1]} value=${BASH_REMATCH[2]}
    value=${value%%[[:space:]]#*}
    value=${value%"${value##*[![:space:]]}"}
    if [[ $value =~ ^\"(.*)\"$ || $value =~ ^\'(.*)\'$ ]]; then value=${BASH_REMATCH[1]}; fi
    case " ${KEYS[*]} " in
      *" $key "*) assign "$key" "$value" ;;
      *) die "$1:$number: unknown setting $key" "known: ${KEYS[*]}" ;;
    esac
  done <"$1"
}

assign() { # KEY VALUE
  if [[ $SWITCHES == *" $1 "* ]]; then
    case $2 in
      1 | true | yes) printf -v "$1" 1 ;;
      0 | false | no | '') printf -v "$1" '%s' '' ;;
      *) die "$1=$2" "write 1 or 0" ;;
    esac
  else
    printf -v "$1" '%s' "$2"
  fi
}

read_flags() {
  local flag key value
  while [ $# -gt 0 ]; do
    flag=$1
    shift
    case $flag in
      --dry-run) DRY_RUN=1; continue ;;
      --yes) YES=1; continue ;;
      --*) ;;
      *) REST+=("$flag"); continue ;;
    esac
    key=${flag%%=*}
    key=${key#--} key=${key//-/_} key=${key^^}
    [ "$key" = LINES ] && key=LINES_SHOWN
    case " ${KEYS[*]} " in
      *" $key "*) ;;
      *) die "unknown flag ${flag%%=*}" "see tpu_setup/tpu help" ;;
    esac
    if [[ $SWITCHES == *" $key "* && $flag != *=* ]]; then
      value=1
    elif [[ $flag == *=* ]]; then
      value=${flag#*=}
    else
      { [ $# -gt 0 ] && [[ $1 != --* ]]; } || die "$flag needs a value" "see tpu_setup/tpu help"
      value=$1
      shift
    fi
    assign "$key" "$value"
  done
}

number() { # KEY LEAST
  if ! [[ ${!1} =~ ^[0-9]{1,9}$ ]] || [ "${!1}" -lt "$2" ]; then
    die "$1=${!1} is not a number of at least $2" "correct the flag or the settings file"
  fi
}

matches() { # KEY PATTERN REMEDY
  [[ ${!1} =~ $2 ]] || die "$1=${!1}" "$3"
}

check_settings() {
  local key
  for key in PROJECT ZONE NAME TYPE; do
    [ -n "${!key}" ] || die "no $key" "give --${key,,}, or a line $key=... in tpu.env"
  done
  matches PROJECT '^[a-z][a-z0-9:.-]{4,61}[a-z0-9]$' "give the project's id, not its title: gcloud projects list"
  matches ZONE '^[a-z]+-[a-z]+[0-9]+-[a-z]$' "zones look like us-west4-a: gcloud compute tpus locations list"
  matches NAME '^[a-z]([a-z0-9-]{0,60}[a-z0-9])?$' "lower-case letters, digits and dashes, a letter first"
  matches JOB '^[A-Za-z0-9][A-Za-z0-9_.-]*$' "letters, digits, dots and dashes"
  matches PYTHON '^3\.(1[1-9]|[2-9][0-9])$' "the package needs Python 3.11 or newer"
  for key in SLICES MAX_FAILURES LINES_SHOWN; do number "$key" 1; done
  for key in WORKER SLICE POLL QUICK GRACE; do number "$key" 0; done
  [ -z "$SPOT" ] || [ -z "$RESERVED" ] || die "both --spot and --reserved" "choose one"
  [ -z "$VALID_UNTIL" ] || matches VALID_UNTIL '^[0-9]+[smhd]$' "write a duration such as 90m or 6h"
  [ -z "$BUCKET" ] || matches BUCKET '^[a-z0-9][a-z0-9._-]{1,61}[a-z0-9]$' "give the bare name, without gs:// or a folder"
  [ -z "$SHARE" ] || matches SHARE '^[A-Za-z0-9.-]+:/[^[:space:]]*$' "write HOST:/EXPORT, as 10.0.0.2:/vol1"
  [ -z "$SERVICE_ACCOUNT" ] || matches SERVICE_ACCOUNT '^[^@[:space:]]+@[^@[:space:]]+$' "give its mail address"
  [ "$SLICE" -lt "$SLICES" ] || die "--slice $SLICE of $SLICES" "slices are counted from 0"
  describe_type
  [ "$WORKER" -lt "$HOSTS" ] || die "--worker $WORKER of $HOSTS hosts in a $TYPE" "workers are counted from 0"
  if [ "$SLICES" -gt 1 ] || [ -n "$VALID_UNTIL" ]; then QUEUED=1; fi
}

# What a type means: GENERATION, CHIPS, DEVICES (of JAX), HOSTS of one slice, default VERSION.
describe_type() {
  local size runtime smallest=1
  [[ $TYPE =~ ^([a-z0-9]+)-([0-9]{1,5})$ ]] ||
    die "TYPE=$TYPE" "types look like v5litepod-256, v4-128, v5p-256 or v6e-64"
  GENERATION=${BASH_REMATCH[1]} size=$((10#${BASH_REMATCH[2]}))
  case $GENERATION in
    v4) runtime=tpu-ubuntu2204-base smallest=8 ;;
    v5p) runtime=v2-alpha-tpuv5 smallest=8 ;;
    v5litepod) runtime=v2-alpha-tpuv5-lite ;;
    v6e) runtime=v2-alpha-tpuv6e ;;
    v5e) die "TYPE=$TYPE" "the API's name of a v5e slice is v5litepod-$size" ;;
    tpu7x | tpu7 | v7x) die "the Cloud TPU API does not create $GENERATION slices" \
      "use GKE: tpu_setup/recipes/xpk.md" ;;
    *) die "TYPE=$TYPE: unknown generation $GENERATION" "known: v4, v5litepod, v5p, v6e" ;;
  esac
  case $GENERATION in
    v4 | v5p) # named by cores, two a chip; JAX sees one device a chip
      { [ "$size" -ge "$smallest" ] && [ $((size % 8)) = 0 ]; } ||
        die "TYPE=$TYPE" "$GENERATION sizes are multiples of 8 cores (4 chips, one host)"
      CHIPS=$((size / 2)) HOSTS=$((size / 8)) ;;
    *) # named by chips; up to 8 of them on one host
      case $size in
        1 | 4 | 8) HOSTS=1 ;;
        16 | 32 | 64 | 128 | 256) HOSTS=$((size / 4)) ;;
        *) die "TYPE=$TYPE" "$GENERATION sizes are 1, 4, 8, 16, 32, 64, 128 and 256 chips" ;;
      esac
      CHIPS=$size ;;
  esac
  DEVICES=$CHIPS
  VERSION=${VERSION:-$runtime}
}

verb_config() {
  local key
  for key in PROJECT ZONE NAME TYPE SLICES VERSION NETWORK SUBNETWORK SERVICE_ACCOUNT TAGS \
    SPOT RESERVED QUEUED VALID_UNTIL DATA_DISK BUCKET SHARE PACKAGE PYTHON JOB; do
    [ -z "${!key}" ] || printf '%s=%s\n' "$key" "${!key}"
  done
  printf '# %s slice(s) of %s chips on %s host(s); jax.device_count() will be %s\n' \
    "$SLICES" "$CHIPS" "$HOSTS" "$((DEVICES * SLICES))"
}
