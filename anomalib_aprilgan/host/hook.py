# Copyright (C) 2026 The anomalib-aprilgan developers
# SPDX-License-Identifier: Apache-2.0

"""Register the models that installed packages offer to anomalib.

anomalib reads no entry points. This module hooks the import of ``anomalib.models`` and, right after it, loads every
entry point of the group ``anomalib.models`` and registers the classes. Any package may use the group::

    [project.entry-points."anomalib.models"]
    mymodel = "my_package:MyModel"

A wheel of anomalib-aprilgan lays this file at the root of site-packages as ``_anomalib_aprilgan_hook``, beside a
``.pth`` file that calls :func:`install` at every interpreter start. So it uses the standard library only, and imports
next to nothing before anomalib itself is imported. ``ANOMALIB_MODEL_PLUGINS=0`` (or ``off``, ``false``, ``no``) in the
environment switches the hook off.

A package that is imported before anomalib is still half imported when the hook meets its entry point, and is passed
over. Such a package ends its ``__init__`` with :func:`register`, which also serves interpreters without the hook.
"""

import os
import sys
from _thread import get_ident  # threading itself is not loaded at interpreter start

# Typing costs more than the whole hook; checkers take this name for true.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from importlib.abc import Loader
    from importlib.machinery import ModuleSpec
    from importlib.metadata import EntryPoint
    from types import ModuleType

HOST_MODULE = "anomalib.models"
GROUP = "anomalib.models"
SWITCH = "ANOMALIB_MODEL_PLUGINS"


class PluginFinder:
    """Meta path finder that lets the import of ``anomalib.models`` end with its plugins."""

    plugin_group = GROUP  # tells finders of other copies of this module apart from foreign ones

    def __init__(self) -> None:
        self._searching: set[int] = set()

    def find_spec(
        self,
        fullname: str,
        path: "Sequence[str] | None" = None,
        target: "ModuleType | None" = None,
    ) -> "ModuleSpec | None":
        """Find ``anomalib.models`` as the other finders do, with a loader that loads the plugins too."""
        thread = get_ident()
        # Other hooks ask every finder as this one does: asked again by them, it must not ask back.
        if fullname != HOST_MODULE or thread in self._searching or _is_switched_off():
            return None
        self._searching.add(thread)
        try:
            spec = _find_spec(fullname, path, target)
        finally:
            self._searching.remove(thread)
        if spec is not None and spec.loader is not None and hasattr(spec.loader, "exec_module"):
            spec.loader = PluginLoader(spec.loader)  # type: ignore[assignment]
        return spec


class PluginLoader:
    """Stands in for the loader of ``anomalib.models`` until the module is executed.

    Args:
        loader: The loader that executes the module.
    """

    def __init__(self, loader: "Loader") -> None:
        self._loader = loader

    def __getattr__(self, name: str) -> object:
        """Answer like the real loader, for whoever inspects the spec."""
        return getattr(self._loader, name)

    def exec_module(self, module: "ModuleType") -> None:
        """Execute the module under its real loader, then load the plugins."""
        module.__loader__ = self._loader
        if module.__spec__ is not None:
            module.__spec__.loader = self._loader
        self._loader.exec_module(module)
        load_plugins()


def install() -> None:
    """Hook the import of ``anomalib.models``; where that has happened already, load the plugins now."""
    if _is_switched_off() or any(getattr(finder, "plugin_group", None) == GROUP for finder in sys.meta_path):
        return
    sys.meta_path.insert(0, PluginFinder())
    if HOST_MODULE in sys.modules:
        load_plugins()


def load_plugins() -> None:
    """Load and register the class of every entry point of the group; one that fails costs a warning only."""
    from importlib.metadata import entry_points

    try:
        plugins = tuple(entry_points(group=GROUP))
    except Exception as error:  # ruff: ignore[blind-except]  # any package's metadata may be broken
        _warn(f"The model plugins of anomalib cannot be listed: {type(error).__name__}: {error}")
        return
    for plugin in plugins:
        _load_plugin(plugin)


def register(cls: type, module: str) -> None:
    """Make a model class known to ``anomalib.models``; a second time changes nothing.

    Args:
        cls: The model class. A different class that holds its name keeps it, and a warning says so.
        module: The module from which users import the class. ``get_model`` refuses class paths of any other.

    Raises:
        TypeError: If ``cls`` is not a class.
    """
    if not isinstance(cls, type):
        msg = f"not a class: {cls!r}"
        raise TypeError(msg)
    # Unlike import_module, this hands out a module whose import waits, in another thread, for the one that calls us.
    __import__(HOST_MODULE)
    models = sys.modules[HOST_MODULE]
    holder = _holder_of_name(models, cls)
    if holder is not None:
        _warn(f"{module}.{cls.__name__} is not registered as a model of anomalib: its name belongs to {holder!r}")
        return
    setattr(models, cls.__name__, cls)
    # The defaults are for a host that has dropped the one or the other.
    names: list[str] = getattr(models, "__all__", [])
    allowed: set[str] = getattr(models, "ALLOWED_MODULES", set())
    if cls.__name__ not in names:
        names.append(cls.__name__)
    allowed.add(module)


def _load_plugin(plugin: "EntryPoint") -> None:
    # Importing a module that another thread is importing waits for it. One that waits for us in turn, or that this
    # very thread is importing, comes back unfinished: it registers itself in its last line.
    module = plugin.value.partition(":")[0].strip()
    try:
        register(plugin.load(), module)
    except (Exception, SystemExit) as error:  # ruff: ignore[blind-except]  # whatever a plugin does, anomalib goes on
        if not _is_being_imported(module):
            _warn(
                f"The model plugin {plugin.name!r} of anomalib ({plugin.value}) is not available: "
                f"{type(error).__name__}: {error}. {SWITCH}=0 in the environment switches plugins off.",
            )


def _is_being_imported(module: str) -> bool:
    """Whether the import of the module, or of a package around it, has begun and not ended."""
    parts = module.split(".")
    packages = (sys.modules.get(".".join(parts[:end])) for end in range(1, len(parts) + 1))
    return any(getattr(getattr(package, "__spec__", None), "_initializing", False) for package in packages)


def _holder_of_name(models: "ModuleType", cls: type) -> object:
    """Return the different object that goes by the name of the class, if any."""
    # get_model compares names without case. A class of the same origin is the same one, reloaded.
    name = cls.__name__
    rivals = [name, *(other for other in getattr(models, "__all__", []) if other.lower() == name.lower())]
    for rival in rivals:
        holder = getattr(models, rival, cls)
        origin = (getattr(holder, "__module__", None), getattr(holder, "__qualname__", None))
        if holder is not cls and origin != (cls.__module__, cls.__qualname__):
            return holder
    return None


def _find_spec(fullname: str, path: "Sequence[str] | None", target: "ModuleType | None") -> "ModuleSpec | None":
    for finder in tuple(sys.meta_path):
        spec = finder.find_spec(fullname, path, target) if hasattr(finder, "find_spec") else None
        if spec is not None:
            return spec
    return None


def _is_switched_off() -> bool:
    return os.environ.get(SWITCH, "").strip().lower() in {"0", "off", "false", "no"}


def _warn(message: str) -> None:
    import warnings

    warnings.warn(message, RuntimeWarning, stacklevel=3)
