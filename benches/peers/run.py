"""Uploads the same files to the same server with each tool in turn, and prints what each costs.

Called by benches/peers.sh, which says how. A round runs every tool once, each round beginning with the next one, so
that what slows the machine for a while slows all; ratios are taken within a round, and their median is quoted. `bare`
runs twice a round, as `bare` and as `again`: their ratio is the noise.
"""

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from statistics import median

MIB = 1 << 20
# Any SAS will do: the server checks none.
SAS = "sv=2023-11-03&sp=w&sig=c2lnbmF0dXJl"


@dataclass
class Cost:
    """What one run took: seconds, seconds of user and system time, MiB at its peak."""

    wall: float
    cpu: float
    peak: float


def measure(command: list[str], environment: dict[str, str]) -> Cost:
    """Runs a command and gives its cost; ends the whole run if the command fails."""
    # A process's peak as the system counts it begins with its parent's, which is this script's: GNU time is small.
    with tempfile.NamedTemporaryFile("r") as peak:
        timed = ["/usr/bin/time", "--quiet", "--format=%M", f"--output={peak.name}", *command]
        before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
        done = subprocess.run(timed, env=os.environ | environment, capture_output=True, text=True)
        after, wall = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter() - start
        if done.returncode:
            sys.exit(f"{command[0]} ended with {done.returncode}:\n{done.stdout}{done.stderr}")
        cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        return Cost(wall, cpu, int(peak.read()) / 1024)


class Tools:
    """The commands to compare. `ours:8` is ours with `--concurrency 8`, and so for the others; `ours+manifest` is ours with
    a manifest, and so for what else stands in `EXTRAS`."""

    EXTRAS = {
        "unchecked": ["--checksums", "off"],
        "identity": ["--check-identity", "enforce"],
        "manifest": ["--manifest"],
    }

    def __init__(self, programs: Path, container: str):
        self.programs = programs
        self.container = container

    def command(self, tool: str, folder: Path) -> tuple[list[str], dict[str, str]]:
        name, _, at_once = tool.partition(":")
        name, *extras = name.split("+")
        if extras and name != "ours" or not all(extra in self.EXTRAS for extra in extras):
            sys.exit(f"there is no tool '{tool}'")
        url = f"{self.container}?{SAS}"
        if name in ("bare", "again"):
            return [str(self.programs / "bare-loop"), str(folder), url, at_once or "32"], {}
        if name == "ours":
            command = [str(self.programs / "export"), "--source", str(folder), "--destination", url]
            command += ["--development", "--quiet"]
            for extra in extras:
                command += self.EXTRAS[extra]
            return command + (["--concurrency", at_once] if at_once else []), {}
        if name == "rclone":
            command = ["rclone", "copy", str(folder), "peer:export/rclone", "--checkers", "8"]
            command += ["--transfers", at_once or "32", "--azureblob-upload-concurrency", "16"]
            environment = {"RCLONE_CONFIG": os.devnull, "RCLONE_CONFIG_PEER_TYPE": "azureblob"}
            return command, environment | {"RCLONE_CONFIG_PEER_SAS_URL": url}
        if name == "python":
            script = Path(__file__).with_name("upload.py")
            return [str(self.programs / "venv/bin/python"), str(script), str(folder), url, at_once or "16"], {}
        sys.exit(f"there is no tool '{name}': bare, again, ours, rclone or python")


class Server:
    """nullblob, on a free port, for as long as the `with` block lasts."""

    def __init__(self, program: Path):
        self.process = subprocess.Popen([str(program), "127.0.0.1:0"], stdout=subprocess.PIPE, text=True)
        self.address = f"http://{self.process.stdout.readline().strip()}"

    def __enter__(self) -> "Server":
        return self

    def __exit__(self, *_: object) -> None:
        self.process.terminate()
        self.process.wait()

    def get(self, path: str) -> str:
        with urllib.request.urlopen(self.address + path) as answer:
            return answer.read().decode()


def data_set(folder: Path, kind: str) -> Path:
    """The folder of a data set, made if it is not there yet."""
    made = folder / kind
    if not made.exists():
        print(f"making the data set {kind}", file=sys.stderr)
        half = folder / f"{kind}.half"
        shutil.rmtree(half, ignore_errors=True)
        half.mkdir(parents=True)
        script = Path(__file__).with_name("dataset.py")
        subprocess.run([sys.executable, str(script), str(half), kind], check=True)
        half.rename(made)
    return made


def files_and_bytes(folder: Path) -> tuple[int, int]:
    """Reads every file, so that each tool finds them cached."""
    files = total = 0
    for path in folder.rglob("*"):
        if path.is_file():
            files += 1
            with path.open("rb", buffering=0) as file:
                while chunk := file.read(8 * MIB):
                    total += len(chunk)
    return files, total


