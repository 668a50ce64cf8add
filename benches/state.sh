#!/usr/bin/env bash
# Measures what a durable store of operations costs: the example `server` exports a folder with its operations in memory
# (`none`), in a file (`state`, redb) and in a PostgreSQL database on the same machine (`postgres`), to a loopback server that
# discards the data. Prints a table of medians with the number of syncs to the disk, and the goal beside what was measured.
#
#   benches/state.sh [--rounds 8] [--data small] [--stores none,again,state,postgres]
#
# The stores are on the disk of /var/tmp, with their default durability. Needs what tests/run.sh needs, and strace to count
# syncs. The data set takes 400 MB under the target folder and is created once.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
exec "$root/benches/service/run.sh" state "$@"
