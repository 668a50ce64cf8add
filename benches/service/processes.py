"""What benches/state.sh and benches/operations.sh run: the example server, and the stores of its operations."""

import calendar
import http.client
import json
import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")

# Calls that wait until data is on the disk.
SYNCS = "fsync,fdatasync,sync_file_range,syncfs,msync"
SYNC_LINE = re.compile(r"\d+ +([\d.]+) (?:" + SYNCS.replace(",", "|") + r")\(")

TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
START_TIMEOUT = 60

# The server does not check the SAS.
SAS = "sv=2023-11-03&sp=w&sig=c2lnbmF0dXJl"


class Process:
    """A process, optionally under strace, which writes the time of each sync to a file."""

    def __init__(self, command: list[str], scratch: Path, environment: dict[str, str] | None = None, traced: bool = False):
        self.name = Path(command[0]).name
        self.log = Path(tempfile.mkstemp(dir=scratch, prefix="log-")[1])
        self.trace = Path(tempfile.mkstemp(dir=scratch, prefix="trace-")[1]) if traced else None
        if traced:
            tracer = ["strace", "-f", "--seccomp-bpf", "-ttt", "-o", str(self.trace), "-e", f"trace={SYNCS}"]
            command = tracer + command
        with self.log.open("w") as log:
            environment = os.environ | {"RUST_LOG": "off"} | (environment or {})
            self.process = subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    def wait_for(self, ready: Callable[[], T]) -> T:
        """Waits until `ready` returns something true, and returns it. Exits if that takes too long."""
        end = time.monotonic() + START_TIMEOUT
        while not (found := ready()):
            if self.process.poll() is not None or time.monotonic() > end:
                self.stop()
                sys.exit(f"{self.name} did not start:\n{self.log.read_text()}")
            time.sleep(0.01)
        return found

    @property
    def pid(self) -> int:
        """The id of the process itself, not of strace."""
        if not self.trace:
            return self.process.pid
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        return int(children[0])

    def stop(self, how: signal.Signals = signal.SIGTERM) -> None:
        if self.process.poll() is None:
            # strace ends with the process that it traces.
            os.kill(self.pid, how)
            self.process.wait()

    def cpu(self) -> float:
        """Seconds of user and system time until now."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / TICKS_PER_SECOND

    def peak(self) -> float:
        """The peak of the resident memory until now, in MiB."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        return int(re.search(r"VmHWM:\s+(\d+) kB", status)[1]) / 1024

    def syncs(self, start: float, end: float) -> int:
        """The number of syncs between two times (of the clock, in seconds), after the process has ended."""
        times = [float(found[1]) for line in self.trace.read_text().splitlines() if (found := SYNC_LINE.match(line))]
        return sum(start <= at <= end for at in times)


class Postgres(Process):
    """A PostgreSQL server from Debian's package with an empty database, on a free port, with its default durability."""

    def __init__(self, scratch: Path, traced: bool = False):
        folder = Path(tempfile.mkdtemp(dir=scratch, prefix="postgres-"))
        # The data belongs to another user if this script runs as root.
        folder.chmod(0o777)
        data = folder / "data"
        initdb = ["initdb", "--auth=trust", "--no-sync", "--encoding=UTF8", "--locale=C", "--username=dicom"]
        subprocess.run(self.command(*initdb, "--pgdata", str(data)), check=True, stdout=subprocess.DEVNULL)
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = str(free.getsockname()[1])
        options = ["-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories="]
        super().__init__(self.command("postgres", "-D", str(data), "-p", port, *options), scratch, traced=traced)
        is_ready = self.command("pg_isready", "--quiet", "--host=127.0.0.1", f"--port={port}")
        self.wait_for(lambda: subprocess.run(is_ready).returncode == 0)
        self.url = f"postgres://dicom@127.0.0.1:{port}/postgres"

    @staticmethod
    def command(program: str, *arguments: str) -> list[str]:
        """A program of the newest version. PostgreSQL refuses to run as root, so root runs it as the package's user."""
        versions = [folder for folder in Path("/usr/lib/postgresql").glob("*") if folder.name.isdigit()]
        newest = max(versions, key=lambda folder: int(folder.name), default=None)
        command = [str(newest / "bin" / program) if newest else sys.exit("PostgreSQL is not installed"), *arguments]
        if os.geteuid() == 0:
            command = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups", *command]
        return command

    def stop(self, how: signal.Signals = signal.SIGINT) -> None:
        super().stop(how)


