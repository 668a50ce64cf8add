"""A typical upload loop in Python: azure-storage-blob and threads.

upload.py FOLDER CONTAINER_URL?SAS [THREADS]
"""

import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from azure.storage.blob import ContainerClient

folder = Path(sys.argv[1])
threads = int(sys.argv[3]) if len(sys.argv) > 3 else 16
container = ContainerClient.from_container_url(
    sys.argv[2], max_single_put_size=16 << 20, max_block_size=8 << 20
)


def put(path: Path) -> int:
    length = path.stat().st_size
    name = f"python/{path.relative_to(folder).as_posix()}"
    with path.open("rb") as file:
        container.upload_blob(name, file, length=length, overwrite=True, max_concurrency=4)
    return length


files = [path for path in folder.rglob("*") if path.is_file()]
with ThreadPoolExecutor(threads) as pool:
    lengths = list(pool.map(put, files))
print(f"{len(lengths)} files, {sum(lengths)} bytes")
