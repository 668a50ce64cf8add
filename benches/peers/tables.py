"""The tables that benches/peers.sh prints, and the goals beside what was measured."""

from dataclasses import dataclass, field
from statistics import median

from tools import TLS_LIBRARIES, name_of

GIB = 1 << 30

# The highest ratio of ours to the bare loop in wall time, for each data set. Over TLS the same holds for CPU time.
BARE_GOALS = {"small": 1.3, "ct": 1.05, "wsi": 1.05}
BARE_GOALS_TLS = {"small": 1.1, "ct": 1.0, "wsi": 1.0}

# The lowest ratio of another tool's wall time to that of ours, over TLS.
PEER_GOALS_TLS = {"small": 3.0, "ct": 3.0, "wsi": 1.5}

# Over a network, the highest ratio of the adapted number of requests to the best fixed one, for runs of this many seconds.
LONG_RUN = 20.0
LONG_RUN_GOAL, SHORT_RUN_GOAL = 1.10, 1.25


@dataclass
class Cost:
    """The cost of one run: seconds, seconds of user and system time, MiB at the peak; and what the server counted."""

    wall: float
    cpu: float
    peak: float
    server: dict = field(default_factory=dict)


Costs = dict[str, list[Cost]]


def ratios(costs: Costs, tool: str, other: str, what: str) -> list[float]:
    """The sorted ratios of one tool to another, each within a round."""
    pairs = zip(costs[tool], costs[other], strict=True)
    return sorted(getattr(a, what) / getattr(b, what) for a, b in pairs)


def ratio(costs: Costs, tool: str, other: str, what: str = "wall") -> float:
    return median(ratios(costs, tool, other, what))


def row(*cells: object) -> str:
    return "| " + " | ".join(str(cell) for cell in cells) + " |"


def head(*cells: str) -> list[str]:
    return [row(*cells), row(*["---"] * len(cells))]


def costs_table(figures: dict[str, Costs], sizes: dict[str, int]) -> list[str]:
    """One row for each tool: its medians, and the medians of its ratios to the first tool and to ours."""
    first = next(iter(next(iter(figures.values()))))
    columns = ["data", "tool", "wall s", "Mbit/s", "CPU s", "CPU s per GiB", "MiB", "highest MiB"]
    columns += [f"wall / {first}", f"CPU / {first}"] + (["wall / ours"] if first != "ours" else [])
    lines = head(*columns)
    for kind, costs in figures.items():
        for tool, own in costs.items():
            wall, cpu, peak = (median(getattr(cost, what) for cost in own) for what in ("wall", "cpu", "peak"))
            comparisons = []
            for what in ("wall", "cpu"):
                each = ratios(costs, tool, first, what)
                comparisons.append(f"{median(each):.2f} ({each[0]:.2f}–{each[-1]:.2f})")
            if first != "ours":
                comparisons.append(f"{ratio(costs, tool, 'ours'):.2f}" if "ours" in costs else "")
            cells = [f"{wall:.2f}", f"{sizes[kind] * 8 / wall / 1e6:.0f}", f"{cpu:.2f}"]
            cells += [f"{cpu / sizes[kind] * GIB:.2f}", f"{peak:.0f}", f"{max(cost.peak for cost in own):.0f}"]
            lines.append(row(kind, tool, *cells, *comparisons))
    return lines


def connections_table(figures: dict[str, Costs]) -> list[str]:
    """How each tool used its connections: medians of what the server counted."""
    columns = ["data", "tool", "requests", "connections", "requests per connection", "at once"]
    lines = head(*columns, "resumed TLS sessions", "TLS", "implementation")
    for kind, costs in figures.items():
        for tool, own in costs.items():
            names = ("requests", "connections", "peakInFlight", "resumedHandshakes")
            requests, connections, peak, resumed = (int(median(cost.server[name] for cost in own)) for name in names)
            tls = own[0].server["tls"]
            library = TLS_LIBRARIES[name_of(tool)] if tls else ""
            reuse = f"{requests / max(1, connections):.0f}"
            lines.append(row(kind, tool, requests, connections, reuse, peak, resumed, tls, library))
    return lines


def goal(kind: str, text: str, measured: float, is_met: bool) -> str:
    return row(kind, text, f"{measured:.2f}", "met" if is_met else "missed")


def goals_table(figures: dict[str, Costs], tls: bool, wan: bool) -> list[str]:
    """The goals for the measured data sets and tools; empty if there is none."""
    lines = []
    for kind, costs in figures.items():
        if "ours" in costs:
            lines += network_goals(kind, costs) if wan else loopback_goals(kind, costs, tls)
    return head("data", "goal", "measured", "") + lines if lines else []


def loopback_goals(kind: str, costs: Costs, tls: bool) -> list[str]:
    lines = []
    limit = (BARE_GOALS_TLS if tls else BARE_GOALS).get(kind)
    if limit and "bare" in costs:
        for what in ("wall", "cpu") if tls else ("wall",):
            measured = ratio(costs, "ours", "bare", what)
            lines.append(goal(kind, f"{what} of ours at most {limit} × bare", measured, round(measured, 2) <= limit))
    least = PEER_GOALS_TLS.get(kind) if tls else None
    for peer in ("rclone", "azcopy", "s5cmd"):
        if least and peer in costs:
            measured = ratio(costs, peer, "ours")
            lines.append(goal(kind, f"wall of {peer} at least {least} × ours", measured, round(measured, 2) >= least))
    return lines


def network_goals(kind: str, costs: Costs) -> list[str]:
    """Compares ours with its best fixed number of requests, and with the best setting of any other tool."""

    def best(tools: list[str]) -> str | None:
        return min(tools, key=lambda tool: median(cost.wall for cost in costs[tool]), default=None)

    lines = []
    fixed = best([tool for tool in costs if tool.startswith("ours:")])
    if fixed:
        measured = ratio(costs, "ours", fixed)
        is_long = median(cost.wall for cost in costs[fixed]) >= LONG_RUN
        limit = LONG_RUN_GOAL if is_long else SHORT_RUN_GOAL
        text = f"wall of ours at most {limit} × the best fixed ({fixed})"
        lines.append(goal(kind, text, measured, round(measured, 2) <= limit))
    peer = best([tool for tool in costs if name_of(tool) not in ("ours", "bare", "again")])
    if peer:
        measured = ratio(costs, "ours", peer)
        text = f"wall of ours at most 1.0 × the best other tool ({peer})"
        lines.append(goal(kind, text, measured, round(measured, 2) <= 1.0))
    return lines