class ExportServer(Process):
    """The example server on a free port."""

    def __init__(self, program: Path, source: Path, scratch: Path, options: list[str], traced: bool = False):
        command = [str(program), "--source", str(source), "--listen", "127.0.0.1:0", "--development", *options]
        # With this key, credentials are stored in a database.
        super().__init__(command, scratch, {"EXPORT_SECRET_KEY": secrets.token_hex(32)}, traced)
        found = self.wait_for(lambda: re.search(r"listening on http://(\S+)\n", self.log.read_text()))
        self.address = found[1]

    def stop(self, how: signal.Signals = signal.SIGTERM) -> None:
        super().stop(how)


class Client:
    """One connection to the export API."""

    def __init__(self, address: str):
        self.connection = http.client.HTTPConnection(address, timeout=600)

    def request(self, method: str, path: str, body: object = None) -> tuple[int, dict]:
        headers = {"Content-Type": "application/json"} if body is not None else {}
        content = json.dumps(body) if body is not None else None
        self.connection.request(method, path, content, headers)
        response = self.connection.getresponse()
        content = response.read()
        return response.status, json.loads(content) if content else {}

    def start(self, container: str) -> str:
        """Starts an export of everything and returns its id."""
        destination = {"type": "azureblob", "settings": {"blobContainerUri": f"{container}?{SAS}"}}
        status, started = self.request("POST", "/v1/export", {"source": None, "destination": destination})
        if status != 202:
            sys.exit(f"an export was answered with {status}: {started}")
        return started["id"]

    def status(self, operation: str) -> dict:
        return self.request("GET", f"/v1/operations/{operation}")[1]

    def wait(self, operation: str, interval: float) -> dict:
        """Polls until an export has completed, and returns its document."""
        while (document := self.status(operation))["status"] in ("notStarted", "running"):
            time.sleep(interval)
        if document["status"] != "completed" or document["results"]["skipped"]:
            sys.exit(f"an export did not complete: {document}")
        return document


def seconds(document: dict, name: str) -> float:
    """A time of a status document in seconds of the clock."""
    whole, _, fraction = document[name].rstrip("Z").partition(".")
    return calendar.timegm(time.strptime(whole, "%Y-%m-%dT%H:%M:%S")) + float(f"0.{fraction or 0}")


@contextmanager
def scratch_folder() -> Iterator[Path]:
    """A folder on a disk: /tmp can be in memory, where a sync takes no time."""
    folder = Path(tempfile.mkdtemp(dir="/var/tmp", prefix="dicom-export-bench-"))
    folder.chmod(0o711)
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


@contextmanager
def export_server(
    program: Path, source: Path, store: str, scratch: Path, traced: bool = False
) -> Iterator[tuple[ExportServer, Postgres | None]]:
    """The example server with `store`: none, again (also none), state (redb) or postgres."""
    database, options = None, []
    if store == "state":
        options = ["--state", str(Path(tempfile.mkdtemp(dir=scratch)) / "operations.redb")]
    elif store == "postgres":
        database = Postgres(scratch, traced)
        options = ["--postgres", database.url]
    elif store not in ("none", "again"):
        sys.exit(f"unknown store '{store}': none, again, state or postgres")
    server = None
    try:
        server = ExportServer(program, source, scratch, options, traced)
        yield server, database
    finally:
        if server:
            server.stop()
        if database:
            database.stop()
