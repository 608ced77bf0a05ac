"""Data layers: from a prototxt's data layer to float32 batches, an iteration at a time.

lmdb, h5py, cramjam and cv2 are imported here and nowhere else."""

from distcalib.data.absent import ABSENT, absent_reason, add_absent
from distcalib.data.arrays import load_arrays
from distcalib.data.datum import Pixels
from distcalib.data.giving import array_shapes, feed, makes_data
from distcalib.data.identity import data_identity
from distcalib.data.image_cache import KeepingSource, MemoryBudget
from distcalib.data.left_out import FLAG, Bad, LeftOut, SkippableError, advising
from distcalib.data.missing import find_missing
from distcalib.data.objects import look_at_objects
from distcalib.data.opening import DATA_TYPES, REFUSED_DATA, open_source, reads
from distcalib.data.sampling import is_shuffled, random_parts
from distcalib.data.shipped import Chunk, Shipped, files_of
from distcalib.data.shipping import UNSHIPPABLE, Shipment
from distcalib.data.source import VARIES, FloatArray, Index, NamingSource, PickingSource, Source
from distcalib.data.thumbnails import thumbnail
from distcalib.data.transform import mean_of
from distcalib.data.watching import Watched, watch

__all__ = [
    "ABSENT",
    "DATA_TYPES",
    "FLAG",
    "REFUSED_DATA",
    "UNSHIPPABLE",
    "VARIES",
    "Bad",
    "FloatArray",
    "Chunk",
    "PickingSource",
    "Index",
    "KeepingSource",
    "LeftOut",
    "Pixels",
    "MemoryBudget",
    "NamingSource",
    "Shipment",
    "Shipped",
    "SkippableError",
    "Source",
    "Watched",
    "absent_reason",
    "add_absent",
    "advising",
    "array_shapes",
    "data_identity",
    "feed",
    "files_of",
    "mean_of",
    "find_missing",
    "is_shuffled",
    "load_arrays",
    "look_at_objects",
    "makes_data",
    "open_source",
    "random_parts",
    "reads",
    "thumbnail",
    "watch",
]
