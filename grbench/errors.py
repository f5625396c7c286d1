"""What can go wrong, said once. Each message names what is wrong, where, and what would be right."""


class GRBenchError(Exception):
    """The base of every error that grbench raises for its user; the command line prints it without a traceback."""


class SuiteError(GRBenchError):
    """The suite file or a command's arguments ask for something that cannot be."""


class PluginError(GRBenchError):
    """A plug-in is missing, broken, registered twice, or lacks an interface that another one calls."""


class DataError(GRBenchError):
    """A dataset is missing, incomplete, malformed, or does not fit the protocol."""


class RunError(GRBenchError):
    """A cell failed while it ran, or its results could not be kept."""
