"""The server that the tools of benches/peers.sh upload to."""

import signal
import ssl
import subprocess
import sys
import tempfile
import urllib.request
from pathlib import Path


class Server:
    """nullblob on a free port, with TLS and behind an emulated network if requested, for the duration of a `with` block."""

    def __init__(self, program: Path, store: str = "azure", tls: bool = False, wan: str = ""):
        self.scratch = tempfile.TemporaryDirectory()
        self.processes: list[subprocess.Popen[str]] = []
        self.store = store
        scheme, options, context = "http", [], None
        if store == "s3":
            options.append("--s3")
        if tls:
            scheme = "https"
            options += ["--tls", self.scratch.name]
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
        # Everything that was started ends with this script.
        signal.signal(signal.SIGTERM, lambda *_: sys.exit("terminated"))
        return self

    def __exit__(self, *_: object) -> None:
        for process in self.processes:
            process.terminate()
            process.wait()
        self.scratch.cleanup()

    def get(self, path: str) -> str:
        with urllib.request.urlopen(self.control + path, context=self.context) as response:
            return response.read().decode()
