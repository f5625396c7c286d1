"""`python -m grbench` is `grbench`."""

import sys

from grbench.cli import main

sys.exit(main())
