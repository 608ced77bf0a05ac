"""What was measured, on disk before anything depends on it: one SQLite file a folder of results, one writer.

It knows keys, numbers and bytes; what they mean is their owner's business."""

from distcalib.journal.locking import FolderLock
from distcalib.journal.store import FILE_NAME, Journal, Recorded, Run, read_runs

__all__ = ["FILE_NAME", "FolderLock", "Journal", "Recorded", "Run", "read_runs"]
