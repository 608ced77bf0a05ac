"""`python -m distcalib`."""

import sys

from distcalib.cli import main

sys.exit(main())