def run(kind: str, options: argparse.Namespace, server: Server) -> dict[str, list[Cost]]:
    """All rounds over one data set."""
    folder = data_set(options.data_folder, kind)
    files, size = files_and_bytes(folder)
    tools = Tools(options.programs, f"{server.address}/devstoreaccount1/export")
    costs: dict[str, list[Cost]] = {tool: [] for tool in options.tools}
    print(f"\n{kind}: {files} files, {size / MIB:.0f} MiB", file=sys.stderr)
    for round_ in range(1, options.rounds + 1):
        first = (round_ - 1) % len(options.tools)
        for tool in options.tools[first:] + options.tools[:first]:
            # Some tools tell the system to forget what they have read.
            files_and_bytes(folder)
            server.get("/stats")
            server.get(f"/limits?{options.limits}")
            cost = measure(*tools.command(tool, folder))
            server.get("/limits?busy=0&latency=0&slots=0&rate=0&crc64=0&md5=0")
            stats = json.loads(server.get("/stats"))
            blobs, received = stats["puts"] + stats["commits"], stats["bytes"]
            if blobs < files or received < size:
                sys.exit(f"{tool} sent {blobs} blobs and {received} bytes of {files} and {size}")
            costs[tool].append(cost)
            print(
                f"  round {round_} {tool:10} {cost.wall:7.2f} s {cost.cpu:7.2f} cpu s {cost.peak:6.0f} MiB"
                f"  refused {stats['refused']}  peak {stats['peakInFlight']} at once",
                file=sys.stderr,
            )
    return costs


def table(kind: str, costs: dict[str, list[Cost]]) -> list[str]:
    """One row a tool: its medians, and the medians of its ratios to the first tool."""
    lines = []
    first = next(iter(costs))
    for tool, own in costs.items():
        ratios = []
        for what in ("wall", "cpu"):
            pairs = zip(own, costs[first], strict=True)
            each = sorted(getattr(a, what) / getattr(b, what) for a, b in pairs)
            ratios.append(f"{median(each):.2f} ({each[0]:.2f}–{each[-1]:.2f})")
        middle = [median(getattr(cost, what) for cost in own) for what in ("wall", "cpu", "peak")]
        most = max(cost.peak for cost in own)
        figures = f"{middle[0]:.2f} | {middle[1]:.2f} | {middle[2]:.0f} | {most:.0f}"
        lines.append(f"| {kind} | {tool} | {figures} | {ratios[0]} | {ratios[1]} |")
    return lines


def arguments() -> argparse.Namespace:
    def words(text: str) -> list[str]:
        return text.split(",")

    parser = argparse.ArgumentParser(prog="benches/peers.sh", description=__doc__.splitlines()[0])
    parser.add_argument("--programs", type=Path, required=True, help=argparse.SUPPRESS)
    parser.add_argument("--data-folder", type=Path, required=True, help=argparse.SUPPRESS)
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--data", type=words, default=["small", "ct", "wsi"], help="small,ct,wsi (or tiny)")
    parser.add_argument(
        "--tools",
        type=words,
        default=["bare", "again", "ours", "rclone"],
        help="bare,again,ours,rclone (or python); with :N for N at once; ours also with +unchecked, +identity or +manifest; "
        "the first is what the ratios are to",
    )
    parser.add_argument(
        "--limits",
        default="",
        help="what the server refuses: slots=8, rate=500, busy=100, latency=5; what it answers: crc64=1, md5=1",
    )
    parser.add_argument("--json", type=Path, help="where to write every figure")
    return parser.parse_args()


def main() -> None:
    options = arguments()
    if any(tool.startswith("rclone") for tool in options.tools) and not shutil.which("rclone"):
        sys.exit("rclone is needed (Debian: apt-get install rclone), or choose --tools without it")
    if not shutil.which("/usr/bin/time"):
        sys.exit("GNU time is needed (Debian: apt-get install time)")
    figures = {}
    with Server(options.programs / "nullblob") as server:
        for kind in options.data:
            figures[kind] = run(kind, options, server)
    first = options.tools[0]
    print(f"| data | tool | wall s | cpu s | MiB | most MiB | wall / {first} | cpu / {first} |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    for kind, costs in figures.items():
        print("\n".join(table(kind, costs)))
    if options.json:
        plain = {kind: {tool: [vars(c) for c in own] for tool, own in costs.items()} for kind, costs in figures.items()}
        options.json.write_text(json.dumps(plain, indent=1) + "\n")


if __name__ == "__main__":
    main()
