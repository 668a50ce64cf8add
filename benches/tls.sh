#!/usr/bin/env bash
# Compares the tools of benches/peers.sh over TLS: the server creates a certificate authority, which all tools trust. Prints
# the limits of the machine, a table of medians, the goals beside what was measured, and how each tool used its connections:
# the TLS implementation, version and cipher, and how many connections were opened and how often one was reused.
#
#   benches/tls.sh [OPTIONS OF benches/peers.sh]
set -euo pipefail

folder=$(dirname "${BASH_SOURCE[0]}")
for argument; do
    if [ "$argument" = --estimate ]; then exec "$folder/peers.sh" --tls "$@"; fi
done

echo "AES-GCM on one core, in kB/s (the last column is for blocks of 16 kB):"
for cipher in aes-128-gcm aes-256-gcm; do
    openssl speed -elapsed -seconds 1 -evp "$cipher" 2>/dev/null | tail -n 1
done
echo "Memory copy on one core:"
python3 - <<'PYTHON'
import time

source, target = bytes(256 << 20), bytearray(256 << 20)
target[:] = source
start = time.perf_counter()
for _ in range(8):
    target[:] = source
print(f"{8 * 0.25 / (time.perf_counter() - start):.1f} GiB/s")
PYTHON
echo
exec "$folder/peers.sh" --tls "$@"
