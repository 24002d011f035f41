"""The components of each kind by name. A component's file registers it; our own files are found by themselves.

    @register_model("tiny")
    @dataclass(frozen=True, kw_only=True)
    class Tiny(ModelConfig):
        ...

A module of the user's registers components the same way. `--import MODULE`, the key `import` of a TOML file and
Python's own `import` load it.
"""

import hashlib
import importlib
import inspect
import pkgutil
import re
import sys
from collections.abc import Callable
from dataclasses import MISSING, fields, is_dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from fastcifar.config.components import AugmentOp, EvaluationConfig, ModelConfig, OptimizerConfig, ScheduleConfig
from fastcifar.errors import UserError, choose_one, reason, shown

Base = TypeVar("Base")
Component = TypeVar("Component", bound=type)
NAME = re.compile(r"[a-z][a-z0-9_]{0,39}")
MODULE = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*")


class Registry(Generic[Base]):
    """The components of one kind."""

    def __init__(self, section: str, noun: str, base: type[Base], package: str) -> None:
        """`section`: the field of `Config`. `package`: where our own components live, one module each."""
        self.section, self.noun, self.base, self.package = section, noun, base, package
        self._components: dict[str, type[Base]] = {}
        self._unlisted: set[str] = set()
        self._is_complete = False

    def register(self, name: str, *, listed: bool = True) -> Callable[[Component], Component]:
        """A class decorator; raises UserError for a bad or taken name and for a class that cannot be a component.

        Components that are not `listed` are for the program itself. Registering a class again under its name replaces
        it, as when a notebook's cell runs twice.
        """

        def add(component: Component) -> Component:
            self._check(name, component)
            if not listed:
                self._unlisted.add(name)
            self._components[name] = component  # type: ignore[assignment]  (checked to derive from `base`)
            return component

        return add

    def names(self) -> list[str]:
        """The names of the listed components."""
        self._load_own()
        return [name for name in self._components if name not in self._unlisted]

    def is_own(self, config: Base) -> bool:
        """Whether a component's instance is one of ours."""
        self._load_own()
        listed = (component for name, component in self._components.items() if name not in self._unlisted)
        return type(config) in listed and type(config).__module__.startswith(f"{self.package}.")

    def _load_own(self) -> None:
        """Imports the modules of our own components, once: they register themselves."""
        if not self._is_complete:
            for module in pkgutil.iter_modules(importlib.import_module(self.package).__path__):
                importlib.import_module(f"{self.package}.{module.name}")
            self._is_complete = True

    def __getitem__(self, name: Any) -> type[Base]:
        """The component called `name`; raises UserError if there is none."""
        self._load_own()
        if not isinstance(name, str) or name not in self._components:
            choices = choose_one(name, self.names())
            raise UserError(f"no {self.noun} is called {shown(name)}: {choices}; --import MODULE loads your own")
        return self._components[name]

    def name_of(self, config: Base) -> str:
        """The name of a component's instance; raises UserError if its class is not registered."""
        self._load_own()
        for name, component in self._components.items():
            if type(config) is component:
                return name
        kind = type(config).__name__
        raise UserError(f"{self.section} is a {kind}, which is not registered; put @register_{self.section} above it")

    def _check(self, name: str, component: type) -> None:
        where = f"the {self.noun} {shown(name)}"
        if not isinstance(name, str) or not NAME.fullmatch(name):
            raise UserError(f"{where} needs another name: at most 40 small letters, digits and underscores")
        if not (is_dataclass(component) and issubclass(component, self.base)):
            raise UserError(f"{where} must be a dataclass derived from {self.base.__name__}")
        if inspect.isabstract(component):
            missing = ", ".join(sorted(getattr(component, "__abstractmethods__", ())))
            raise UserError(f"{where} lacks the method {missing}")
        for field in fields(component):
            if field.default is MISSING and field.default_factory is MISSING:
                raise UserError(f"{where} has the field {field.name} without a default; give it one")
        known = self._components.get(name)
        if known is not None and (known.__module__, known.__qualname__) != (
            component.__module__,
            component.__qualname__,
        ):
            raise UserError(f"{where} is taken by {known.__module__}.{known.__qualname__}; choose another name")


MODELS = Registry("model", "network", ModelConfig, "fastcifar.models")
OPTIMIZERS = Registry("optimizer", "optimiser", OptimizerConfig, "fastcifar.optim")
SCHEDULES = Registry("schedule", "schedule", ScheduleConfig, "fastcifar.schedules")
EVALUATIONS = Registry("evaluation", "evaluation", EvaluationConfig, "fastcifar.evaluation")
AUGMENT_OPS = Registry("augment_op", "augmentation op", AugmentOp, "fastcifar.augment.ops")
REGISTRIES: dict[str, Registry[Any]] = {
    registry.section: registry for registry in (MODELS, OPTIMIZERS, SCHEDULES, EVALUATIONS, AUGMENT_OPS)
}
"""By field of `Config`."""
register_model = MODELS.register
register_optimizer = OPTIMIZERS.register
register_schedule = SCHEDULES.register
register_evaluation = EVALUATIONS.register
register_augment_op = AUGMENT_OPS.register


def import_module(name: Any) -> None:
    """Imports a module that registers components. The current folder is searched last, after Python's path.

    Raises UserError if there is no such module, or if it fails.
    """
    if not isinstance(name, str) or not MODULE.fullmatch(name):
        raise UserError(f"import is {shown(name)}, but must be the name of a module, such as my_network")
    if name in sys.modules:
        return
    folder = str(Path.cwd())
    if folder not in sys.path:
        sys.path.append(folder)
    importlib.invalidate_caches()  # the module may have been written a moment ago
    try:
        importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and f"{name}.".startswith(f"{error.name}."):
            advice = "run the command in its folder, or put that on PYTHONPATH"
            raise UserError(f"there is no module {name}, which the components are imported from: {advice}") from None
        raise UserError(f"the module {name} cannot be imported: {reason(error)}") from error
    except UserError as error:
        raise UserError(f"the module {name} cannot be imported: {error}") from error
    except Exception as error:
        raise UserError(f"the module {name} cannot be imported: {type(error).__name__}: {reason(error)}") from error


def imported_modules(config: Any) -> dict[str, str | None]:
    """The modules outside this package that register components of `config`, with the SHA-256 of their source.

    None stands for a source that cannot be read, as in a notebook.
    """
    names = {type(getattr(config, section)).__module__ for section in REGISTRIES}
    return {name: _source_sha256(name) for name in sorted(names) if name.partition(".")[0] != "fastcifar"}


def _source_sha256(module: str) -> str | None:
    file = getattr(sys.modules.get(module), "__file__", None)
    try:
        return None if file is None else hashlib.sha256(Path(file).read_bytes()).hexdigest()
    except OSError:
        return None
