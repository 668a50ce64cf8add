"""The data sets on the disk."""

import shutil
import subprocess
import sys
from pathlib import Path

MIB = 1 << 20


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
