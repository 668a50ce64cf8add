#!/usr/bin/env bash
# Compares the tools of benches/peers.sh over an emulated wide-area network (`nullblob wan`): with each round-trip time and
# bandwidth in turn, Concurrency::Auto (`ours`), fixed numbers of requests (`ours:64`), and other tools with their default and
# other numbers of requests. Prints a table of medians for each network.
#
#   benches/wan.sh [--delays 10,30,100] [--rates 0,200,1000] [OPTIONS OF benches/peers.sh]
#
# Delays are round-trip times in ms. Rates are in Mbit/s, 0 is unlimited. The default data sets are 50 and 5,000 instances of
# 526 kB, 20,000 of 20 kB, and one of 2 GiB; all networks together take hours.
set -euo pipefail

folder=$(dirname "${BASH_SOURCE[0]}")
delays=10,30,100
rates=0,200,1000
options=(--rounds 1 --data ct50,ct5000,small,wsi)
options+=(--tools ours,ours:8,ours:16,ours:32,ours:64,ours:128,rclone:4,rclone,rclone:128,azcopy,azcopy:64,azcopy:256)
while [ $# -gt 0 ]; do
    case $1 in
    --delays) delays=$2 ;;
    --rates) rates=$2 ;;
    *) break ;;
    esac
    shift 2
done

for delay in ${delays//,/ }; do
    for rate in ${rates//,/ }; do
        if [ "$rate" = 0 ]; then bandwidth="unlimited bandwidth"; else bandwidth="$rate Mbit/s"; fi
        echo "== $delay ms, $bandwidth"
        "$folder/peers.sh" "${options[@]}" --wan "delay=$delay,rate=$rate" "$@"
    done
done
