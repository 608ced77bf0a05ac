"""`python -m distcalib`."""

import sys

from distcalib.cli import command

sys.exit(command())
