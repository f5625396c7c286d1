"""`python -m grbench` is `grbench`."""

import sys

if __name__ == "__main__":
    if not sys.flags.safe_path:
        # `python -m` puts the caller's folder first: a csv.py or random.py there would stand for Python's own.
        del sys.path[0]
    from grbench.cli import main

    sys.exit(main())
