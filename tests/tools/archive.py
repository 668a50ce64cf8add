"""Copies pydicom's test data into a folder, as the archive that the tests export: archive.py FOLDER

Copies every file in the `data` folder of the wheel, including files that are not DICOM files, which an export ignores.
Fails unless there is the expected number of DICOM Part 10 files.
"""

import shutil
import sys
from pathlib import Path

import pydicom.data

DICOM_FILES = 188


def is_dicom(path: Path) -> bool:
    """Whether the file has `DICM` at byte 128 (PS3.10 7.1)."""
    with path.open("rb") as file:
        return file.read(132)[128:] == b"DICM"


folder = Path(sys.argv[1])
shutil.rmtree(folder, ignore_errors=True)
data = Path(pydicom.data.__file__).parent
shutil.copytree(data, folder, ignore=shutil.ignore_patterns("*.py", "__pycache__"))
found = sum(is_dicom(path) for path in folder.rglob("*") if path.is_file())
print(f"{folder}: {found} DICOM files")
if found != DICOM_FILES:
    sys.exit(f"{DICOM_FILES} were expected")
