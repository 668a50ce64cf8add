"""Starts many small operations over HTTP, and several large ones at once, and prints what the example server does with them.

Called by benches/operations.sh, which documents the options. Each measurement runs in a new process of the server.
"""

import argparse
import math
import multiprocessing
import random
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import median

sys.path.append(str(Path(__file__).parent.parent / "peers"))
from data import data_set, files_and_bytes  # noqa: E402
from processes import Client, export_server, scratch_folder, seconds  # noqa: E402
from servers import Server  # noqa: E402
from tables import goal, head, row  # noqa: E402

# Instances of a small operation.
SMALL = "twenty"

# The lowest ratio of the throughput of large operations at once to that of one alone.
GOAL = 0.95

# Between two polls of the poller, and while waiting for large operations, in seconds.
POLL_PAUSE = 0.002
POLL_INTERVAL = 0.25


@dataclass
class Started:
    """What the clients saw: the ids of operations, seconds until all were accepted, and seconds of each start and each poll."""

    ids: list[str]
    accepted: float
    starts: list[float]
    polls: list[float]


@dataclass
class Many:
    """What many small operations took: seconds, and MiB of the server at the peak."""

    accepted: float
    completed: float
    start_latency: float
    poll_latency: float
    longest_poll: float
    polls: int
    peak: float


def percentile_99(values: list[float]) -> float:
    """The smallest value that is not exceeded by 99 % of the values."""
    return sorted(values)[math.ceil(len(values) * 0.99) - 1]


def poll(address: str, pipe: Connection) -> None:
    """Polls operations one after the other, in a process of its own. It receives ids until it receives `None`, and then sends
    how long each poll took."""
    client, ids, took = Client(address), [pipe.recv()], []
    while True:
        while pipe.poll():
            received = pipe.recv()
            if received is None:
                pipe.send(took)
                return
            ids.append(received)
        begin = time.perf_counter()
        client.status(random.choice(ids))
        took.append(time.perf_counter() - begin)
        time.sleep(POLL_PAUSE)


def start_many(address: str, container: str, operations: int, clients: int) -> Started:
    """Starts operations with several clients, and polls them until all have completed."""
    pipe, other_end = multiprocessing.Pipe()
    poller = multiprocessing.Process(target=poll, args=(address, other_end), daemon=True)
    poller.start()
    # The connection ends with the poller.
    other_end.close()
    sending = threading.Lock()

    def start(numbers: range) -> list[tuple[str, float]]:
        client, started = Client(address), []
        for _ in numbers:
            begin = time.perf_counter()
            id_ = client.start(container)
            started.append((id_, time.perf_counter() - begin))
            with sending:
                pipe.send(id_)
        return started

    begin = time.perf_counter()
    with ThreadPoolExecutor(clients) as pool:
        started = sum(pool.map(start, [range(first, operations, clients) for first in range(clients)]), [])
    accepted = time.perf_counter() - begin
    client = Client(address)
    for id_, _ in started:
        client.wait(id_, 0.01)
    pipe.send(None)
    polls = pipe.recv()
    poller.join()
    return Started([id_ for id_, _ in started], accepted, [took for _, took in started], polls)


def many(options: argparse.Namespace, store: str, container: str) -> Many:
    """Measures many small operations."""
    source = data_set(options.data_folder, SMALL)
    files_and_bytes(source)
    with scratch_folder() as scratch, export_server(options.programs / "server", source, store, scratch) as (server, _):
        begin = time.time()
        started = start_many(server.address, container, options.operations, options.clients)
        client = Client(server.address)
        completed = max(seconds(client.status(id_), "lastUpdatedTime") for id_ in started.ids) - begin
        latencies = percentile_99(started.starts), percentile_99(started.polls), max(started.polls)
        return Many(started.accepted, completed, *latencies, len(started.polls), server.peak())


def throughput(options: argparse.Namespace, operations: int, container: str) -> tuple[float, float]:
    """Exports a large data set several times at once. Returns the sum of bytes per second, and MiB of the server at the peak."""
    source = data_set(options.data_folder, options.large)
    _, size = files_and_bytes(source)
    with scratch_folder() as scratch, export_server(options.programs / "server", source, "none", scratch) as (server, _):
        client = Client(server.address)
        ids = [client.start(container) for _ in range(operations)]
        documents = [client.wait(id_, POLL_INTERVAL) for id_ in ids]
        begin = min(seconds(document, "createdTime") for document in documents)
        end = max(seconds(document, "lastUpdatedTime") for document in documents)
        return operations * size / (end - begin), server.peak()


