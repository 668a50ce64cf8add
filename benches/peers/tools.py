"""The commands that benches/peers.sh compares."""

import os
import sys
from pathlib import Path

from servers import Server

# The server checks neither the SAS nor signatures.
SAS = "sv=2023-11-03&sp=w&sig=c2lnbmF0dXJl"
KEYS = {"AWS_ACCESS_KEY_ID": "AKIAIOSFODNN7EXAMPLE", "AWS_SECRET_ACCESS_KEY": "EXAMPLEKEY", "AWS_REGION": "us-east-1"}

# What each store is uploaded to with, by default.
DEFAULTS = {
    "azure": ["bare", "again", "ours", "rclone", "azcopy"],
    "s3": ["bare", "again", "ours", "rclone", "s5cmd"],
}

# The options of ours, for `ours+manifest` and so on.
EXTRAS = {
    "unchecked": ["--checksums", "off"],
    "identity": ["--check-identity", "enforce"],
    "manifest": ["--manifest"],
}

# The TLS implementation of each tool.
TLS_LIBRARIES = {
    "bare": "rustls with aws-lc-rs",
    "again": "rustls with aws-lc-rs",
    "ours": "rustls with aws-lc-rs",
    "rclone": "crypto/tls of Go",
    "azcopy": "crypto/tls of Go",
    "s5cmd": "crypto/tls of Go",
    "python": "OpenSSL",
}


def name_of(tool: str) -> str:
    """The tool without its options: `ours` for `ours+manifest:8`."""
    return tool.partition(":")[0].partition("+")[0]


class Tools:
    """The commands for one server. `ours:8` is ours with `--concurrency 8`, and likewise for the other tools. `ours+manifest`
    is ours with a manifest, and likewise for the other options in `EXTRAS`."""

    def __init__(self, programs: Path, server: Server):
        self.programs = programs
        self.server = server
        self.scratch = server.scratch.name
        self.container = f"{server.address}/devstoreaccount1/export"

    def command(self, tool: str, folder: Path) -> tuple[list[str], dict[str, str]]:
        """The command, and what it needs in its environment."""
        name, extras = name_of(tool), tool.partition(":")[0].split("+")[1:]
        requests = tool.partition(":")[2]
        if extras and name != "ours" or not all(extra in EXTRAS for extra in extras):
            sys.exit(f"unknown tool '{tool}'")
        build = {
            "bare": self.bare,
            "again": self.bare,
            "ours": self.ours,
            "rclone": self.rclone,
            "azcopy": self.azcopy,
            "s5cmd": self.s5cmd,
            "python": self.python,
        }.get(name)
        other_store = {"azcopy": "s3", "python": "s3", "s5cmd": "azure"}.get(name)
        if not build or self.server.store == other_store:
            sys.exit(f"'{name}' is not a tool for {self.server.store}")
        command, environment = build(folder, requests)
        for extra in extras:
            command += EXTRAS[extra]
        if self.server.store == "s3":
            environment |= KEYS | {"AWS_ENDPOINT_URL": self.server.address}
        # Every tool but ours trusts the certificates in this file; ours has an option.
        if self.server.authority and name == "ours":
            command += ["--root-certificate", str(self.server.authority)]
        elif self.server.authority:
            environment |= {name: str(self.server.authority) for name in ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE")}
        return command, environment

    def destination(self) -> str:
        return "s3://export" if self.server.store == "s3" else f"{self.container}?{SAS}"

    def bare(self, folder: Path, requests: str) -> tuple[list[str], dict[str, str]]:
        return [str(self.programs / "bare-loop"), str(folder), self.destination(), requests or "32"], {}

    def ours(self, folder: Path, requests: str) -> tuple[list[str], dict[str, str]]:
        command = [str(self.programs / "export"), "--source", str(folder), "--destination", self.destination()]
        command += ["--development", "--quiet"]
        return command + (["--concurrency", requests] if requests else []), {}

    def rclone(self, folder: Path, requests: str) -> tuple[list[str], dict[str, str]]:
        backend = {"s3": "s3", "azure": "azureblob"}[self.server.store]
        command = ["rclone", "copy", str(folder), "peer:export/rclone", "--checkers", "8"]
        command += ["--transfers", requests or "32", f"--{backend}-upload-concurrency", "16"]
        environment = {"RCLONE_CONFIG": os.devnull, "RCLONE_CONFIG_PEER_TYPE": backend}
        if backend == "azureblob":
            return command, environment | {"RCLONE_CONFIG_PEER_SAS_URL": f"{self.container}?{SAS}"}
        environment |= {"RCLONE_CONFIG_PEER_PROVIDER": "Other", "RCLONE_CONFIG_PEER_ENV_AUTH": "true"}
        environment |= {"RCLONE_CONFIG_PEER_ENDPOINT": self.server.address, "RCLONE_CONFIG_PEER_REGION": "us-east-1"}
        return command + ["--s3-no-check-bucket"], environment

    def azcopy(self, folder: Path, requests: str) -> tuple[list[str], dict[str, str]]:
        to = f"{self.container}/azcopy?{SAS}"
        command = [str(self.programs / "azcopy"), "copy", f"{folder}/*", to, "--recursive", "--from-to", "LocalBlob"]
        command += ["--check-length=false", "--log-level", "NONE", "--output-level", "quiet"]
        environment = {"AZCOPY_LOG_LOCATION": self.scratch, "AZCOPY_JOB_PLAN_LOCATION": self.scratch}
        environment |= {"AZCOPY_CONCURRENCY_VALUE": requests} if requests else {}
        return command, environment | {"AZCOPY_DISABLE_SYSLOG": "true", "HOME": self.scratch}

    def s5cmd(self, folder: Path, requests: str) -> tuple[list[str], dict[str, str]]:
        command = [str(self.programs / "s5cmd"), "--endpoint-url", self.server.address, "--log", "error"]
        command += ["--numworkers", requests] if requests else []
        command += ["cp", "--concurrency", "16", "--part-size", "8", f"{folder}/", "s3://export/s5cmd/"]
        return command, {"HOME": self.scratch}

    def python(self, folder: Path, requests: str) -> tuple[list[str], dict[str, str]]:
        script = Path(__file__).with_name("upload.py")
        url = f"{self.container}?{SAS}"
        return [str(self.programs / "venv/bin/python"), str(script), str(folder), url, requests or "16"], {}
