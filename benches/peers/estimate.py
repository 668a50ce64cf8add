"""How long the measurements of benches/peers.sh take, roughly."""

from tools import name_of

# Number of files, and bytes of each.
DATA = {
    "small": (20_000, 20_600),
    "small5000": (5_000, 20_600),
    "ct": (4_000, 525_000),
    "ct50": (50, 525_000),
    "ct1000": (1_000, 525_000),
    "ct5000": (5_000, 525_000),
    "wsi": (1, 2 << 30),
    "wsi512": (1, 512 << 20),
    "tiny": (300, 20_600),
}

# What a tool takes at least, for each file, and for each GiB without a network, in seconds on two cores; its requests for each
# file, and its usual number of concurrent requests.
COSTS = {
    "bare": (0.1, 0.00008, 1.0, 1, 32),
    "ours": (0.1, 0.00008, 1.0, 1, 64),
    "rclone": (0.1, 0.0005, 4.0, 3, 32),
    "azcopy": (2.0, 0.0005, 3.0, 1, 32),
    "s5cmd": (0.1, 0.0004, 2.0, 1, 256),
    "python": (0.5, 0.003, 4.0, 1, 16),
}
BLOCK, MAX_WINDOW = 8 << 20, 4 << 20
BLOCKS_IN_FLIGHT = 8


def seconds(kind: str, tool: str, wan: str) -> float:
    """The duration of one run, with the time to read the files before it."""
    files, size = DATA.get(kind, DATA["ct"])
    name = name_of(tool).replace("again", "bare")
    start, per_file, per_gib, requests_per_file, requests = COSTS.get(name, COSTS["python"])
    if tool.partition(":")[2]:
        requests = int(tool.partition(":")[2])
    gib = files * size / (1 << 30)
    local = start + files * per_file + gib * (per_gib + 0.3) + files * 0.00004
    settings = dict(setting.split("=") for setting in wan.split(",") if setting)
    delay, rate = float(settings.get("delay", 0)) / 1e3, float(settings.get("rate", 0)) * 1e6 / 8
    bandwidth = files * size / rate if rate else 0.0
    if size > BLOCK:
        files, size, requests = files * size / BLOCK, BLOCK, BLOCKS_IN_FLIGHT
    # A request takes a round trip, and one more for each full window; a new connection has to fill its window first.
    trips = files * (requests_per_file + size / MAX_WINDOW) / requests + 10
    return max(local, bandwidth, trips * delay)


def text(total: float) -> str:
    """A duration for people."""
    minutes = max(1, round(total / 60))
    return f"{minutes} min" if minutes < 90 else f"{minutes / 60:.1f} h"
