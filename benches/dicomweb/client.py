"""Retrieves studies with dicomweb-client (PyPI): client.py ROOT LEVEL THREADS, with a JSON list of UIDs on standard input."""

import json
import sys
from concurrent.futures import ThreadPoolExecutor

from dicomweb_client.api import DICOMwebClient

root, level, threads = sys.argv[1:]
client = DICOMwebClient(url=root)
stored = (("application/dicom", "*"),)


def retrieve(uids: list[str]) -> int:
    if level == "instances":
        client.retrieve_instance(*uids, media_types=stored)
        return 1
    return sum(1 for _ in client.iter_series(*uids, media_types=stored))


with ThreadPoolExecutor(int(threads)) as pool:
    print(sum(pool.map(retrieve, json.load(sys.stdin))))
