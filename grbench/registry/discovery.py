"""Finding plug-ins: the registry of what the entry points of the group `grbench` register."""

from __future__ import annotations

import pkgutil
import re
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from importlib import metadata
from typing import TYPE_CHECKING, Any, cast

import pluggy

from grbench.errors import PluginError, cut
from grbench.hookspecs import GROUP, KINDS, HookSpecs, singular
from grbench.registry.arguments import Factory, resolve
from grbench.registry.component import Component
from grbench.registry.options import bound_values, file_contents, options_model, suggestion

if TYPE_CHECKING:
    from pathlib import Path

    import click

    from grbench.registry.signature_cache import SignatureCache


class BrokenPluginError(PluginError):
    """The plug-in is registered but cannot be imported. Only the cells that use it fail."""


@dataclass(frozen=True)
class Plugin:
    """A registered factory, with the distribution and version that registered it."""

    kind: str
    name: str
    factory: Factory
    distribution: str
    version: str


@dataclass(frozen=True)
class BrokenPlugin:
    """A plug-in that could not be imported. kind `entry point`: a whole package, none of whose plug-ins is registered;
    kind `commands`: a package whose command hook raised."""

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
    """All plug-ins by kind and name. A factory is imported when it is first used."""

    def __init__(self) -> None:
        self._signatures: SignatureCache | None = None
        self._registered: dict[tuple[str, str], _Registration] = {}
        self._imported: dict[tuple[str, str], Plugin | BrokenPlugin] = {}
        self._entry_points: list[_EntryPoint] = []
        self._broken: list[BrokenPlugin] = []

    @classmethod
    def load(cls, signature_cache: Path | None = None) -> Registry:
        """The registry of all installed packages. Raises PluginError where a name is registered twice.

        signature_cache: a folder with the signatures of factories. For a factory with a cached signature, `get` and
        `plugins` return a CachedFactory and do not import it; `save_signatures` adds the imported ones to the cache.
        `build` always imports the factory.
        """
        registry = cls()
        if signature_cache is not None:
            from grbench.registry.signature_cache import SignatureCache

            registry._signatures = SignatureCache(signature_cache)
        for entry in sorted(metadata.entry_points(group=GROUP), key=lambda entry: (_origin(entry), entry.name)):
            registry.add(entry.name, *_origin(entry), entry.load)
        return registry

    def add(self, name: str, distribution: str, version: str, load: Callable[[], object]) -> None:
        """Calls the registration hooks of an entry point's object, which `load()` returns.

        Where `load` or a hook raises, none of its plug-ins is registered and it is listed as broken. Raises PluginError
        where a name is already registered.
        """
        # One plug-in manager per entry point, because `register` cannot learn from pluggy whose hook called it.
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
        except Exception as error:  # noqa: BLE001 - a plug-in may raise anything; the reason is recorded
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
        """The names registered for a kind, sorted; does not import them."""
        return sorted(name for registered, name in self._registered if registered == kind)

    def get(self, kind: str, name: str, *, imported: bool = False) -> Plugin:
        """The plug-in of this kind and name. Raises PluginError for an unknown name, BrokenPluginError where it cannot
        be imported.

        imported: import the factory also where its signature is cached.
        """
        found = self._find(kind, name, imported=imported)
        if isinstance(found, BrokenPlugin):
            raise BrokenPluginError(
                f"{singular(kind)} {name!r} of {found.distribution} {found.version} is broken: {found.reason}"
            )
        return found

    def plugins(self, kind: str | None = None) -> list[Plugin]:
        """All plug-ins of one kind, or of all kinds (None), except those that cannot be imported."""
        found = (self._find(*key) for key in self._keys(kind))
        return [plugin for plugin in found if isinstance(plugin, Plugin)]

    @property
    def broken_packages(self) -> list[BrokenPlugin]:
        """The entry points that cannot be imported or whose hooks raise; no plug-in is imported."""
        return list(self._broken)

    @property
    def broken(self) -> list[BrokenPlugin]:
        """All entry points and plug-ins that cannot be imported. Imports those without a cached signature."""
        found = (self._find(*key) for key in self._keys(None))
        return self._broken + [plugin for plugin in found if isinstance(plugin, BrokenPlugin)]

    def build(self, kind: str, component: Component | str, *runtime_objects: object, where: str | None = None) -> Any:
        """Calls a plug-in's factory. component: its name and options, or its name only; runtime_objects: the arguments
        that factories of this kind take before their options.

        where: the component's place in the suite, for messages (`suites/x.yaml: methods.baseline.encoder`); by default
        kind and name. Raises PluginError for an unknown or broken plug-in, SuiteError for an invalid option.
        """
        part = Component(component) if isinstance(component, str) else component
        factory = self.get(kind, part.name, imported=True).factory
        bound = bound_values(factory, part.options, where or f"{singular(kind)} {part.name}")
        return factory(*runtime_objects, **bound)

    def file_contents(self, kind: str, component: Component, where: str) -> dict[str, Any]:
        """The component's options that name files or folders, by content; see `options.file_contents`."""
        return file_contents(self.get(kind, component.name).factory, component.options, where)

    def origin(self, kind: str, name: str) -> tuple[str, str]:
        """(distribution, version) that registered the plug-in; does not import it."""
        self._check_known(kind, name)
        registration = self._registered[kind, name]
        return registration.distribution, registration.version

    def add_commands(self, cli: click.Group) -> None:
        """Calls every package's command hook; a package whose hook raises is listed as broken."""
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
        message = f"unknown {singular(kind)} {cut(name)!r}; {suggestion(name, self.names(kind))}"
        if self._registered and not message.endswith("?"):  # no installed one has a name like it
            message += f"; one of another package has to be installed where this Python is ({sys.prefix})"
        if not self._registered and not self._broken:
            message += ": no package with plug-ins is installed, not even grbench; grbench doctor says more"
        for broken in self._broken:
            message += f" (or it belongs to {broken.distribution} {broken.version}, which is broken: {broken.reason})"
        raise PluginError(message)

    def save_signatures(self) -> None:
        """Writes the signatures of imported factories to the signature cache, if there is one."""
        if self._signatures is not None:
            self._signatures.save()

    def _find(self, kind: str, name: str, *, imported: bool = False) -> Plugin | BrokenPlugin:
        self._check_known(kind, name)
        key, registration, signatures = (kind, name), self._registered[kind, name], self._signatures
        origin, target = (registration.distribution, registration.version), registration.target
        if key in self._imported:
            return self._imported[key]
        if signatures is not None and not imported and (cached := signatures.get(target)) is not None:
            return Plugin(kind, name, cached, *origin)
        try:
            factory = _import(target)
        except Exception as error:  # noqa: BLE001 - as in `add`
            self._imported[key] = BrokenPlugin(kind, name, *origin, _reason(error))
        else:
            self._imported[key] = Plugin(kind, name, factory, *origin)
            if signatures is not None:
                signatures.add(target, factory)
        return self._imported[key]


