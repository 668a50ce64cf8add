"""Exports the same files with each store of operations in turn, and prints the cost of each.

Called by benches/state.sh, which documents the options. Each export runs in a new process of the example server with a new
store. The stores are used in turn, and each round begins with another one. Ratios are computed within a round, and their median
is printed. `none` runs twice per round, as `none` and as `again`: their ratio is the noise of the measurement.
"""

import argparse
import shutil
import sys
import time
from pathlib import Path
from statistics import median

sys.path.append(str(Path(__file__).parent.parent / "peers"))
from data import data_set, files_and_bytes  # noqa: E402
from processes import Client, export_server, scratch_folder, seconds  # noqa: E402
from servers import Server  # noqa: E402
from tables import Cost, Costs, goal, head, ratios, row  # noqa: E402

# The highest ratio to an export without a durable store.
GOAL = 1.05

POLL_INTERVAL = 0.25


def export(options: argparse.Namespace, source: Path, store: str, container: str, traced: bool = False) -> Cost:
    """Exports everything once. The wall time is that in the status document."""
    with scratch_folder() as scratch:
        with export_server(options.programs / "server", source, store, scratch, traced) as (server, database):
            client, cpu = Client(server.address), server.cpu()
            document = client.wait(client.start(container), POLL_INTERVAL)
            cost, polled = Cost(0, server.cpu() - cpu, server.peak()), time.time()
        start = seconds(document, "createdTime")
        cost.wall = seconds(document, "lastUpdatedTime") - start
        if traced:
            # The last sync follows the time in the document. When they stop, servers sync more.
            cost.server["syncs"] = sum(process.syncs(start, polled) for process in (server, database) if process)
        return cost


def measure(options: argparse.Namespace, kind: str, blobs: Server) -> tuple[Costs, dict[str, Cost]]:
    """The costs of each store, and the same with syncs counted."""
    source = data_set(options.data_folder, kind)
    files, size = files_and_bytes(source)
    container = f"{blobs.address}/devstoreaccount1/export"
    print(f"\n{kind}: {files} files, {size >> 20} MiB", file=sys.stderr)
    costs: Costs = {store: [] for store in options.stores}
    for round_ in range(1, options.rounds + 1):
        first = (round_ - 1) % len(options.stores)
        for store in options.stores[first:] + options.stores[:first]:
            files_and_bytes(source)
            cost = export(options, source, store, container)
            costs[store].append(cost)
            print(f"  round {round_} {store:10} {cost.wall:7.2f} s {cost.cpu:7.2f} cpu s {cost.peak:6.0f} MiB", file=sys.stderr)
    traced = {}
    if shutil.which("strace"):
        traced = {store: export(options, source, store, container, traced=True) for store in options.stores}
    return costs, traced


def print_tables(figures: dict[str, tuple[Costs, dict[str, Cost]]], first: str) -> None:
    columns = ["data", "store", "wall s", "CPU s", "MiB", f"wall / {first}", f"CPU / {first}"]
    lines, goals = head(*columns, "syncs", "syncs per second"), []
    for kind, (costs, traced) in figures.items():
        for store, own in costs.items():
            wall, cpu, peak = (median(getattr(cost, what) for cost in own) for what in ("wall", "cpu", "peak"))
            cells = [f"{wall:.2f}", f"{cpu:.2f}", f"{peak:.0f}"]
            for what in ("wall", "cpu"):
                each = ratios(costs, store, first, what)
                cells.append(f"{median(each):.2f} ({each[0]:.2f}–{each[-1]:.2f})")
            syncs = traced[store].server["syncs"] if traced else None
            cells += ["", ""] if syncs is None else [syncs, f"{syncs / traced[store].wall:.1f}"]
            lines.append(row(kind, store, *cells))
            if store not in (first, "again"):
                measured = median(ratios(costs, store, first, "wall"))
                text = f"wall with {store} at most {GOAL} × {first}"
                goals.append(goal(kind, text, measured, round(measured, 2) <= GOAL))
    print("\n".join(lines + [""] + head("data", "goal", "measured", "") + goals))
    print("\nSyncs are the calls of fsync, fdatasync and so on, of the server and the database, in another run under strace.")


def arguments() -> argparse.Namespace:
    def words(text: str) -> list[str]:
        return text.split(",")

    parser = argparse.ArgumentParser(prog="benches/state.sh", description=__doc__.splitlines()[0])
    parser.add_argument("--programs", type=Path, required=True, help=argparse.SUPPRESS)
    parser.add_argument("--data-folder", type=Path, required=True, help=argparse.SUPPRESS)
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--data", type=words, default=["small"], help="those in benches/peers/dataset.py")
    parser.add_argument("--stores", type=words, default=["none", "again", "state", "postgres"])
    return parser.parse_args()


def main() -> None:
    options = arguments()
    print(f"about {max(1, options.rounds * len(options.data) * len(options.stores) * 5 // 60)} min", file=sys.stderr)
    start = time.monotonic()
    with Server(options.programs / "nullblob") as blobs:
        figures = {kind: measure(options, kind, blobs) for kind in options.data}
    print(f"took {(time.monotonic() - start) / 60:.1f} min", file=sys.stderr)
    print_tables(figures, options.stores[0])


if __name__ == "__main__":
    main()
