"""The command line: `distcalib calibrate|evaluate|inspect`.

main() alone prints errors: one sentence on stderr, without a traceback unless --verbose asks for it.
"""

import gc
import resource
import sys
from collections.abc import Sequence

__all__ = ["command", "main"]

_LEAST_BYTES = 2**30
"""Of address space: with 0.6 GB OpenVINO and Ray cannot be imported on 2 cores, some by a segmentation fault."""


def command() -> int:
    """`main` of a process that ends then: Python need not look for garbage first, which takes it 0.13 s."""
    code = main()
    gc.freeze()
    return code


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit code: 0 done and met, 1 error, 2 tolerance not met, 130 Ctrl-C, 143
    SIGTERM, 129 SIGHUP."""
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    if limit != resource.RLIM_INFINITY and limit < _LEAST_BYTES:
        size = f"{limit / 2**30:.1f} GB of address space"
        return _told(f"a process may have {size} here (ulimit -v), too little to begin; ulimit -v unlimited")
    try:  # the imports are heavy, and Ctrl-C is allowed from the first moment
        from distcalib.cli.main import main as run
    except KeyboardInterrupt:
        return 130
    except (ImportError, OSError, MemoryError) as error:
        if "--verbose" in (sys.argv if argv is None else argv):
            raise
        said = " ".join(str(error).split()) or "memory ran out"
        return _told(f"what it needs cannot be loaded ({said}); install it again, or raise the limits of this process")
    return run(argv)


def _told(message: str) -> int:
    if sys.stderr is not None:  # None: closed by who started it
        print(f"distcalib: {message.encode('unicode_escape').decode()}", file=sys.stderr)
    return 1
