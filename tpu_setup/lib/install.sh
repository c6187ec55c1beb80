# shellcheck shell=bash
# Python, the package and the mounts on all workers, then a look at the devices.

REPO=$(cd "$HERE/.." && pwd)

verb_install() {
  local words=(--python "$PYTHON") archive=''
  if [ -n "$PACKAGE" ]; then
    [[ $PACKAGE =~ ^[A-Za-z0-9_.-]+==[^[:space:]]+$ ]] ||
      die "PACKAGE=$PACKAGE is not pinned" "write geex-jax==X.Y.Z, so that all workers run the same"
    words+=(--package "$PACKAGE")
  else
    archive=$(pack) || exit $?
  fi
  [ -z "$BUCKET" ] || words+=(--bucket "$BUCKET")
  [ -z "$SHARE" ] || words+=(--share "$SHARE")
  send "$archive"
  on_all "$(quoted bash .geex/install.sh "${words[@]}")" ||
    die "installing failed on at least one worker" "its words stand above; tpu_setup/tpu install again is safe"
  check_devices
}

send() { # ARCHIVE_OR_NOTHING
  local failed="copying to the workers failed" remedy="gcloud's own words stand above; is port 22 open for you?"
  on_all 'mkdir -p .geex/jobs' || die "$failed" "$remedy"
  to_all "$HERE/remote/install.sh" .geex/install.sh || die "$failed" "$remedy"
  to_all "$HERE/remote/job.sh" .geex/job.sh || die "$failed" "$remedy"
  to_all "$HERE/remote/check.py" .geex/check.py || die "$failed" "$remedy"
  [ -z "$1" ] || to_all "$1" .geex/source.tar.gz || die "$failed" "$remedy"
}

# The tracked files of this working tree, as they are now, in one archive; prints its path.
pack() {
  local archive
  git -C "$REPO" rev-parse --git-dir >/dev/null 2>&1 ||
    die "$REPO is no git checkout" "pin a release with --package geex-jax==X.Y.Z"
  if [ "$DRY_RUN" = 1 ]; then
    printf '%s\n' "# packs the tracked files of $REPO" >&2
    printf '%s\n' "${TMPDIR:-/tmp}/geex-source.tar.gz"
    return
  fi
  archive=$(mktemp -d)/geex-source.tar.gz
  # Deleted but tracked files are left out; everything else is as it stands, committed or not.
  (cd "$REPO" && git ls-files -z | while IFS= read -r -d '' path; do
    [ -e "$path" ] && printf '%s\0' "$path"
  done | tar --create --gzip --null --files-from=- --file="$archive")
  say "$(du -h "$archive" | cut -f1) of source, commit $(git -C "$REPO" rev-parse --short HEAD)"
  printf '%s\n' "$archive"
}

check_devices() {
  local expected=$((DEVICES * SLICES))
  on_all "$(quoted .geex/venv/bin/python .geex/check.py --devices "$expected")" ||
    die "the workers do not see $expected devices together" \
      "look at the lines above; is TCP within network ${NETWORK:-default} open (README, step 4)?"
}
