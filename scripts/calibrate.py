"""`distcalib calibrate` on the cluster that this machine belongs to: what `ray submit` and `ray job submit` run.

    ray submit cluster/onprem.yaml scripts/calibrate.py -- -m NET.prototxt -w NET.caffemodel -l 0.01

The arguments are those of `distcalib calibrate`; the exit code is its own. Ray copies this file alone to the head node,
so it needs nothing beside it but distcalib, which the cluster files install.
"""

import os
import sys
from collections.abc import Sequence

from distcalib.cli import main


def calibrate(argv: Sequence[str]) -> int:
    """Run the command on the running cluster; RAY_ADDRESS, which `ray job submit` sets, and --address win."""
    os.environ.setdefault("RAY_ADDRESS", "auto")
    return main(["calibrate", *argv])


if __name__ == "__main__":
    sys.exit(calibrate(sys.argv[1:]))
