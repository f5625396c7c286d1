"""Makes `python -m grbench` the command `grbench`."""

import sys

if __name__ == "__main__":
    if not sys.flags.safe_path:
        # `python -m` puts the caller's folder first on the path, where a csv.py would replace Python's own.
        del sys.path[0]
    from grbench.cli import main

    sys.exit(main())
