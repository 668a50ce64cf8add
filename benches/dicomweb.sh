#!/usr/bin/env bash
# Compares ways to retrieve instances from a DICOMweb server over networks with an added round-trip time: the example
# `export`, requests for instances, series and studies with curl, dicomweb-client (PyPI), and Orthanc's archives of studies.
# The server is Orthanc on this machine. Prints a table of medians for each data set.
#
#   benches/dicomweb.sh [--rounds 3] [--data ct,small] [--delays 0,10,50] [--ways ours,instances:16,series:4,...]
#
# `instances:16` is 16 concurrent requests, and likewise for the other ways. Needs what tests/run.sh needs, and curl.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
target=${CARGO_TARGET_DIR:-$root/target}
programs=$target/peers
requirements=$root/benches/dicomweb/requirements.txt

cd "$root"
tests/run.sh --set-up >&2
mkdir -p "$programs"
if ! cmp -s "$requirements" "$programs/dicomweb-venv/.set-up"; then
    rm -rf "$programs/dicomweb-venv"
    python3 -m venv "$programs/dicomweb-venv"
    "$programs/dicomweb-venv/bin/python" -m pip install --quiet --disable-pip-version-check --only-binary :all: \
        --require-hashes --requirement "$requirements"
    cp "$requirements" "$programs/dicomweb-venv/.set-up"
fi

build() { cargo build --release --locked --quiet --target-dir "$target" "$@"; }
build --all-features --example export
build --manifest-path benches/nullblob/Cargo.toml
cp "$target/release/examples/export" "$target/release/nullblob" "$programs/"

exec tests/.tools/venv/bin/python benches/dicomweb/run.py --programs "$programs" "$@"
