#!/usr/bin/env bash
# Measures exports on a Restate server: the cost of a batch compared with the engine in one process, and the instances
# per second of one, two and four workers with a loopback server that responds after 50 ms. Prints two tables.
#
#   benches/restate.sh [--rounds 3] [--instances 6400]
#
# Needs what tests/run.sh needs. Everything runs on this machine; the workers are behind a round-robin TCP balancer.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
target=${CARGO_TARGET_DIR:-$root/target}

cd "$root"
tests/run.sh --set-up >&2
build() { cargo build --release --locked --quiet --target-dir "$target" "$@"; }
build --manifest-path benches/nullblob/Cargo.toml
build --manifest-path benches/restate/Cargo.toml

server=$(echo tests/.tools/node_modules/@restatedev/restate-server-*/bin/restate-server)
exec "$target/release/restate-bench" --server "$server" --nullblob "$target/release/nullblob" "$@"
