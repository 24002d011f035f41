"""A run's config.toml gives back the run's configuration; any other file is refused, naming the key and the value."""

import re
from dataclasses import fields
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fastcifar.cli.config_args import parse_config
from fastcifar.config import AugmentConfig, Config
from fastcifar.config.registry import REGISTRIES
from fastcifar.config.toml import to_toml
from fastcifar.errors import UserError
from fastcifar.models.resnet import ResNetConfig
from fastcifar.optim.adam import AdamConfig
from fastcifar.recipes import RECIPES, load_config

PATHS = st.one_of(
    st.text(st.characters(exclude_characters="\0", exclude_categories=("Cs",)), max_size=12),
    st.sampled_from(["-x", "--help", "a b", 'quo"te', "back\\slash", "tab\t", "\x7f", "🙂/π", "", "=", "1"]),
).map(Path)
BY_TYPE: dict[Any, Any] = {
    bool: st.booleans(),
    int: st.integers(1, 16),
    float: st.floats(1e-12, 0.99),
    int | None: st.none() | st.integers(1, 1024),
    Path: PATHS,
}


def built(kind: Any, **own: Any) -> Any:
    """Random instances of `kind`; fields that are not in `own` get values that every field of their type accepts."""
    names = {item.name for item in fields(kind)}
    hints = {name: hint for name, hint in get_type_hints(kind).items() if name in names and name not in own}
    given = {
        name: st.sampled_from(get_args(hint)) if get_origin(hint) is Literal else BY_TYPE[hint]
        for name, hint in hints.items()
    }
    return st.builds(kind, **given, **own)


def one_of(section: str, **own: Any) -> Any:
    """Random instances of all components of a section."""
    kinds = [REGISTRIES[section][name] for name in REGISTRIES[section].names()]
    known = [{item.name for item in fields(kind)} for kind in kinds]
    return st.one_of(
        *(
            built(kind, **{name: value for name, value in own.items() if name in names})
            for kind, names in zip(kinds, known, strict=True)
        )
    )


WIDTHS = st.lists(st.integers(1, 999), min_size=1, max_size=3).map(tuple)
STAGES = st.lists(st.tuples(st.floats(0.001, 0.999), st.integers(16, 32)), max_size=3, unique_by=lambda stage: stage[0])
CONFIGS = built(
    Config,
    recipe=st.sampled_from(list(RECIPES)),
    seed=st.integers(0, 2**63 - 1),
    epochs=st.floats(10, 1e6),
    resolution=STAGES.map(lambda stages: (*sorted(stages), (1.0, 32))),
    checkpoint_every=st.sampled_from(["0", "500", "1.5s"]),
    device=st.sampled_from(["auto", "cpu", "mps", "cuda", "cuda:1"]),
    model=one_of("model", widths=WIDTHS),
    optimizer=one_of("optimizer", lr=st.floats(1e-12, 1e9)),
    schedule=one_of("schedule", peak_epoch=st.floats(0, 10), drop_epoch=st.floats(0, 10)),
    augment_op=one_of("augment_op"),
    evaluation=one_of("evaluation"),
    augment=built(AugmentConfig),
)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(config=CONFIGS)
def test_a_configuration_comes_back_from_its_file(config: Config, tmp_path: Path) -> None:
    found = load(tmp_path, to_toml(config))
    assert found == config
    assert to_toml(found) == to_toml(config)


@pytest.mark.parametrize("name", RECIPES)
def test_recipes_come_back_from_their_files(name: str, tmp_path: Path) -> None:
    assert load(tmp_path, to_toml(RECIPES[name]())) == RECIPES[name]()


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "my.toml"
    path.write_text(text, encoding="utf-8")
    return path


def load(tmp_path: Path, text: str) -> Config:
    return load_config(written(tmp_path, text))


def parse(tmp_path: Path, text: str, *arguments: str) -> Config:
    return parse_config(["--config", str(written(tmp_path, text)), *arguments], "")


def test_what_a_file_says() -> None:
    text = to_toml(Config(data=Path("a/b"), resolution=((0.5, 16), (1.0, 32)), threads=None))
    assert 'recipe = "smoke"\nseed = 0\n' in text
    assert "resolution = [[0.5, 16], [1.0, 32]]\n" in text
    assert 'data = "a/b"\n' in text
    assert "threads" not in text
    assert '\n[optimizer]\nkind = "sgd"\nlr = 0.1\n' in text
    assert "nesterov = false\n" in text


def test_a_file_changes_only_what_it_names(tmp_path: Path) -> None:
    config = load(tmp_path, 'recipe = "smoke"\nseed = 7\nepochs = 3\n[augment]\ncutout = 4\n')
    assert (config.recipe, config.seed, config.augment.cutout) == ("smoke", 7, 4)
    assert isinstance(config.epochs, float)
    assert config.model == RECIPES["smoke"]().model


