"""The back-ends that `grbench run --backend` offers. Each is imported when it is asked for."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module

from grbench.errors import RunError
from grbench.run.backends.backend import Site, SiteRequest
from grbench.run.backends.child_process import ForkServer

BACKENDS = {
    "local": "grbench.run.backends.local:LocalSite",
    "ray": "grbench.run.backends.ray_cluster:ray_site",
    "slurm": "grbench.run.backends.slurm_cluster:slurm_site",
}
"""{name: module:what opens its site}"""

PACKAGES = {"ray": "ray", "slurm": "submitit"}
"""{name: the package that its extra installs}"""


def refuse_options(request: SiteRequest) -> None:
    """Raises RunError where the request has an option that its back-end has no use for, or names none there is."""
    if request.name not in BACKENDS:
        raise RunError(f"--backend {request.name}: there is none of that name; choose one of {', '.join(BACKENDS)}")
    asked = f", and --backend is {request.name}; give --backend {{}}, or leave the option out"
    if request.address is not None and request.name != "ray":
        raise RunError(f"--address {request.address}: is of a Ray cluster" + asked.format("ray"))
    if request.options and request.name != "slurm":
        raise RunError(f"--scheduler {request.options[0]}: is an option of Slurm's sbatch" + asked.format("slurm"))
    if request.cpus is not None and request.name == "local":
        raise RunError(
            f"--cpus {request.cpus}: is of cells on a cluster; on this machine OMP_NUM_THREADS says how many threads "
            "each cell has"
        )


def open_site(request: SiteRequest, server: ForkServer, *, note: Callable[[str], None]) -> Site:
    """The site, reached. server: of the run, which names the modules that cells need. Raises RunError where it cannot
    be reached, or its extra is missing."""
    package = PACKAGES.get(request.name)
    try:
        if package is not None:
            import_module(package)
    except ImportError as error:
        raise RunError(
            f"--backend {request.name}: needs {package}, which cannot be imported ({error}); "
            f"pip install 'grbench[{request.name}]'"
        ) from error
    module, _, attribute = BACKENDS[request.name].partition(":")
    site: Site = getattr(import_module(module), attribute)(request, server, note=note)
    return site
