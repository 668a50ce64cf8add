"""What pydicom makes of an archive: identities.py FOLDER

Prints a JSON array, in path order (names in a folder compared as bytes), of every DICOM Part 10 file:
[path, [study, series, SOP instance] or null, the patient's name or ""].
"""

import json
import os
import sys
import warnings
from pathlib import Path

import pydicom

UIDS = ["StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID"]


def is_dicom(path: Path) -> bool:
    """Whether `DICM` stands at byte 128 (PS3.10 7.1)."""
    with path.open("rb") as file:
        return file.read(132)[128:] == b"DICM"


def describe(path: Path) -> tuple[list[str] | None, str]:
    """The three UIDs without their padding (PS3.5 9.1), or none, and the name."""
    try:
        data_set = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=[*UIDS, "PatientName"])
        uids = [str(data_set.get(name) or "").strip(" \0") for name in UIDS]
        name = str(data_set.get("PatientName") or "")
    except Exception:  # whatever pydicom trips over
        return None, ""
    return (uids if all(uids) else None), name


warnings.simplefilter("ignore")
root = Path(sys.argv[1])
files = [path for path in root.rglob("*") if path.is_file() and is_dicom(path)]
files.sort(key=lambda path: [os.fsencode(part) for part in path.relative_to(root).parts])
json.dump([[str(path.relative_to(root)), *describe(path)] for path in files], sys.stdout)
