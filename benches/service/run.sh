#!/usr/bin/env bash
# Builds what benches/state.sh and benches/operations.sh measure, and runs a script of this folder:
#
#   benches/service/run.sh state|operations [OPTIONS]
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
target=${CARGO_TARGET_DIR:-$root/target}
programs=$target/peers
script=$root/benches/service/$1.py
shift

cd "$root"
tests/run.sh --set-up >&2
mkdir -p "$programs"
build() { cargo build --release --locked --quiet --target-dir "$target" "$@"; }
build --features http,redb,postgres --example server
build --manifest-path benches/nullblob/Cargo.toml
cp "$target/release/examples/server" "$target/release/nullblob" "$programs/"

exec tests/.tools/venv/bin/python "$script" --programs "$programs" --data-folder "$programs/data" "$@"