def measure_many(options: argparse.Namespace, blobs: Server, container: str) -> list[str]:
    columns = ["store", "accepted per second", "completed per second", "start, 99 %, ms", "poll, 99 %, ms"]
    lines = head(*columns, "longest poll, ms", "polls", "highest MiB")
    results: dict[str, list[Many]] = {store: [] for store in options.stores}
    for round_ in range(1, options.rounds + 1):
        for store in options.stores:
            blobs.get("/stats")
            one = many(options, store, container)
            results[store].append(one)
            print(f"  round {round_} {store:10} {one.accepted:.2f} s, {one.completed:.2f} s {one.peak:.0f} MiB", file=sys.stderr)
    for store, own in results.items():
        accepted, completed = (median(getattr(one, what) for one in own) for what in ("accepted", "completed"))
        cells = [f"{options.operations / accepted:.0f}", f"{options.operations / completed:.0f}"]
        for what in ("start_latency", "poll_latency", "longest_poll"):
            cells.append(f"{1e3 * median(getattr(one, what) for one in own):.1f}")
        cells += [sum(one.polls for one in own), f"{max(one.peak for one in own):.0f}"]
        lines.append(row(store, *cells))
    return lines


def measure_large(options: argparse.Namespace, container: str) -> list[str]:
    lines = head("operations at once", "MiB/s, sum", "to one alone", "highest MiB")
    alone, together = [], []
    for round_ in range(1, options.rounds + 1):
        alone.append(throughput(options, 1, container))
        together.append(throughput(options, options.at_once, container))
        rates = alone[-1][0] / (1 << 20), together[-1][0] / (1 << 20)
        print(f"  round {round_} 1: {rates[0]:.0f} MiB/s, {options.at_once}: {rates[1]:.0f} MiB/s", file=sys.stderr)
    each = sorted(b[0] / a[0] for a, b in zip(alone, together, strict=True))
    ratio = median(each)
    for operations, own, cell in (
        (1, alone, ""),
        (options.at_once, together, f"{ratio:.2f} ({each[0]:.2f}–{each[-1]:.2f})"),
    ):
        rate = median(rate for rate, _ in own) / (1 << 20)
        lines.append(row(operations, f"{rate:.0f}", cell, f"{max(peak for _, peak in own):.0f}"))
    text = f"{options.at_once} at once at least {GOAL} × one alone"
    return lines + [""] + head("data", "goal", "measured", "") + [goal(options.large, text, ratio, round(ratio, 2) >= GOAL)]


def arguments() -> argparse.Namespace:
    def words(text: str) -> list[str]:
        return [word for word in text.split(",") if word]

    parser = argparse.ArgumentParser(prog="benches/operations.sh", description=__doc__.splitlines()[0])
    parser.add_argument("--programs", type=Path, required=True, help=argparse.SUPPRESS)
    parser.add_argument("--data-folder", type=Path, required=True, help=argparse.SUPPRESS)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--operations", type=int, default=1000, help="small operations")
    parser.add_argument("--clients", type=int, default=8, help="connections that start small operations")
    parser.add_argument("--stores", type=words, default=["none", "state", "postgres"], help="for small operations")
    parser.add_argument("--large", default="ct", help="the data set of large operations (benches/peers/dataset.py); '' for none")
    parser.add_argument("--at-once", type=int, default=20, help="large operations")
    return parser.parse_args()


def main() -> None:
    options = arguments()
    print("about 5 min with the default options", file=sys.stderr)
    with Server(options.programs / "nullblob") as blobs:
        container = f"{blobs.address}/devstoreaccount1/export"
        if options.stores:
            print(f"\n{options.operations} operations of 20 instances of 20 kB", file=sys.stderr)
            lines = measure_many(options, blobs, container)
            print(f"{options.operations} operations of 20 instances of 20 kB, started by {options.clients} clients:\n")
            print("\n".join(lines) + "\n", flush=True)
        if options.large:
            print(f"\n{options.at_once} operations at once, {options.large}", file=sys.stderr)
            lines = measure_large(options, container)
            print(f"The data set {options.large}, by one operation and by {options.at_once} at once:\n")
            print("\n".join(lines))


if __name__ == "__main__":
    main()
