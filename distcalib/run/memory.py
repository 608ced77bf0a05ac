"""What an actor needs of memory, before it is started.

Measured (scripts/bench_memory.py; actors of a run by their VmHWM): an actor with a net of next to no weights takes
0.21 GB, most of it Ray's and OpenVINO's code. Compiling a net in FP32 takes 3.9 times its weights for a moment, one
part of which is the object store's, shared by all actors of the node; running it, some two of the largest blobs, for
OpenVINO lets the others share their memory. What is estimated is 1.0 to 1.6 times the peak with a single program, since
an actor holds those of some candidates at a time.
"""

from collections.abc import Iterable

BASE_BYTES = 256 * 2**20
_COMPILING, _RUNNING = 4, 3


def actor_bytes(weight_bytes: int, blob_bytes: Iterable[int]) -> int:
    """The estimate for a net with FP32 weights of so many bytes, and blobs of so many each, a batch."""
    return BASE_BYTES + _COMPILING * weight_bytes + _RUNNING * max(blob_bytes, default=0)
