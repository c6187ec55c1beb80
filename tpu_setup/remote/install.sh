#!/usr/bin/env bash
# On a worker: Python by uv, the package with the TPU's JAX, the mounts. Safe to run again.
# usage: install.sh --python 3.11 [--package geex-jax==X.Y.Z] [--bucket NAME] [--share HOST:/EXPORT]
# Without --package the archive ~/.geex/source.tar.gz is installed.
set -euo pipefail
UV_VERSION=0.9.7
home=${GEEX_HOME:-$HOME/.geex}
python=3.11 package='' bucket='' share=''
while [ $# -gt 0 ]; do
  case $1 in
    --python) python=$2 ;;
    --package) package=$2 ;;
    --bucket) bucket=$2 ;;
    --share) share=$2 ;;
    *) echo "install.sh: unknown flag $1" >&2; exit 2 ;;
  esac
  shift 2
done
export PATH=$HOME/.local/bin:$PATH DEBIAN_FRONTEND=noninteractive
# The image's own updates may hold apt's lock for minutes after the first boot.
apt=(sudo -E apt-get -o DPkg::Lock::Timeout=600 -qq)

if ! command -v uv >/dev/null || [ "$(uv --version | cut -d' ' -f2)" != "$UV_VERSION" ]; then
  command -v pip3 >/dev/null || { "${apt[@]}" update && "${apt[@]}" install -y python3-pip >/dev/null; }
  pip3 install --user --quiet "uv==$UV_VERSION" 2>/dev/null ||
    pip3 install --user --quiet --break-system-packages "uv==$UV_VERSION"
fi
[ -x "$home/venv/bin/python" ] || uv venv --quiet --python "$python" "$home/venv"
if [ -n "$package" ]; then
  rm -rf "$home/source"
  mkdir -p "$home/source" # where jobs start; the experiments are in the package
  uv pip install --quiet --python "$home/venv" "${package%%==*}[tpu]==${package#*==}"
else
  rm -rf "$home/source.new"
  mkdir -p "$home/source.new"
  tar --extract --gzip --file="$home/source.tar.gz" --directory="$home/source.new"
  rm -rf "$home/source"
  mv "$home/source.new" "$home/source"
  uv pip install --quiet --python "$home/venv" --editable "$home/source[tpu]"
fi

# ~/bucket and ~/share are also bucket and share of the folder that a job starts in.
link() { ln -sfn "$HOME/$1" "$home/source/$1"; }

if [ -n "$bucket" ]; then
  if ! command -v gcsfuse >/dev/null; then
    key=/usr/share/keyrings/cloud.google.asc
    release=gcsfuse-$(. /etc/os-release && echo "$VERSION_CODENAME")
    curl -fsSL https://packages.cloud.google.com/apt/doc/apt-key.gpg | sudo tee "$key" >/dev/null
    echo "deb [signed-by=$key] https://packages.cloud.google.com/apt $release main" |
      sudo tee /etc/apt/sources.list.d/gcsfuse.list >/dev/null
    "${apt[@]}" update
    "${apt[@]}" install -y gcsfuse >/dev/null
  fi
  mkdir -p "$HOME/bucket"
  # Each host must see at once what another has written: no kept file attributes.
  mountpoint -q "$HOME/bucket" ||
    gcsfuse --implicit-dirs --metadata-cache-ttl-secs=0 "$bucket" "$HOME/bucket"
  link bucket
fi
if [ -n "$share" ]; then
  command -v mount.nfs >/dev/null || { "${apt[@]}" update && "${apt[@]}" install -y nfs-common >/dev/null; }
  mkdir -p "$HOME/share"
  mountpoint -q "$HOME/share" || sudo mount -t nfs -o rw,hard,noac "$share" "$HOME/share"
  link share
fi
echo "$(hostname): $("$home/venv/bin/geex" --version), $("$home/venv/bin/python" --version)"
