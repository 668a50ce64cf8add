#!/usr/bin/env bash
# Whether the number of requests at once is found: the `export` example as it is (`ours`) beside fixed numbers of
# requests (`ours:8`), against a server that refuses more than so many at once, and one that refuses more than so many
# a second and asks for a pause of a second. What is refused is sent again; an export that fails ends this. A fixed number
# is better than `ours` where its ratio is below 1.
#
#   benches/limits.sh [--rounds 1]
set -euo pipefail

peers=$(dirname "${BASH_SOURCE[0]}")/peers.sh

echo "== 8 requests at once, each 5 ms"
"$peers" --data small --tools ours,ours:4,ours:8,ours:12,ours:16,ours:32 --limits 'slots=8&latency=5' --rounds 1 "$@"
echo "== 1,500 requests a second, each 5 ms"
"$peers" --data small --tools ours,ours:8,ours:9,ours:10,ours:12 --limits 'rate=1500&latency=5' --rounds 1 "$@"
