"""Creates a data set of valid DICOM Part 10 files (needs pydicom): dataset.py FOLDER KIND

small      20,000 instances of 20 kB in 100 series
small5000  5,000 instances of 20 kB in 25 series
ct         4,000 slices of 526 kB in 20 series
ct50       50 slices of 526 kB in one series
ct1000     1,000 slices of 526 kB in 5 series
ct5000     5,000 slices of 526 kB in 25 series
wsi        one multi-frame instance of 2 GiB
wsi512     one multi-frame instance of 512 MiB
twenty     20 instances of 20 kB in one series
tiny       300 instances of 20 kB in 100 series, to test the scripts

Pixels are random bytes from a fixed seed, so a data set is the same on every machine.
"""

import random
import struct
import sys
from pathlib import Path

from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, VLWholeSlideMicroscopyImageStorage

ROOT = "1.2.826.0.1.3680043.10.999"
# The tag and VR of Pixel Data in explicit VR little endian, before its length (PS3.5 7.1.2).
PIXEL_DATA = b"\xe0\x7f\x10\x00OW\x00\x00"


def instance(uids: tuple[str, str, str], side: int, pixels: bytes, frames: int = 1) -> Dataset:
    """A CT slice, or a whole-slide image if it has several frames."""
    study, series, sop = uids
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.SOPClassUID = CTImageStorage if frames == 1 else VLWholeSlideMicroscopyImageStorage
    dataset.SOPInstanceUID = sop
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = study, series
    dataset.PatientName, dataset.PatientID = "Test^Export", "P1"
    dataset.Modality = "CT" if frames == 1 else "SM"
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.Rows = dataset.Columns = side
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 16, 12, 11
    dataset.PixelRepresentation = 0
    if frames > 1:
        dataset.NumberOfFrames = frames
    dataset.PixelData = pixels
    return dataset


def save(dataset: Dataset, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    dataset.save_as(path, enforce_file_format=True)


def slices(folder: Path, of: int, studies: int, series: int, each: int, side: int) -> None:
    """Creates `each` slices in each of `series` series in `studies` studies."""
    generator = random.Random(of)
    for s in range(series):
        for i in range(each):
            uids = (f"{ROOT}.{of}.1.{s % studies}", f"{ROOT}.{of}.2.{s}", f"{ROOT}.{of}.3.{s}.{i}")
            pixels = generator.randbytes(side * side * 2)
            save(instance(uids, side, pixels), folder / f"s{s:03}" / f"i{i:04}.dcm")


def whole_slide(folder: Path, frames: int, side: int) -> None:
    """Creates one instance. Its pixels are written frame by frame, to bound memory."""
    path = folder / "slide.dcm"
    uids = (f"{ROOT}.7.1", f"{ROOT}.7.2", f"{ROOT}.7.3")
    save(instance(uids, side, b"\0\0", frames), path)
    head = path.read_bytes()
    head = head[: head.rindex(PIXEL_DATA) + len(PIXEL_DATA)]
    frame = random.Random(7).randbytes(side * side * 2)
    with path.open("wb") as file:
        file.write(head + struct.pack("<I", frames * len(frame)))
        for _ in range(frames):
            file.write(frame)


KINDS = {
    "small": lambda folder: slices(folder, of=4, studies=20, series=100, each=200, side=100),
    "small5000": lambda folder: slices(folder, of=8, studies=5, series=25, each=200, side=100),
    "ct": lambda folder: slices(folder, of=1, studies=5, series=20, each=200, side=512),
    "ct50": lambda folder: slices(folder, of=2, studies=1, series=1, each=50, side=512),
    "ct1000": lambda folder: slices(folder, of=6, studies=1, series=5, each=200, side=512),
    "ct5000": lambda folder: slices(folder, of=3, studies=5, series=25, each=200, side=512),
    "wsi": lambda folder: whole_slide(folder, frames=1024, side=1024),
    "wsi512": lambda folder: whole_slide(folder, frames=256, side=1024),
    "twenty": lambda folder: slices(folder, of=9, studies=1, series=1, each=20, side=100),
    "tiny": lambda folder: slices(folder, of=5, studies=20, series=100, each=3, side=100),
}

if __name__ == "__main__":
    KINDS[sys.argv[2]](Path(sys.argv[1]))
