"""Finding plug-ins: the registry of everything that entry points of the group `grbench` register."""

from __future__ import annotations

import pkgutil
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from importlib import metadata
from typing import TYPE_CHECKING, Any, cast

import pluggy

from grbench.errors import PluginError
from grbench.hookspecs import GROUP, KINDS, HookSpecs, singular
from grbench.registry.component import Component
from grbench.registry.options import Factory, bound_values, options_model, resolve, suggestion

if TYPE_CHECKING:
    from pathlib import Path

    import click

    from grbench.registry.kept_signatures import KeptSignatures


class BrokenPluginError(PluginError):
    """The plug-in is registered but cannot be used: only the cells that name it fail."""


@dataclass(frozen=True)
class Plugin:
    """A factory under its name, and who brought it."""

    kind: str
    name: str
    factory: Factory
    distribution: str
    version: str


@dataclass(frozen=True)
class BrokenPlugin:
    """What could not be imported, and why. kind `entry point`: a whole package, of which nothing is registered."""

    kind: str
    name: str
    distribution: str
    version: str
    reason: str


@dataclass(frozen=True)
class _Registration:
    target: Factory | str
    distribution: str
    version: str


@dataclass(frozen=True)
class _EntryPoint:
    name: str
    distribution: str
    version: str
    manager: pluggy.PluginManager


class Registry:
    """Every plug-in by kind and name. A factory is imported when it is first asked for, and not before."""

    def __init__(self) -> None:
        self._kept: KeptSignatures | None = None
        self._registered: dict[tuple[str, str], _Registration] = {}
        self._imported: dict[tuple[str, str], Plugin | BrokenPlugin] = {}
        self._entry_points: list[_EntryPoint] = []
        self._broken: list[BrokenPlugin] = []

    @classmethod
    def load(cls, keep_in: Path | None = None) -> Registry:
        """Everything that is installed. Raises PluginError where a name is registered twice.

        keep_in: a folder for signatures; a factory of `get` and `plugins` that is kept there is not imported, and one
        that is imported is kept by `keep`. What `build` calls is always the real one.
        """
        registry = cls()
        if keep_in is not None:
            from grbench.registry.kept_signatures import KeptSignatures

            registry._kept = KeptSignatures(keep_in)
        for entry in sorted(metadata.entry_points(group=GROUP), key=lambda entry: (_origin(entry), entry.name)):
            registry.add(entry.name, *_origin(entry), entry.load)
        return registry

    def add(self, name: str, distribution: str, version: str, load: Callable[[], object]) -> None:
        """Registers what the hooks of the object that `load()` gives name. Where it or a hook raises, nothing of it is
        registered and it is listed as broken. Raises PluginError where a plug-in's name is taken."""
        # One manager an entry point, because pluggy does not tell `register` whose hook is calling.
        manager = pluggy.PluginManager(GROUP)
        manager.add_hookspecs(HookSpecs)
        found: list[tuple[tuple[str, str], _Registration]] = []

        def collect(kind: str, name: str, factory: Factory | str) -> None:
            _check_registration(kind, name, factory)
            found.append(((kind, name), _Registration(factory, distribution, version)))

        try:
            manager.register(load(), name)
            for kind in KINDS:
                getattr(manager.hook, f"register_{kind}")(register=partial(collect, kind))
        except Exception as error:  # noqa: BLE001 - a stranger's module may raise anything; the reason is kept
            self._broken.append(BrokenPlugin("entry point", name, distribution, version, _reason(error)))
            return
        for key, registration in found:
            if key in self._registered:
                taken = self._registered[key]
                raise PluginError(
                    f"{key[0]} {key[1]!r} is registered twice: by {taken.distribution} {taken.version} and by "
                    f"{distribution} {version}; uninstall one of them"
                )
            self._registered[key] = registration
        self._entry_points.append(_EntryPoint(name, distribution, version, manager))

    def names(self, kind: str) -> list[str]:
        """The names registered for a kind, sorted; imports nothing."""
        return sorted(name for registered, name in self._registered if registered == kind)

    def get(self, kind: str, name: str, *, imported: bool = False) -> Plugin:
        """Raises PluginError for an unknown name, and BrokenPluginError where its module cannot be imported.

        imported: give the real factory, also where its signature is kept.
        """
        found = self._find(kind, name, imported=imported)
        if isinstance(found, BrokenPlugin):
            raise BrokenPluginError(
                f"{singular(kind)} {name!r} of {found.distribution} {found.version} is broken: {found.reason}"
            )
        return found

    def plugins(self, kind: str | None = None) -> list[Plugin]:
        """Every plug-in that can be imported, of one kind or of all."""
        found = (self._find(*key) for key in self._keys(kind))
        return [plugin for plugin in found if isinstance(plugin, Plugin)]

    @property
    def broken(self) -> list[BrokenPlugin]:
        """Every entry point and plug-in that cannot be imported; tries them all."""
        found = (self._find(*key) for key in self._keys(None))
        return self._broken + [plugin for plugin in found if isinstance(plugin, BrokenPlugin)]

    def build(self, kind: str, component: Component | str, *runtime_objects: object, where: str | None = None) -> Any:
        """Calls the factory with the run-time objects of its kind and the component's options; a name alone has none.

        where: names the options in messages, `suites/x.yaml: methods.baseline.encoder`; `encoder hstu` where not given.
        Raises PluginError for an unknown or broken plug-in, SuiteError for an option that it does not take.
        """
        part = Component(component) if isinstance(component, str) else component
        factory = self.get(kind, part.name, imported=True).factory
        bound = bound_values(factory, part.options, where or f"{singular(kind)} {part.name}")
        return factory(*runtime_objects, **bound)

    def origin(self, kind: str, name: str) -> tuple[str, str]:
        """(distribution, version) of who registered the name, whether it can be imported or not."""
        self._check_known(kind, name)
        registration = self._registered[kind, name]
        return registration.distribution, registration.version

    def add_commands(self, cli: click.Group) -> None:
        """Lets every package add its commands; one that raises is listed as broken."""
        for entry in self._entry_points:
            try:
                entry.manager.hook.register_commands(cli=cli)
            except Exception as error:  # noqa: BLE001 - as in `add`
                self._broken.append(
                    BrokenPlugin("commands", entry.name, entry.distribution, entry.version, _reason(error))
                )

    def _keys(self, kind: str | None) -> list[tuple[str, str]]:
        kinds = KINDS if kind is None else (kind,)
        return [(each, name) for each in kinds for name in self.names(each)]

    def _check_known(self, kind: str, name: str) -> None:
        if (kind, name) in self._registered:
            return
        message = f"unknown {singular(kind)} {name!r}; {suggestion(name, self.names(kind))}"
        for broken in self._broken:
            message += f" (or it belongs to {broken.distribution} {broken.version}, which is broken: {broken.reason})"
        raise PluginError(message)

    def keep(self) -> None:
        """Keeps the signatures of what was imported, for the next time."""
        if self._kept is not None:
            self._kept.save()

    def _find(self, kind: str, name: str, *, imported: bool = False) -> Plugin | BrokenPlugin:
        self._check_known(kind, name)
        key, registration, kept = (kind, name), self._registered[kind, name], self._kept
        origin, target = (registration.distribution, registration.version), registration.target
        if key in self._imported:
            return self._imported[key]
        if kept is not None and not imported and (signature := kept.get(target)) is not None:
            return Plugin(kind, name, signature, *origin)
        try:
            factory = _import(target)
        except Exception as error:  # noqa: BLE001 - as in `add`
            self._imported[key] = BrokenPlugin(kind, name, *origin, _reason(error))
        else:
            self._imported[key] = Plugin(kind, name, factory, *origin)
            if kept is not None:
                kept.add(target, factory)
        return self._imported[key]


