#!/usr/bin/env bash
# Compares instances that the destination copies itself with instances that are streamed to it: instances per second, and the
# CPU time on this side. The destination is a loopback server that fetches and stores nothing. Prints a table.
#
#   benches/copy.sh
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
target=${CARGO_TARGET_DIR:-$PWD/target}

cargo build --release --locked --quiet --target-dir "$target" --manifest-path benches/nullblob/Cargo.toml
coproc SERVER { exec "$target/release/nullblob" 127.0.0.1:0; }
server=$SERVER_PID
trap 'kill "$server"' EXIT
read -r address <&"${SERVER[0]}"
cargo bench --quiet --features azure,testing --bench copy -- "$address"