def interface_class(factory: Factory) -> type:
    """The class of the objects that a factory makes: the factory itself, or the return annotation of a function.

    Raises PluginError where a function has no such annotation.
    """
    if isinstance(factory, type):
        return factory
    annotations = {key: value for key, value in getattr(factory, "__annotations__", {}).items() if key == "return"}
    returned = resolve(factory, annotations).get("return")
    if not isinstance(returned, type):
        raise PluginError(f"{getattr(factory, '__qualname__', factory)}: annotate the class that it returns")
    return returned


def missing_interfaces(needs: Iterable[type], factory: Factory) -> dict[type, tuple[str, ...]]:
    """{interface of `needs` that the factory's objects do not implement: the missing methods}."""
    implementation = interface_class(factory)
    lacking = {
        interface: tuple(
            name for name in interface_methods(interface) if not callable(getattr(implementation, name, None))
        )
        for interface in needs
    }
    return {interface: methods for interface, methods in lacking.items() if methods}


def interface_methods(interface: type) -> tuple[str, ...]:
    """The public methods of an interface (a typing.Protocol), those of its bases included, in order of definition."""
    bases = [base for base in reversed(interface.__mro__) if base.__module__ not in ("builtins", "typing")]
    members = {name: value for base in bases for name, value in vars(base).items()}
    return tuple(name for name, value in members.items() if callable(value) and not name.startswith("_"))


def _check_registration(kind: str, name: str, factory: Factory | str) -> None:
    if not isinstance(name, str) or not re.fullmatch(r"[\w-]+", name):
        raise PluginError(f"{kind}: {name!r} is not a valid name; use letters, digits, _ and -")
    if isinstance(factory, str) and not re.fullmatch(r"[\w.]+:[\w.]+", factory):
        raise PluginError(f"{kind} {name!r}: {factory!r} should be package.module:attribute")
    if not isinstance(factory, str) and not callable(factory):
        raise PluginError(f"{kind} {name!r}: {factory!r} is not callable")


def _import(target: Factory | str) -> Factory:
    factory = pkgutil.resolve_name(target) if isinstance(target, str) else target
    if not callable(factory):
        raise PluginError(f"{target} is not callable")
    options_model(factory)  # raises PluginError where the signature cannot declare options
    return cast(Factory, factory)


def _origin(entry: metadata.EntryPoint) -> tuple[str, str]:
    assert entry.dist is not None, "entry points found by metadata.entry_points have their distribution"
    return entry.dist.name, entry.dist.version


def _reason(error: Exception) -> str:
    return str(error) if isinstance(error, PluginError) else f"{type(error).__name__}: {error}"
