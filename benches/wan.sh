#!/usr/bin/env bash
# Compares the tools of benches/peers.sh over an emulated wide-area network (`nullblob wan`): with each round-trip time and
# bandwidth in turn, Concurrency::Auto (`ours`), fixed numbers of requests (`ours:64`), and other tools with their default and
# other numbers of requests. Prints a table of medians for each network, with the goals beside what was measured.
#
#   benches/wan.sh [--quick] [--delays 10,30,100] [--rates 0,200,1000] [OPTIONS OF benches/peers.sh]
#
# Delays are round-trip times in ms. Rates are in Mbit/s, 0 is unlimited. The data sets are 50 and 5,000 instances of 526 kB,
# 20,000 of 20 kB, and one of 2 GiB. One round of everything takes six hours, because rclone's default of four transfers takes
# long. With `--quick` a round takes 40 minutes: it leaves out rclone's default and some numbers of requests, and uploads 1,000
# instances of 526 kB, 5,000 of 20 kB, and one of 512 MiB. The estimated duration is printed first; `--estimate` prints only
# that. `--rounds 3` repeats each measurement. The tables of a network are printed when it is done.
set -euo pipefail

folder=$(dirname "${BASH_SOURCE[0]}")
delays=10,30,100
rates=0,200,1000
data=ct50,ct5000,small,wsi
tools=ours,ours:8,ours:16,ours:32,ours:64,ours:128,rclone:4,rclone,rclone:128,azcopy,azcopy:64,azcopy:256
others=()
while [ $# -gt 0 ]; do
    case $1 in
    --quick)
        data=ct50,ct1000,small5000,wsi512
        tools=ours,ours:16,ours:64,ours:128,rclone,rclone:128,azcopy,azcopy:256
        ;;
    --delays)
        delays=$2
        shift
        ;;
    --rates)
        rates=$2
        shift
        ;;
    *) others+=("$1") ;;
    esac
    shift
done

networks=()
for delay in ${delays//,/ }; do
    for rate in ${rates//,/ }; do networks+=(--wan "delay=$delay,rate=$rate"); done
done
exec "$folder/peers.sh" --rounds 1 --data "$data" --tools "$tools" "${networks[@]}" \
    ${others[@]+"${others[@]}"}
