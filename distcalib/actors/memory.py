"""What an actor needs of memory, before it is started.

Measured (scripts/bench/bench_memory.py; actors of a run by their VmHWM): an actor with a net of next to no weights
takes 0.21 GB, most of it Ray's and OpenVINO's code. Compiling a net in FP32 takes 3.9 times its weights for a moment,
one part of which is the object store's, shared by all actors of the node; running it, some two of the largest blobs,
for OpenVINO lets the others share their memory. What is estimated is 1.0 to 1.6 times the peak with a single program,
since an actor holds those of some candidates at a time.
"""

from collections.abc import Iterable, Mapping
from math import prod

from distcalib.actors.machine import memory
from distcalib.caffe.graph import Blob
from distcalib.errors import UnsupportedError

BASE_BYTES = 256 * 2**20
_COMPILING, _RUNNING = 4, 3


def refuse_large_blobs(
    where: str, data: Mapping[str, tuple[int, ...]], shapes: Mapping[Blob, tuple[int, ...]], n_bytes: int | None = None
) -> None:
    """Raise UnsupportedError for a blob, of the data layers or another, that alone is more than the `n_bytes` of memory
    that there are (None: on this machine); no smaller number of actors helps there."""
    most = memory()[0] if n_bytes is None else n_bytes
    for name, shape in (*data.items(), *((str(blob), shape) for blob, shape in shapes.items())):
        size = 4 * prod(shape)
        if size > most:
            sizes = " x ".join(map(str, shape))
            raise UnsupportedError(
                f"{where}: blob '{name}' of {sizes} takes {size / 2**30:,.0f} GB, and this machine has "
                f"{most / 2**30:,.0f} GB of memory; lower batch_size or the size of the images"
            )


def actor_bytes(weight_bytes: int, blob_bytes: Iterable[int]) -> int:
    """The estimate for a net with FP32 weights of so many bytes, and blobs of so many each, a batch."""
    return BASE_BYTES + _COMPILING * weight_bytes + _RUNNING * max(blob_bytes, default=0)
