#!/usr/bin/env bash
# Whether the number of requests at once is found: the `export` example as it is (`ours`) beside fixed numbers of
# requests (`ours:8`), against a server that refuses more than so many at once, and one that refuses more than so many
# a second. What is refused is repeated; no export fails, or this does. A tool is better than `ours` where its ratio is
# below 1.
#
#   benches/limits.sh [--rounds 3]
set -euo pipefail

peers=$(dirname "${BASH_SOURCE[0]}")/peers.sh
tools=ours,ours:4,ours:8,ours:16,ours:32,ours:64

echo "== 8 requests at once, each 5 ms"
"$peers" --data small --tools "$tools" --limits 'slots=8&latency=5' --rounds 3 "$@"
echo "== 1,500 requests a second, each 5 ms"
"$peers" --data small --tools "$tools" --limits 'rate=1500&latency=5' --rounds 3 "$@"
