"""Lays pydicom's test data out as the archive that the tests export: archive.py FOLDER

Every file of the wheel's `data` folder is copied, those that are no DICOM files too: an export passes them over.
Fails unless the expected number of DICOM Part 10 files is there.
"""

import shutil
import sys
from pathlib import Path

import pydicom.data

DICOM_FILES = 188


def is_dicom(path: Path) -> bool:
    """Whether `DICM` stands at byte 128 (PS3.10 7.1)."""
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
