"""The command line: `distcalib calibrate|evaluate|inspect`.

main() alone prints errors: one sentence on stderr, without a traceback unless --verbose asks for it.
"""

from distcalib.cli.main import main

__all__ = ["main"]
