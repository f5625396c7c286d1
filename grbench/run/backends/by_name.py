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
