"""Retrieves everything from one Orthanc in several ways, over several emulated networks, and prints a table of times.

Called by benches/dicomweb.sh, which documents the options.
"""

import argparse
import http.client
import io
import json
import random
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path
from statistics import median

sys.path.append(str(Path(__file__).parent.parent / "peers"))
from dataset import ROOT, instance  # noqa: E402

ORTHANC = "/usr/sbin/Orthanc"
PLUGIN = "/usr/share/orthanc/plugins/libOrthancDicomWeb.so"
ACCEPT = 'Accept: multipart/related; type="application/dicom"; transfer-syntax=*'

# Number of studies, series in all, instances of each series, and rows of each square image.
DATA = {"ct": (2, 4, 100, 512), "small": (4, 20, 100, 100), "tiny": (2, 4, 3, 100)}

WAYS = "ours,instances:4,instances:16,instances:32,instances:64,series:1,series:4,studies:1,studies:2"
WAYS += ",client-instances:16,client-series:4,archive"


class Servers:
    """Orthanc, a blob server that discards data, and networks in front of Orthanc, for the duration of a `with` block."""

    def __init__(self, nullblob: Path):
        self.nullblob = nullblob
        self.folder = Path(tempfile.mkdtemp())
        self.processes: list[subprocess.Popen] = []

    def __enter__(self) -> "Servers":
        return self

    def __exit__(self, *_: object) -> None:
        for process in self.processes:
            process.terminate()
            process.wait()
        shutil.rmtree(self.folder)

    def start_nullblob(self, *arguments: str) -> str:
        """Returns the address that nullblob prints."""
        process = subprocess.Popen([str(self.nullblob), *arguments], stdout=subprocess.PIPE, text=True)
        self.processes.append(process)
        return process.stdout.readline().strip() or sys.exit("nullblob did not start")

    def start_orthanc(self) -> str:
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        options = {
            "StorageDirectory": str(self.folder / "storage"),
            "IndexDirectory": str(self.folder / "storage"),
            "HttpPort": port,
            "RemoteAccessAllowed": False,
            "AuthenticationEnabled": False,
            "DicomServerEnabled": False,
            "SaveJobs": False,
            "Plugins": [PLUGIN],
            "DicomWeb": {"Enable": True, "Root": "/dicom-web/"},
        }
        configuration = self.folder / "orthanc.json"
        configuration.write_text(json.dumps(options))
        log = (self.folder / "log").open("w")
        self.processes.append(subprocess.Popen([ORTHANC, str(configuration)], stdout=log, stderr=log))
        for _ in range(600):
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/system").read()
                return f"127.0.0.1:{port}"
            except OSError:
                time.sleep(0.1)
        sys.exit("Orthanc did not start")


def fill(address: str, data: str) -> dict[str, list[list[str]]]:
    """Stores a data set. Returns the UIDs of its studies, series and instances."""
    studies, series, each, side = DATA[data]
    connection, pixels = http.client.HTTPConnection(address), random.Random(data)
    uids: dict[str, list[list[str]]] = {"studies": [], "series": [], "instances": []}
    for s in range(series):
        study = f"{ROOT}.{len(data)}.1.{s % studies}"
        if [study] not in uids["studies"]:
            uids["studies"].append([study])
        uids["series"].append([study, f"{ROOT}.{len(data)}.2.{s}"])
        for i in range(each):
            of = (*uids["series"][-1], f"{ROOT}.{len(data)}.3.{s}.{i}")
            uids["instances"].append(list(of))
            file = io.BytesIO()
            instance(of, side, pixels.randbytes(side * side * 2)).save_as(file, enforce_file_format=True)
            connection.request("POST", "/instances", file.getvalue())
            response = connection.getresponse()
            response.read()
            if response.status != 200:
                sys.exit(f"Orthanc returned {response.status}")
    return uids


def path_of(uids: list[str]) -> str:
    return "/".join(f"{level}/{uid}" for level, uid in zip(("studies", "series", "instances"), uids))


def curl(urls: list[str], parallel: int, *headers: str) -> None:
    with tempfile.NamedTemporaryFile("w") as config:
        config.write("".join(f'url = "{url}"\noutput = /dev/null\n' for url in urls))
        config.flush()
        command = ["curl", "--silent", "--show-error", "--fail", "--no-progress-meter", "--parallel"]
        command += ["--parallel-max", str(parallel), "--config", config.name]
        for header in headers:
            command += ["--header", header]
        subprocess.run(command, check=True, stderr=subprocess.DEVNULL)


def retrieve(options: argparse.Namespace, way: str, address: str, container: str, uids: dict) -> None:
    """Retrieves a data set in one way."""
    name, _, parallel = way.partition(":")
    root = f"http://{address}/dicom-web"
    if name == "ours":
        command = [str(options.programs / "export"), "--source", root, "--destination", container]
        command += ["--development", "--quiet"] + (["--concurrency", parallel] if parallel else [])
        for study in uids["studies"]:
            command += ["--identifier", study[0]]
        ended = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
        assert ended["results"]["exported"] == len(uids["instances"]), ended
    elif name in uids:
        curl([f"{root}/{path_of(of)}" for of in uids[name]], int(parallel or 1), ACCEPT)
    elif name in ("client-instances", "client-series"):
        level = name.removeprefix("client-")
        python = options.programs / "dicomweb-venv/bin/python"
        command = [str(python), str(Path(__file__).with_name("client.py")), root, level, parallel or "1"]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, input=json.dumps(uids[level]), text=True)
        assert int(done.stdout) == len(uids["instances"]), done.stdout
    elif name == "archive":
        found = []
        for study in uids["studies"]:
            lookup = urllib.request.Request(f"http://{address}/tools/lookup", data=study[0].encode())
            found += [one["ID"] for one in json.load(urllib.request.urlopen(lookup))]
        curl([f"http://{address}/studies/{study}/archive" for study in found], int(parallel or 1))
    else:
        sys.exit(f"unknown way '{way}'")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--programs", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--data", default="ct,small")
    parser.add_argument("--delays", default="0,10,50")
    parser.add_argument("--ways", default=WAYS)
    options = parser.parse_args()
    delays, ways = options.delays.split(","), options.ways.split(",")
    with Servers(options.programs / "nullblob") as servers:
        orthanc = servers.start_orthanc()
        blobs = servers.start_nullblob("127.0.0.1:0")
        container = f"http://{blobs}/devstoreaccount1/export?sv=2023-11-03&sp=w&sig=c2lnbmF0dXJl"
        networks = {delay: servers.start_nullblob("wan", "127.0.0.1:0", orthanc, f"delay={delay}") for delay in delays}
        for data in options.data.split(","):
            uids = fill(orthanc, data)
            print(f"\n{data}: {len(uids['instances'])} instances, {len(uids['series'])} series, "
                  f"{len(uids['studies'])} studies; seconds\n", flush=True)
            print("| way | " + " | ".join(f"{delay} ms" for delay in delays) + " |")
            print("| --- |" + " --- |" * len(delays), flush=True)
            for way in ways:
                row = []
                for delay in delays:
                    times = []
                    for _ in range(options.rounds):
                        start = time.perf_counter()
                        retrieve(options, way, networks[delay], container, uids)
                        times.append(time.perf_counter() - start)
                    row.append(f"{median(times):.2f}")
                print(f"| {way} | " + " | ".join(row) + " |", flush=True)


if __name__ == "__main__":
    main()
