"""The command line: `distcalib calibrate|evaluate|inspect`.

main() alone prints errors: one sentence on stderr, without a traceback unless --verbose asks for it.
"""

from collections.abc import Sequence

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit code: 0 done and met, 1 error, 2 tolerance not met, 130 Ctrl-C, 143
    SIGTERM, 129 SIGHUP."""
    try:  # the imports are heavy, and Ctrl-C is allowed from the first moment
        from distcalib.cli.main import main as run
    except KeyboardInterrupt:
        return 130
    return run(argv)
