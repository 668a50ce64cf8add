"""Reads the identifiers of an archive with pydicom: identities.py FOLDER

Prints a JSON array of all DICOM files, in path order (names compared as bytes):
[path, [study, series, SOP instance] or null, the patient's name or "", whether it is a DICOMDIR].
"""

import json
import os
import sys
import warnings
from pathlib import Path

import pydicom

UIDS = ["StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID"]


DIRECTORY_STORAGE = "1.2.840.10008.1.3.10"


def is_part10(path: Path) -> bool:
    """Whether the file has `DICM` at byte 128 (PS3.10 7.1)."""
    with path.open("rb") as file:
        return file.read(132)[128:] == b"DICM"


def may_be_data_set(path: Path) -> bool:
    """Whether the file starts with an element of group 0002 or 0008, without a preamble."""
    with path.open("rb") as file:
        return file.read(2) in (b"\x02\x00", b"\x08\x00", b"\x00\x08")


def describe(path: Path) -> tuple[list[str] | None, str, bool]:
    """The three UIDs without their padding (PS3.5 9.1), or none, the name, and whether it is a DICOMDIR."""
    try:
        data_set = pydicom.dcmread(path, force=True, stop_before_pixels=True)
        uids = [str(data_set.get(name) or "").strip(" \0") for name in UIDS]
        name = str(data_set.get("PatientName") or "")
        is_directory = data_set.file_meta.get("MediaStorageSOPClassUID") == DIRECTORY_STORAGE
    except Exception:  # whatever pydicom trips over
        return None, "", False
    return (uids if all(uids) else None), name, is_directory


warnings.simplefilter("ignore")
root = Path(sys.argv[1])
files = []
for path in root.rglob("*"):
    if path.is_file() and (is_part10(path) or may_be_data_set(path) and describe(path)[0]):
        files.append(path)
files.sort(key=lambda path: [os.fsencode(part) for part in path.relative_to(root).parts])
json.dump([[str(path.relative_to(root)), *describe(path)] for path in files], sys.stdout)