def test_the_recipe_comes_first_then_the_file_then_the_flags(tmp_path: Path) -> None:
    text = 'recipe = "resnet24"\nseed = 7\nepochs = 9.5\n[model]\nconv_bias = true\n'
    config = parse(tmp_path, text, "--epochs", "12", "--model.no-conv-bias")
    assert (config.recipe, config.seed, config.epochs) == ("resnet24", 7, 12)
    assert config.model == ResNetConfig(conv_bias=False, logit_scale=0.125)
    assert parse(tmp_path, "seed = 7\n", "--recipe=smoke").recipe == "smoke"
    assert parse(tmp_path, 'recipe = "smoke"\n', "--recipe", "resnet24").batch_size == 512


def test_a_file_may_choose_another_network_and_optimiser(tmp_path: Path) -> None:
    text = 'recipe = "smoke"\n[model]\nkind = "resnet"\nwidth = 8\n[optimizer]\nkind = "adam"\n'
    config = parse(tmp_path, text, "--optimizer.beta1", "0.5")
    assert config.model == ResNetConfig(width=8)
    assert config.optimizer == AdamConfig(beta1=0.5)


@pytest.mark.parametrize(
    ("text", "key", "value"),
    [
        ("epoch = 3", "epoch", ""),
        ("batch-size = 3", "batch-size", ""),
        ('"new\\nline" = 3', "new\\nline", ""),
        ("[model]\ndepth = 3", "model.depth", ""),
        ("[schedule]\nkind = 'x'", "schedule.kind", "x"),
        ("[augment]\nkind = 'x'", "augment.kind", ""),
        ("[data]\npath = 'x'", "data", "{'path': 'x'}"),
        ("[threads]\nn = 1", "threads", "{'n': 1}"),
        ("augment = 3", "augment", "3"),
        ("model = 3", "model", "3"),
        ("[[optimizer]]\nkind = 'sgd'", "optimizer", "sgd"),
        ("[model]\nkind = 'vgg'", "model.kind", "vgg"),
        ("model = 'vgg'", "model.kind", "vgg"),
        ("[evaluation]\nkind = 'nine_views'", "evaluation.kind", "nine_views"),
        ("import = 'no_such_module'", "module", "no_such_module"),
        ("import = ['a b']", "import", "a b"),
        ("import = [3]", "import", "3"),
        ("[optimizer.kind]\na = 3", "optimizer.kind", "3"),
        ("recipe = 'nix'", "recipe", "nix"),
        ("recipe = ['smoke']", "recipe", "['smoke']"),
        ("epochs = 'three'", "epochs", "three"),
        ("epochs = true", "epochs", "True"),
        ("epochs = 2026-11-21", "epochs", "2026, 11, 21"),
        ("epochs = nan", "epochs", "nan"),
        (f"epochs = 0x{'f' * 400}", "epochs", ""),
        (f"seed = 0x{'f' * 5000}", "seed", ""),
        ("seed = 1.5", "seed", "1.5"),
        ("seed = true", "seed", "True"),
        ("threads = 0", "threads", "0"),
        ("amp = 'int8'", "amp", "int8"),
        ("checkpoint_every = 60", "checkpoint_every", "60"),
        ("resolution = [['--help', 1]]", "resolution", "--help"),
        ("resolution = [0.5]", "resolution", "0.5"),
        ("resolution = [[1, 32, 3]]", "resolution", "[1, 32, 3]"),
        ("resolution = [[nan, 32]]", "resolution", "nan"),
        ("resolution = []", "resolution", "()"),
        ("[model]\nconv_bias = 'yes'", "model.conv_bias", "yes"),
        ("[model]\nlayer2_padding = true", "model.layer2_padding", "True"),
        ("[model]\nwidth = [[[]]]", "model.width", "[[[]]]"),
        ('data = "a\\u0000b"', "data", "a\\x00b"),
    ],
)
def test_a_refused_key_or_value_is_named(text: str, key: str, value: str, tmp_path: Path) -> None:
    base = "" if "recipe" in text else "recipe = 'resnet24'\n"
    with pytest.raises(UserError, match=rf"^[^\n]*{re.escape(key)}\b[^\n]*{re.escape(value)}[^\n]*$") as caught:
        load(tmp_path, base + text)
    assert key in ("recipe", "import", "module") or str(tmp_path / "my.toml") in str(caught.value)


@pytest.mark.parametrize(
    "content", [None, b"\xff\xfe", b"epochs = ", b"epochs = 3\nepochs = 4", b"seed = " + b"1" * 5000, b"#" * 20_000]
)
def test_a_file_that_is_no_toml(content: bytes | None, tmp_path: Path) -> None:
    path = tmp_path / "my.toml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match=re.escape(str(path))) as caught:
        load_config(path)
    assert "\n" not in str(caught.value)
