"""For all tests, and the processes they start: worlds this small are slower on many threads than on one."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # read when torch is first imported