def interface_class(factory: Factory) -> type:
    """The class whose methods the factory's product shows: itself, or a function's return annotation."""
    if isinstance(factory, type):
        return factory
    returned = {key: value for key, value in getattr(factory, "__annotations__", {}).items() if key == "return"}
    shown = resolve(factory, returned).get("return")
    if not isinstance(shown, type):
        raise PluginError(f"{getattr(factory, '__qualname__', factory)}: annotate the class that it returns")
    return shown


def missing_interfaces(needs: Iterable[type], factory: Factory) -> dict[type, tuple[str, ...]]:
    """{interface of `needs` that the factory's product does not show: those of its methods that it lacks}."""
    shown = interface_class(factory)
    lacking = {
        interface: tuple(name for name in interface_methods(interface) if not callable(getattr(shown, name, None)))
        for interface in needs
    }
    return {interface: methods for interface, methods in lacking.items() if methods}


def interface_methods(interface: type) -> tuple[str, ...]:
    """The public methods that a protocol asks for, its bases' included, in the order they are written."""
    bases = [base for base in reversed(interface.__mro__) if base.__module__ not in ("builtins", "typing")]
    members = {name: value for base in bases for name, value in vars(base).items()}
    return tuple(name for name, value in members.items() if callable(value) and not name.startswith("_"))


def _check_registration(kind: str, name: str, factory: Factory | str) -> None:
    if not isinstance(name, str) or not re.fullmatch(r"[\w-]+", name):
        raise PluginError(f"{kind}: {name!r} is no name; use letters, digits, _ and -")
    if isinstance(factory, str) and not re.fullmatch(r"[\w.]+:[\w.]+", factory):
        raise PluginError(f"{kind} {name!r}: {factory!r} should be package.module:attribute")
    if not isinstance(factory, str) and not callable(factory):
        raise PluginError(f"{kind} {name!r}: {factory!r} cannot be called")


def _import(target: Factory | str) -> Factory:
    factory = pkgutil.resolve_name(target) if isinstance(target, str) else target
    if not callable(factory):
        raise PluginError(f"{target} cannot be called")
    options_model(factory)  # a signature that cannot hold options is as broken as a module that is not there
    return cast(Factory, factory)


def _origin(entry: metadata.EntryPoint) -> tuple[str, str]:
    assert entry.dist is not None, "entry points found by metadata.entry_points carry their distribution"
    return entry.dist.name, entry.dist.version


def _reason(error: Exception) -> str:
    return str(error) if isinstance(error, PluginError) else f"{type(error).__name__}: {error}"
