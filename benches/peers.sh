#!/usr/bin/env bash
# Compares the example `export` with other ways to upload the same files: a minimal object_store loop, rclone, AzCopy and the
# Python SDK. All of them upload in turn to a loopback server that discards the data. Prints a table of medians.
#
#   benches/peers.sh [--rounds 4] [--data small,ct,wsi] [--tools bare,again,ours,rclone,azcopy] [--limits slots=8]
#                    [--tls] [--wan delay=30,rate=200] [--json FILE]
#
# Needs what tests/run.sh needs, GNU time, rclone, and for AzCopy npm and Debian's libsecret-1-0. The data sets take 5 GB under
# the target folder and are created once.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
target=${CARGO_TARGET_DIR:-$root/target}
programs=$target/peers
peers=$root/benches/peers

fail() {
    printf 'benches/peers.sh: %s\n' "$*" >&2
    exit 1
}

# uses TOOL: whether the tool is among those to measure.
uses() {
    local tools=bare,again,ours,rclone,azcopy previous=
    for argument in "${arguments[@]}"; do
        case $argument in --tools=*) tools=${argument#--tools=} ;; esac
        [ "$previous" = --tools ] && tools=$argument
        previous=$argument
    done
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
tests/run.sh --set-up >&2
mkdir -p "$programs"
if uses python; then set_up_python_sdk; fi
if uses azcopy; then set_up_azcopy; fi

build() { cargo build --release --locked --quiet --target-dir "$target" "$@"; }
build --example export
build --manifest-path benches/nullblob/Cargo.toml
build --manifest-path "$peers/Cargo.toml"
cp "$target/release/examples/export" "$target/release/nullblob" "$target/release/bare-loop" "$programs/"

exec tests/.tools/venv/bin/python "$peers/run.py" --programs "$programs" --data-folder "$programs/data" "$@"
