#!/usr/bin/env bash
# Measures many operations in one process of the example `server`: 1,000 operations of 20 instances each, started over HTTP
# while their status is polled, with each store of operations (in memory, redb, PostgreSQL); and 20 large operations at once
# beside one alone. The destination is a loopback server that discards the data. Prints two tables of medians, and the goal
# beside what was measured.
#
#   benches/operations.sh [--rounds 3] [--operations 1000] [--clients 8] [--stores none,state,postgres]
#                         [--large ct] [--at-once 20]
#
# Operations are started by several connections, and polled by another process, one after the other, from the first start
# until all have completed. Needs what tests/run.sh needs. The data sets take 2 GB under the target folder and are created once.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
exec "$root/benches/service/run.sh" operations "$@"
