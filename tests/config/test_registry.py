"""Components are found by name, refused where they cannot work, and imported from modules of the user's."""

import hashlib
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from torch import nn

from fastcifar.config import Config, ModelConfig
from fastcifar.config.registry import MODELS, OPTIMIZERS, REGISTRIES, Registry, import_module, imported_modules
from fastcifar.config.toml import check_round_trip, to_toml
from fastcifar.errors import UserError
from fastcifar.models.resnet import ResNetConfig
from fastcifar.recipes import load_config


@pytest.fixture
def registry() -> Registry[ModelConfig]:
    return Registry("model", "network", ModelConfig, "fastcifar.models")


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A module `my_net` in the current folder, with the network `own`, which is forgotten afterwards."""
    path = tmp_path / "my_net.py"
    path.write_text(
        "from dataclasses import dataclass\n"
        "from fastcifar import ModelConfig, register_model\n"
        "@register_model('own')\n"
        "@dataclass(frozen=True, kw_only=True)\n"
        "class Own(ModelConfig):\n"
        "    width: int = 3\n"
        "    def build(self, classes): raise NotImplementedError\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield path
    sys.modules.pop("my_net", None)
    MODELS._components.pop("own", None)


@pytest.mark.parametrize("section", REGISTRIES)
def test_every_component_has_a_name_and_comes_from_its_own_file(section: str) -> None:
    components = REGISTRIES[section]
    modules = [components[name].__module__ for name in components.names()]
    assert len(set(modules)) == len(modules) > 1
    for name in components.names():
        instance = components[name]()
        assert components.name_of(instance) == name
        assert components.is_own(instance)
        assert type(instance).__doc__


def test_a_name_that_does_not_exist_gets_its_nearest_neighbour() -> None:
    with pytest.raises(UserError, match=r"'sdg'.*did you mean 'sgd'"):
        OPTIMIZERS["sdg"]
    with pytest.raises(UserError, match=r"\['sgd'\]"):
        OPTIMIZERS[["sgd"]]


def test_a_class_that_is_not_registered() -> None:
    @dataclass(frozen=True)
    class Loose(ResNetConfig):
        pass

    with pytest.raises(UserError, match=r"Loose.*register_model"):
        MODELS.name_of(Loose())


class NoDataclass(ModelConfig):
    def build(self, classes: int) -> nn.Module:
        raise NotImplementedError


@dataclass(frozen=True)
class OtherBase:
    width: int = 3


@dataclass(frozen=True)
class Abstract(ModelConfig):
    width: int = 3


@dataclass(frozen=True)
class Complete(NoDataclass):
    width: int = 3


@dataclass(frozen=True)
class WithoutDefault(NoDataclass):
    width: int


@pytest.mark.parametrize(
    ("component", "shown"),
    [(OtherBase, "ModelConfig"), (Abstract, "build"), (WithoutDefault, "width"), (int, "ModelConfig")],
)
def test_a_class_that_cannot_be_a_component(registry: Registry[Any], component: type, shown: str) -> None:
    with pytest.raises(UserError, match=f"'bad'.*{shown}"):
        registry.register("bad")(component)


@pytest.mark.parametrize("name", ["", "Tiny", "a b", "a-b", "1a", "x" * 41, 3])
def test_a_name_that_cannot_be_typed(registry: Registry[Any], name: Any) -> None:
    with pytest.raises(UserError, match="name"):
        registry.register(name)(ResNetConfig)


def test_a_taken_name_and_a_repeated_registration(registry: Registry[Any]) -> None:
    registry.register("mine")(ResNetConfig)
    registry.register("mine")(ResNetConfig)  # a notebook's cell runs twice
    with pytest.raises(UserError, match=r"'mine'.*ResNetConfig"):
        registry.register("mine")(Complete)


def test_a_module_in_the_current_folder(module: Path) -> None:
    import_module("my_net")
    config = Config(model=replace(MODELS["own"](), **{"width": 5}))
    assert not MODELS.is_own(config.model)
    assert imported_modules(config) == {"my_net": hashlib.sha256(module.read_bytes()).hexdigest()}
    assert imported_modules(Config()) == {}
    text = to_toml(config)
    assert text.startswith('import = ["my_net"]\n')
    assert '[model]\nkind = "own"\nwidth = 5\n' in text


def test_a_file_imports_the_modules_that_it_names(module: Path) -> None:
    file = module.parent / "my.toml"
    file.write_text('import = ["my_net"]\nrecipe = "smoke"\n[model]\nkind = "own"\nwidth = 5\n')
    config = load_config(file)
    assert (MODELS.name_of(config.model), config.model.width) == ("own", 5)  # type: ignore[attr-defined]
    file.write_text('import = "my_net"\nrecipe = "smoke"\nmodel = "own"\n')
    assert load_config(file).model == MODELS["own"]()


@pytest.mark.parametrize(
    ("name", "content", "shown"),
    [
        ("no_such_module", None, "no_such_module"),
        ("no_such.module", None, "no_such.module"),
        ("broken", "def", "SyntaxError"),
        ("broken", "1 / 0", "division by zero"),
        ("broken", "import no_such_package", "no_such_package"),
        ("my/file.py", None, "my/file.py"),
        ("", None, "''"),
        (3, None, "3"),
    ],
)
def test_a_module_that_cannot_be_imported(name: Any, content: str | None, shown: str, module: Path) -> None:
    if content is not None:
        (module.parent / f"{name}.py").write_text(content)
    with pytest.raises(UserError, match=shown) as caught:
        import_module(name)
    assert str(name) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_without_a_name_or_a_dataclass_of_its_own(registry: Registry[Any]) -> None:
    with pytest.raises(UserError, match="register_model"):
        registry.register(ResNetConfig)  # type: ignore[arg-type]

    class Forgotten(ResNetConfig):
        pass

    with pytest.raises(UserError, match="@dataclass"):
        registry.register("mine")(Forgotten)

    @dataclass(frozen=True)
    class Kind(NoDataclass):
        kind: str = ""

    with pytest.raises(UserError, match="kind"):
        registry.register("mine")(Kind)


def test_an_instance_from_before_a_notebook_s_cell_ran_again(module: Path) -> None:
    import_module("my_net")
    before = Config(model=MODELS["own"]())
    sys.modules.pop("my_net")
    import_module("my_net")
    assert type(before.model) is not MODELS["own"]
    assert MODELS.name_of(before.model) == "own"
    check_round_trip(before)


def test_a_module_with_the_name_of_another(module: Path) -> None:
    (module.parent / "queue.py").write_text("")
    with pytest.raises(UserError, match=r"queue\.py.*rename"):
        import_module("queue")


def test_optional_fields_and_a_class_of_another_module_come_back(module: Path) -> None:
    module.write_text(
        "from dataclasses import dataclass\n"
        "from fastcifar import register_model\n"
        "from fastcifar.models.ffcv_net import FfcvNetConfig\n"
        "@register_model('own')\n"
        "@dataclass(frozen=True, kw_only=True)\n"
        "class Own(FfcvNetConfig):\n"
        "    rate: float | None = None\n"
        "    mode: int | str = 'x'\n"
    )
    import_module("my_net")
    for values in ({}, {"rate": 0.5, "mode": 3}):
        config = Config(model=MODELS["own"](**values))
        file = module.parent / "my.toml"
        file.write_text(to_toml(config))
        assert load_config(file) == config
        check_round_trip(config)
