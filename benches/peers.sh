#!/usr/bin/env bash
# Compares the `export` example with other ways to upload the same files: the barest object_store loop, rclone, the
# Python SDK. All send to a loopback server that keeps nothing, in turn; prints a table of medians.
#
#   benches/peers.sh [--rounds 4] [--data small,ct,wsi] [--tools bare,again,ours,rclone] [--limits slots=8] [--json FILE]
#
# Needs what tests/run.sh needs, GNU time and rclone. The data sets take 5 GB under the target folder and are made once.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
target=${CARGO_TARGET_DIR:-$root/target}
programs=$target/peers
peers=$root/benches/peers

cd "$root"
tests/run.sh --set-up >&2
mkdir -p "$programs"

if [[ " $* " == *python* ]] && ! cmp -s "$peers/requirements.txt" "$programs/venv/.set-up"; then
    rm -rf "$programs/venv"
    python3 -m venv "$programs/venv"
    "$programs/venv/bin/python" -m pip install --quiet --disable-pip-version-check --only-binary :all: \
        --require-hashes --requirement "$peers/requirements.txt"
    cp "$peers/requirements.txt" "$programs/venv/.set-up"
fi

build() { cargo build --release --locked --quiet --target-dir "$target" "$@"; }
build --example export
build --manifest-path benches/nullblob/Cargo.toml
build --manifest-path "$peers/Cargo.toml"
cp "$target/release/examples/export" "$target/release/nullblob" "$target/release/bare-loop" "$programs/"

exec tests/.tools/venv/bin/python "$peers/run.py" --programs "$programs" --data-folder "$programs/data" "$@"
