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
import ssl
import subprocess
import sys
import tempfile
import time
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from statistics import median

MIB = 1 << 20
# The server does not check the SAS.
SAS = "sv=2023-11-03&sp=w&sig=c2lnbmF0dXJl"


@dataclass
class Cost:
    """The cost of one run: seconds, seconds of user and system time, MiB at the peak."""

    wall: float
    cpu: float
    peak: float


def measure(command: list[str], environment: dict[str, str]) -> Cost:
    """Runs a command and returns its cost. Exits if the command fails."""
    # The peak of a child process includes the memory of its parent when it was forked. GNU time is smaller than this script.
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
    """The commands to compare. `ours:8` is ours with `--concurrency 8`, and likewise for the other tools. `ours+manifest` is
    ours with a manifest, and likewise for the other options in `EXTRAS`."""

    EXTRAS = {
        "unchecked": ["--checksums", "off"],
        "identity": ["--check-identity", "enforce"],
        "manifest": ["--manifest"],
    }

    def __init__(self, programs: Path, container: str, authority: Path | None, scratch: Path):
        self.programs = programs
        self.container = container
        self.authority = authority
        self.scratch = scratch

    def command(self, tool: str, folder: Path) -> tuple[list[str], dict[str, str]]:
        name, _, requests = tool.partition(":")
        name, *extras = name.split("+")
        if extras and name != "ours" or not all(extra in self.EXTRAS for extra in extras):
            sys.exit(f"unknown tool '{tool}'")
        url = f"{self.container}?{SAS}"
        # Every tool but ours trusts the certificates in this file; ours has an option.
        trust = {name: str(self.authority) for name in ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE") if self.authority}
        if name in ("bare", "again"):
            return [str(self.programs / "bare-loop"), str(folder), url, requests or "32"], trust
        if name == "ours":
            command = [str(self.programs / "export"), "--source", str(folder), "--destination", url]
            command += ["--development", "--quiet"]
            for extra in extras:
                command += self.EXTRAS[extra]
            if self.authority:
                command += ["--root-certificate", str(self.authority)]
            return command + (["--concurrency", requests] if requests else []), {}
        if name == "rclone":
            command = ["rclone", "copy", str(folder), "peer:export/rclone", "--checkers", "8"]
            command += ["--transfers", requests or "32", "--azureblob-upload-concurrency", "16"]
            environment = {"RCLONE_CONFIG": os.devnull, "RCLONE_CONFIG_PEER_TYPE": "azureblob"}
            return command, trust | environment | {"RCLONE_CONFIG_PEER_SAS_URL": url}
        if name == "azcopy":
            to = f"{self.container}/azcopy?{SAS}"
            command = [str(self.programs / "azcopy"), "copy", f"{folder}/*", to, "--recursive", "--from-to", "LocalBlob"]
            command += ["--check-length=false", "--log-level", "NONE", "--output-level", "quiet"]
            environment = {"AZCOPY_LOG_LOCATION": str(self.scratch), "AZCOPY_JOB_PLAN_LOCATION": str(self.scratch)}
            environment |= {"AZCOPY_CONCURRENCY_VALUE": requests} if requests else {}
            return command, trust | environment | {"AZCOPY_DISABLE_SYSLOG": "true", "HOME": str(self.scratch)}
        if name == "python":
            script = Path(__file__).with_name("upload.py")
            return [str(self.programs / "venv/bin/python"), str(script), str(folder), url, requests or "16"], trust
        sys.exit(f"unknown tool '{name}': bare, again, ours, rclone, azcopy or python")


class Server:
    """nullblob on a free port, with TLS and behind an emulated network if requested, for the duration of a `with` block."""

    def __init__(self, program: Path, tls: bool, wan: str):
        self.scratch = tempfile.TemporaryDirectory()
        self.processes: list[subprocess.Popen[str]] = []
        scheme, options, context = "http", [], None
        if tls:
            scheme, options = "https", ["--tls", self.scratch.name]
        address = self.start(program, "127.0.0.1:0", *options)
        self.authority = Path(self.scratch.name) / "ca.pem" if tls else None
        if tls:
            context = ssl.create_default_context(cafile=str(self.authority))
        self.context = context
        # Statistics and limits are not requested over the emulated network.
        self.control = f"{scheme}://{address}"
        if wan:
            address = self.start(program, "wan", "127.0.0.1:0", address, *wan.split(","))
        self.address = f"{scheme}://{address}"

    def start(self, *command: str | Path) -> str:
        """Starts a process and returns the address that it prints."""
        process = subprocess.Popen([str(word) for word in command], stdout=subprocess.PIPE, text=True)
        self.processes.append(process)
        return process.stdout.readline().strip() or sys.exit(f"{command[0]} did not start")

    def __enter__(self) -> "Server":
        return self

    def __exit__(self, *_: object) -> None:
        for process in self.processes:
            process.terminate()
            process.wait()
        self.scratch.cleanup()

    def get(self, path: str) -> str:
        with urllib.request.urlopen(self.control + path, context=self.context) as response:
            return response.read().decode()


def data_set(folder: Path, kind: str) -> Path:
    """The folder of a data set, which is created if it does not exist."""
    finished = folder / kind
    if not finished.exists():
        print(f"creating the data set {kind}", file=sys.stderr)
        unfinished = folder / f"{kind}.unfinished"
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir(parents=True)
        script = Path(__file__).with_name("dataset.py")
        subprocess.run([sys.executable, str(script), str(unfinished), kind], check=True)
        unfinished.rename(finished)
    return finished


def files_and_bytes(folder: Path) -> tuple[int, int]:
    """Reads every file, so that it is cached for each tool."""
    files = total = 0
    for path in folder.rglob("*"):
        if path.is_file():
            files += 1
            with path.open("rb", buffering=0) as file:
                while chunk := file.read(8 * MIB):
                    total += len(chunk)
    return files, total


def run(kind: str, options: argparse.Namespace, server: Server) -> tuple[int, dict[str, list[Cost]]]:
    """Runs all rounds with one data set."""
    folder = data_set(options.data_folder, kind)
    files, size = files_and_bytes(folder)
    container = f"{server.address}/devstoreaccount1/export"
    tools = Tools(options.programs, container, server.authority, Path(server.scratch.name))
    costs: dict[str, list[Cost]] = {tool: [] for tool in options.tools}
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
            stats = json.loads(server.get("/stats"))
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


def table(kind: str, size: int, costs: dict[str, list[Cost]]) -> list[str]:
    """One row per tool: its medians, and the medians of its ratios to the first tool."""
    lines = []
    first = next(iter(costs))
    for tool, own in costs.items():
        ratios = []
        for what in ("wall", "cpu"):
            pairs = zip(own, costs[first], strict=True)
            each = sorted(getattr(a, what) / getattr(b, what) for a, b in pairs)
            ratios.append(f"{median(each):.2f} ({each[0]:.2f}–{each[-1]:.2f})")
        wall, cpu, peak = (median(getattr(cost, what) for cost in own) for what in ("wall", "cpu", "peak"))
        highest = max(cost.peak for cost in own)
        figures = f"{wall:.2f} | {cpu:.2f} | {cpu / size * (1 << 30):.2f} | {peak:.0f} | {highest:.0f}"
        lines.append(f"| {kind} | {tool} | {figures} | {ratios[0]} | {ratios[1]} |")
    return lines


def arguments() -> argparse.Namespace:
    def words(text: str) -> list[str]:
        return text.split(",")

    parser = argparse.ArgumentParser(prog="benches/peers.sh", description=__doc__.splitlines()[0])
    parser.add_argument("--programs", type=Path, required=True, help=argparse.SUPPRESS)
    parser.add_argument("--data-folder", type=Path, required=True, help=argparse.SUPPRESS)
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument(
        "--data", type=words, default=["small", "ct", "wsi"], help="small,ct,wsi (or tiny, ct50, ct5000)"
    )
    parser.add_argument(
        "--tools",
        type=words,
        default=["bare", "again", "ours", "rclone", "azcopy"],
        help="bare,again,ours,rclone,azcopy (or python); with :N for N concurrent requests; ours also with +unchecked, "
        "+identity or +manifest; ratios are relative to the first tool",
    )
    parser.add_argument(
        "--limits",
        default="",
        help="what the server rejects: slots=8, rate=500, busy=100; its delay: latency=5; its checksums: crc64=1, md5=1",
    )
    parser.add_argument("--tls", action="store_true", help="upload over https")
    parser.add_argument(
        "--wan",
        default="",
        help="the network in front of the server: delay=30 (round trip, ms), rate=200, connection-rate=50 (Mbit/s), "
        "separated by commas",
    )
    parser.add_argument("--json", type=Path, help="a file for all figures")
    return parser.parse_args()


def main() -> None:
    options = arguments()
    if any(tool.startswith("rclone") for tool in options.tools) and not shutil.which("rclone"):
        sys.exit("rclone is required (Debian: apt-get install rclone), or choose --tools without it")
    if not shutil.which("/usr/bin/time"):
        sys.exit("GNU time is required (Debian: apt-get install time)")
    figures, sizes = {}, {}
    with Server(options.programs / "nullblob", options.tls, options.wan) as server:
        for kind in options.data:
            sizes[kind], figures[kind] = run(kind, options, server)
    first = options.tools[0]
    print(f"| data | tool | wall s | CPU s | CPU s per GiB | MiB | highest MiB | wall / {first} | CPU / {first} |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- | --- |")
    for kind, costs in figures.items():
        print("\n".join(table(kind, sizes[kind], costs)))
    if options.json:
        plain = {kind: {tool: [vars(c) for c in own] for tool, own in costs.items()} for kind, costs in figures.items()}
        options.json.write_text(json.dumps(plain, indent=1) + "\n")


if __name__ == "__main__":
    main()
