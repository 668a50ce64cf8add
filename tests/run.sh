#!/usr/bin/env bash
# Installs what the tests need, then runs all tests. Needs Rust, Node 20 and Python 3.
#
#   tests/run.sh [--set-up | --long] [ARGUMENTS OF cargo test]
#
#   --set-up   installs only
#   --long     runs the long variant of tests that have one (DICOM_EXPORT_LONG=1)
#
# The versions are pinned in tests/tools. They are installed once, in tests/.tools. No test is skipped: if something cannot
# be installed, the script fails. To run one test: tests/run.sh --test azurite NAME
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
pinned=$root/tests/tools
tools=$root/tests/.tools
# A DICOMweb server and a database, which the tests run on a free port, and a toolkit that reads DICOM files independently.
debian_packages=(dcmtk orthanc orthanc-dicomweb postgresql)

say() { printf '== %s\n' "$*"; }
fail() {
    printf 'tests/run.sh: %s\n' "$*" >&2
    exit 1
}

# up_to_date MARK FILE...: whether MARK has the contents of these files.
up_to_date() {
    local mark=$1
    shift
    [ -f "$mark" ] && cat "$@" | cmp -s - "$mark"
}

need_programs() {
    local program
    for program in cargo node npm python3; do
        command -v "$program" >/dev/null || fail "$program is not installed"
    done
    node -e 'process.exit(Number(process.versions.node.split(".")[0]) >= 20 ? 0 : 1)' ||
        fail "Node 20 or later is required; this is $(node --version)"
    python3 -c 'import sys; sys.exit(sys.version_info < (3, 10))' ||
        fail "Python 3.10 or later is required; this is $(python3 --version)"
    python3 -c 'import ensurepip, venv' || fail "Python's venv is required (Debian: apt-get install python3-venv)"
}

# Azurite and the Restate server: the npm packages in tests/tools/package-lock.json.
set_up_npm() {
    local mark=$tools/node_modules/.set-up
    up_to_date "$mark" "$pinned/package-lock.json" && return
    say "npm ci"
    cp "$pinned/package.json" "$pinned/package-lock.json" "$pinned/.npmrc" "$tools/"
    (cd "$tools" && npm ci --ignore-scripts)
    cp "$pinned/package-lock.json" "$mark"
}

# pydicom, schemathesis, tiny-pacs (a DICOMweb server), moto and a Google Cloud Storage server: the PyPI packages in
# tests/tools/requirements.txt; and an archive of pydicom's test files.
set_up_python() {
    local venv=$tools/venv
    local mark=$venv/.set-up
    up_to_date "$mark" "$pinned/requirements.txt" "$pinned/archive.py" && "$venv/bin/python" -c '' && return
    say "pip install"
    rm -rf "$venv"
    python3 -m venv "$venv"
    "$venv/bin/python" -m pip install --quiet --disable-pip-version-check --only-binary :all: \
        --require-hashes --requirement "$pinned/requirements.txt"
    "$venv/bin/python" "$pinned/archive.py" "$tools/archive"
    cat "$pinned/requirements.txt" "$pinned/archive.py" >"$mark"
}

# s3s-fs, an S3 server in Rust that verifies signatures.
set_up_s3s() {
    local version=0.12.0 root=$tools/s3s
    [ "$(cat "$root/.set-up" 2>/dev/null)" = "$version" ] && return
    say "cargo install s3s-fs@$version"
    cargo install --quiet --locked --root "$root" --target-dir "$root/target" --features binary "s3s-fs@$version"
    rm -rf "$root/target"
    echo "$version" >"$root/.set-up"
}

# Debian packages: installed if the user is root, otherwise the script fails and names them.
set_up_debian() {
    local package missing=()
    for package in ${debian_packages[@]+"${debian_packages[@]}"}; do
        [ "$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null)" = installed ] || missing+=("$package")
    done
    [ ${#missing[@]} -eq 0 ] && return
    [ "$(id -u)" -eq 0 ] || fail "packages are missing: sudo apt-get install --no-install-recommends ${missing[*]}"
    say "apt-get install ${missing[*]}"
    keep_services_stopped
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends "${missing[@]}"
}

# Installing a package with a service starts the service on its default port, open to the network. A policy-rc.d prevents that
# (invoke-rc.d(8)). An existing one is not changed.
keep_services_stopped() {
    local policy=/usr/sbin/policy-rc.d
    [ -e "$policy" ] && return
    trap "rm -f $policy" EXIT
    printf '#!/bin/sh\nexit 101\n' >"$policy"
    chmod 755 "$policy"
}

mode=test
case ${1-} in
--set-up | --long)
    mode=$1
    shift
    ;;
esac

say "Installing in tests/.tools"
mkdir -p "$tools"
need_programs
set_up_npm
set_up_python
set_up_s3s
(set_up_debian)
[ "$mode" = --set-up ] && exit

export DICOM_EXPORT_TOOLS=$tools
export DICOM_EXPORT_ARCHIVE=$tools/archive
[ "$mode" = --long ] && export DICOM_EXPORT_LONG=1

cd "$root"
# Some tests run the examples, which cargo test does not build if it is given a filter such as --test.
profile=()
for argument; do [ "$argument" = --release ] && profile=(--release); done
say "cargo build --all-features --examples"
cargo build --all-features --examples ${profile[@]+"${profile[@]}"}
say "cargo test --all-features $* -- --include-ignored"
exec cargo test --no-fail-fast --all-features "$@" -- --include-ignored
