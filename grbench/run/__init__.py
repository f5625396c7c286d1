"""Running a suite: the plan, the shared stores, the memory forecast, and one process a cell."""
