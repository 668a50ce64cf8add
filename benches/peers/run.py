"""Uploads the same files to the same server with each tool in turn, and prints the cost of each.

Called by benches/peers.sh, which documents the options. A round runs every tool once. Each round begins with another tool, so
that a temporary slowdown of the machine affects all of them. Ratios are computed within a round, and their median is printed.
`bare` runs twice per round, as `bare` and as `again`: their ratio is the noise of the measurement.
"""

import argparse
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import estimate
from data import MIB, data_set, files_and_bytes
from servers import Server
from tables import Cost, Costs, connections_table, costs_table, goals_table
from tools import DEFAULTS, Tools


# Settings of the user for S3 would change what the tools do.
ENVIRONMENT = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}


def measure(command: list[str], environment: dict[str, str]) -> Cost:
    """Runs a command and returns its cost. Exits if the command fails."""
    # The peak of a child process includes the memory of its parent when it was forked. GNU time is smaller than this script.
    with tempfile.NamedTemporaryFile("r") as peak:
        timed = ["/usr/bin/time", "--quiet", "--format=%M", f"--output={peak.name}", *command]
        before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
        process = subprocess.Popen(
            timed,
            env=ENVIRONMENT | environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        try:
            output, _ = process.communicate()
        except BaseException:
            os.killpg(process.pid, signal.SIGKILL)
            raise
        after, wall = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter() - start
        if process.returncode:
            sys.exit(f"{command[0]} ended with {process.returncode}:\n{output}")
        cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        return Cost(wall, cpu, int(peak.read()) / 1024)


def run(kind: str, options: argparse.Namespace, server: Server) -> tuple[int, Costs]:
    """Runs all rounds with one data set."""
    folder = data_set(options.data_folder, kind)
    files, size = files_and_bytes(folder)
    tools = Tools(options.programs, server)
    costs: Costs = {tool: [] for tool in options.tools}
    print(f"\n{kind}: {files} files, {size / MIB:.0f} MiB", file=sys.stderr)
    for round_ in range(1, options.rounds + 1):
        first = (round_ - 1) % len(options.tools)
        for tool in options.tools[first:] + options.tools[:first]:
            # Some tools remove what they have read from the cache.
            files_and_bytes(folder)
            server.get("/stats")
            server.get(f"/limits?{options.limits}")
            cost = measure(*tools.command(tool, folder))
            server.get("/limits?busy=0&latency=0&slots=0&rate=0&crc64=0&md5=0")
            stats = cost.server = json.loads(server.get("/stats"))
            blobs, received = stats["puts"] + stats["commits"], stats["bytes"]
            if blobs < files or received < size:
                sys.exit(f"{tool} sent {blobs} blobs and {received} bytes of {files} and {size}")
            costs[tool].append(cost)
            print(
                f"  round {round_} {tool:10} {cost.wall:7.2f} s {cost.cpu:7.2f} cpu s {cost.peak:6.0f} MiB"
                f"  {stats['rejected']} rejected, {stats['peakInFlight']} concurrent, {stats['requests']} requests on "
                f"{stats['connections']} connections ({stats['resumedHandshakes']} resumed) {stats['tls']}",
                file=sys.stderr,
            )
    return size, costs


def run_network(wan: str, options: argparse.Namespace) -> dict[str, Costs]:
    """Runs all data sets with one server, and prints the tables."""
    figures, sizes = {}, {}
    with Server(options.programs / "nullblob", options.store, options.tls, wan) as server:
        for kind in options.data:
            sizes[kind], figures[kind] = run(kind, options, server)
    tables = [costs_table(figures, sizes), goals_table(figures, options.tls, bool(wan))]
    if options.tls:
        tables.append(connections_table(figures))
    if wan:
        print(f"\n{wan.replace(',', ', ')}\n")
    print("\n\n".join("\n".join(table) for table in tables if table), flush=True)
    return figures


def arguments() -> argparse.Namespace:
    def words(text: str) -> list[str]:
        return text.split(",")

    parser = argparse.ArgumentParser(prog="benches/peers.sh", description=__doc__.splitlines()[0])
    parser.add_argument("--programs", type=Path, required=True, help=argparse.SUPPRESS)
    parser.add_argument("--data-folder", type=Path, required=True, help=argparse.SUPPRESS)
    parser.add_argument("--store", choices=DEFAULTS, default="azure", help="whose calls the server responds to")
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--data", type=words, default=["small", "ct", "wsi"], help="those in dataset.py")
    parser.add_argument(
        "--tools",
        type=words,
        help="bare,again,ours,rclone,azcopy for azure (or python), bare,again,ours,rclone,s5cmd for s3; with :N for N "
        "concurrent requests; ours also with +unchecked, +identity or +manifest; ratios are relative to the first tool",
    )
    parser.add_argument(
        "--limits",
        default="",
        help="what the server rejects: slots=8, rate=500, busy=100; its delay: latency=5; its checksums (azure only): "
        "crc64=1, md5=1",
    )
    parser.add_argument("--tls", action="store_true", help="upload over https")
    parser.add_argument(
        "--wan",
        action="append",
        help="the network in front of the server: delay=30 (round trip, ms), rate=200, connection-rate=50 (Mbit/s), "
        "separated by commas; may be repeated",
    )
    parser.add_argument("--json", type=Path, help="a file for all figures")
    parser.add_argument("--estimate", action="store_true", help="only print how long it will take")
    options = parser.parse_args()
    options.tools = options.tools or DEFAULTS[options.store]
    return options


def main() -> None:
    options = arguments()
    networks = options.wan or [""]
    runs = [(kind, tool, wan) for wan in networks for kind in options.data for tool in options.tools]
    took = options.rounds * sum(estimate.seconds(*each) for each in runs)
    print(f"{options.rounds * len(runs)} runs, about {estimate.text(took)}", file=sys.stderr)
    if options.estimate:
        return
    if any(tool.startswith("rclone") for tool in options.tools) and not shutil.which("rclone"):
        sys.exit("rclone is required (Debian: apt-get install rclone), or choose --tools without it")
    if not shutil.which("/usr/bin/time"):
        sys.exit("GNU time is required (Debian: apt-get install time)")
    figures = {}
    for wan in networks:
        figures[wan] = run_network(wan, options)
        if options.json:
            plain = {
                network: {kind: {tool: [vars(c) for c in own] for tool, own in costs.items()} for kind, costs in of.items()}
                for network, of in figures.items()
            }
            options.json.write_text(json.dumps(plain if options.wan else plain[""], indent=1) + "\n")


if __name__ == "__main__":
    main()
