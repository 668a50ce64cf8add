#!/usr/bin/env bash
# Measures how well the number of concurrent requests adapts: the example `export` with its default (`ours`) and with fixed
# numbers of requests (`ours:8`), against a server that limits concurrent requests, and one that limits requests per second
# and asks for a pause of one second. Rejected requests are sent again. A fixed number is better than `ours` where its ratio
# is below 1.
#
#   benches/limits.sh [--rounds 1]
set -euo pipefail

peers=$(dirname "${BASH_SOURCE[0]}")/peers.sh

echo "== 8 concurrent requests, each 5 ms"
"$peers" --data small --tools ours,ours:4,ours:8,ours:12,ours:16,ours:32 --limits 'slots=8&latency=5' --rounds 1 "$@"
echo "== 1,500 requests per second, each 5 ms"
"$peers" --data small --tools ours,ours:8,ours:9,ours:10,ours:12 --limits 'rate=1500&latency=5' --rounds 1 "$@"
