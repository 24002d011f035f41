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
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any, Generic, TypeVar

from fastcifar.config.components import AugmentOp, EvaluationConfig, ModelConfig, OptimizerConfig, ScheduleConfig
from fastcifar.config.types import field_hints
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
        self._modules: dict[str, str] = {}
        self._unlisted: set[str] = set()
        self._is_complete = False

    def register(self, name: str, *, listed: bool = True) -> Callable[[Component], Component]:
        """A class decorator; raises UserError for a bad or taken name and for a class that cannot be a component.

        Components that are not `listed` are for the program itself. Registering a class again under its name replaces
        it, as when a notebook's cell runs twice.
        """
        if not isinstance(name, str) or not NAME.fullmatch(name):
            wanted = "a small letter, then at most 39 small letters, digits and underscores"
            raise UserError(f"register_{self.section} got {shown(name)}, but needs a name in brackets: {wanted}")
        module = str(sys._getframe(1).f_globals.get("__name__"))  # may register a class of another module

        def add(component: Component) -> Component:
            self._check(name, component)
            self._modules[name] = module
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
        """Whether a component's instance is one of ours; one that is not listed carries something of the user's."""
        return _is_ours(self.module_of(config)) and self.name_of(config) not in self._unlisted

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
            own = "--import MODULE loads your own, if it does not stand in a script or a notebook"
            raise UserError(f"no {self.noun} is called {shown(name)}: {choices}; {own}")
        return self._components[name]

    def name_of(self, config: Base) -> str:
        """The name of a component's instance; raises UserError if its class is not registered."""
        self._load_own()
        for name, component in self._components.items():
            if _is_same(type(config), component):
                return name
        kind = type(config).__name__
        raise UserError(f"{self.section} is a {kind}, which is not registered; put @register_{self.section} above it")

    def module_of(self, config: Base) -> str:
        """The module that registered a component's instance."""
        return self._modules[self.name_of(config)]

    def _check(self, name: str, component: type) -> None:
        where = f"the {self.noun} {shown(name)}"
        if not (isinstance(component, type) and issubclass(component, self.base)):
            raise UserError(f"{where} must be a dataclass derived from {self.base.__name__}")
        if "__dataclass_fields__" not in vars(component):
            raise UserError(f"{where} is no dataclass: put @dataclass(frozen=True) between @register and the class")
        if inspect.isabstract(component):
            missing = ", ".join(sorted(getattr(component, "__abstractmethods__", ())))
            raise UserError(f"{where} lacks the method {missing}")
        field_hints(component)
        for field in fields(component):  # type: ignore[arg-type]  (a dataclass, as checked)
            if field.default is MISSING and field.default_factory is MISSING:
                raise UserError(f"{where} has the field {field.name} without a default; give it one")
            if field.name == "kind":
                raise UserError(f"{where} has a field called kind, which files use for its name; call it otherwise")
        known = self._components.get(name)
        if known is not None and not _is_same(known, component):
            raise UserError(f"{where} is taken by {known.__module__}.{known.__qualname__}; choose another name")


def _is_same(one: type, other: type) -> bool:
    """Whether two classes are one, of which a notebook's cell made a new version."""
    return (one.__module__, one.__qualname__) == (other.__module__, other.__qualname__)


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
    if not isinstance(name, str) or not MODULE.fullmatch(name) or name.endswith(".py"):
        raise UserError(f"import is {shown(name)}, but must be the name of a module: my_network for my_network.py")
    folder = str(Path.cwd())
    if name in sys.modules:
        own, loaded = Path(folder, *name.split(".")).with_suffix(".py"), getattr(sys.modules[name], "__file__", None)
        if own.exists() and (loaded is None or not own.samefile(loaded)):
            raise UserError(f"{own.name} has the name of a module of Python or of a library; rename it")
        return
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
    names = {registry.module_of(getattr(config, section)) for section, registry in REGISTRIES.items()}
    return {name: _source_sha256(name) for name in sorted(names) if not _is_ours(name)}


def _is_ours(module: str) -> bool:
    return module.partition(".")[0] == "fastcifar"


def _source_sha256(module: str) -> str | None:
    file = getattr(sys.modules.get(module), "__file__", None)
    try:
        return None if file is None else hashlib.sha256(Path(file).read_bytes()).hexdigest()
    except OSError:
        return None
