"""Run as a program in place of an agent of a local Ray's raylet, see ray_helpers.py: it only lives as long as that.

A raylet ends when one of its agents does. It imports nothing of distcalib or of Ray, so as to be there in 20 ms."""

import os
import signal
import time

_POLL_SECONDS = 0.5

if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the driver answers Ctrl-C
    # What Ray tells its agents: had the raylet ended by now, the parent would be another process already.
    raylet = int(os.environ.get("RAY_RAYLET_PID") or os.getppid())
    while os.getppid() == raylet:
        time.sleep(_POLL_SECONDS)
