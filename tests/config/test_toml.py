"""A run's config.toml gives back the run's configuration, and what is no configuration is refused."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fastcifar.cli.config_args import parse_config
from fastcifar.config import (
    AdamConfig,
    AugmentConfig,
    Config,
    FfcvNetConfig,
    MuonConfig,
    ResNet18Config,
    ResNetConfig,
    ScheduleConfig,
    SgdConfig,
    SpeedNetConfig,
)
from fastcifar.config.toml import to_toml
from fastcifar.errors import UserError
from fastcifar.recipes import RECIPES, load_config

fractions = st.floats(0, 1)
below_one = st.floats(0, 1, exclude_max=True)
rates = st.floats(1e-12, 1e9)
decays = st.floats(0, 1e6)
paths = st.text(st.characters(exclude_characters="\0", exclude_categories=("Cs",)), max_size=12).map(Path)
odd_paths = st.sampled_from(
    ["-x", "--help", "a b", 'quo"te', "back\\slash", "tab\t", "\x7f", "🙂/π", "", "=", "1"]
).map(Path)

MODELS = st.one_of(
    st.builds(
        ResNetConfig,
        width=st.integers(1, 1024),
        dropout=below_one,
        conv_bias=st.booleans(),
        linear_bias=st.booleans(),
        layer2_padding=st.sampled_from([0, 1]),
        layer3_pool=st.booleans(),
        logit_scale=st.floats(1e-9, 1e9),
    ),
    st.builds(
        SpeedNetConfig,
        widths=st.lists(st.integers(1, 999), min_size=1, max_size=3).map(tuple),
        activation=st.sampled_from(["gelu", "relu", "silu"]),
        bn_momentum=st.floats(0, 1, exclude_min=True),
        logit_scale=st.floats(1e-9, 1e9),
        stem_epochs=decays,
        stem=st.sampled_from(["whitening", "learned"]),
        identity=st.booleans(),
    ),
    st.builds(ResNet18Config, small_stem=st.booleans()),
    st.builds(FfcvNetConfig, width=st.integers(1, 99)),
)
OPTIMIZERS = st.one_of(
    st.builds(
        SgdConfig,
        lr=rates,
        momentum=below_one,
        nesterov=st.booleans(),
        weight_decay=decays,
        decoupled=st.booleans(),
    ),
    st.builds(
        AdamConfig,
        lr=rates,
        beta1=below_one,
        beta2=below_one,
        eps=rates,
        weight_decay=decays,
        decoupled=st.booleans(),
    ),
    st.builds(
        MuonConfig,
        lr=rates,
        momentum=below_one,
        steps=st.integers(1, 20),
        bias_lr=rates,
        head_lr=rates,
        sgd_momentum=below_one,
        weight_decay=decays,
    ),
)
RESOLUTIONS = st.lists(
    st.tuples(st.floats(0.001, 0.999), st.integers(16, 32)), max_size=3, unique_by=lambda stage: stage[0]
).map(lambda stages: (*sorted(stages), (1.0, 32)))
CONFIGS = st.builds(
    Config,
    recipe=st.sampled_from(list(RECIPES)),
    seed=st.integers(0, 2**63 - 1),
    epochs=st.floats(10, 1e6),
    batch_size=st.integers(1, 10**6),
    label_smoothing=below_one,
    resolution=RESOLUTIONS,
    evaluation=st.sampled_from(["single_view", "flip_tta", "selective_tta"]),
    evaluate_every=st.integers(0, 100),
    evaluation_batch_size=st.integers(1, 10**6),
    model=MODELS,
    optimizer=OPTIMIZERS,
    schedule=st.builds(
        ScheduleConfig,
        peak_epoch=st.floats(0, 10),
        start=fractions,
        end=fractions,
        anneal=st.sampled_from(["linear", "cos", "step"]),
    ),
    augment=st.builds(
        AugmentConfig,
        pad=st.integers(0, 16),
        pad_mode=st.sampled_from(["zero", "reflect"]),
        flip=st.sampled_from(["none", "random", "alternating"]),
        cutout=st.integers(0, 32),
        small=st.sampled_from(["area", "crop"]),
    ),
    loader=st.sampled_from(["auto", "resident", "stream"]),
    amp=st.sampled_from(["auto", "float32", "bfloat16", "float16"]),
    device=st.sampled_from(["auto", "cpu", "cuda"]),
    threads=st.one_of(st.none(), st.integers(1, 1024)),
    data=odd_paths,
    runs=paths,
)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(config=CONFIGS)
def test_a_configuration_comes_back_from_its_file(config: Config, tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    path.write_text(to_toml(config), encoding="utf-8")
    found = load_config(path)
    assert found == config
    assert to_toml(found) == to_toml(config)


@pytest.mark.parametrize("name", RECIPES)
def test_recipes_come_back_from_their_files(name: str, tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    path.write_text(to_toml(RECIPES[name]()))
    assert load_config(path) == RECIPES[name]()
    assert parse_config(["--recipe", name], "") == RECIPES[name]()


def test_what_a_file_says(tmp_path: Path) -> None:
    text = to_toml(Config(data=Path("a/b"), resolution=((0.5, 16), (1.0, 32)), threads=None))
    assert 'recipe = "smoke"\nseed = 0\n' in text
    assert "resolution = [[0.5, 16], [1.0, 32]]\n" in text
    assert 'data = "a/b"\n' in text
    assert "threads" not in text
    assert '\n[model]\nkind = "resnet"\nwidth = 64\n' in text
    assert '\n[optimizer]\nkind = "sgd"\nlr = 0.1\n' in text
    assert "nesterov = false\n" in text


def parse(tmp_path: Path, text: str, *arguments: str) -> Config:
    path = tmp_path / "my.toml"
    path.write_text(text)
    return parse_config(["--config", str(path), *arguments], "")


def test_a_file_changes_only_what_it_names(tmp_path: Path) -> None:
    config = parse(tmp_path, 'recipe = "smoke"\nseed = 7\n[augment]\ncutout = 4\n')
    assert (config.recipe, config.seed, config.augment.cutout) == ("smoke", 7, 4)
    assert config.model == RECIPES["smoke"]().model


def test_the_recipe_comes_first_then_the_file_then_the_flags(tmp_path: Path) -> None:
    text = 'recipe = "resnet24"\nseed = 7\nepochs = 9.5\n[model]\nconv_bias = true\n'
    config = parse(tmp_path, text, "--epochs", "12", "--model.no-conv-bias")
    assert (config.recipe, config.seed, config.epochs) == ("resnet24", 7, 12)
    assert config.model == ResNetConfig(conv_bias=False, logit_scale=0.125)
    assert parse(tmp_path, "seed = 7\n", "--recipe=smoke").recipe == "smoke"
    assert parse(tmp_path, 'recipe = "smoke"\n', "--recipe", "resnet24").batch_size == 512


def test_a_file_may_choose_another_network_and_optimiser(tmp_path: Path) -> None:
    text = 'recipe = "smoke"\n[model]\nkind = "resnet"\nwidth = 8\n[optimizer]\nkind = "sgd"\n'
    config = parse(tmp_path, text, "--optimizer.lr", "0.5")
    assert config.model == ResNetConfig(width=8)
    assert config.optimizer == SgdConfig(lr=0.5)
    text = 'recipe = "smoke"\n[model]\nkind = "resnet18"\nsmall_stem = false\n[optimizer]\nkind = "adam"\n'
    config = parse(tmp_path, text, "--optimizer.beta1", "0.5")
    assert config.model == ResNet18Config(small_stem=False)
    assert config.optimizer == AdamConfig(beta1=0.5)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("epoch = 3", "{path} has the unknown key epoch; known there are recipe, seed, epochs, batch_size, "),
        ("batch-size = 3", "{path} has the unknown key batch-size; known there are "),
        ("help = true", "{path} has the unknown key help; known there are "),
        ("[model]\ndepth = 3", "{path} has the unknown key model.depth; known there are width"),
        ("[data]\npath = 'x'", "{path} has data = {{'path': 'x'}}, but that is one value"),
        ("augment = 3", "{path} has augment = 3, but that is a section with pad, pad_mode, flip, cutout, small"),
        ("[model]\nkind = 'vgg'", "{path} has the model.kind 'vgg': choose one of resnet, speed, resnet18, ffcv"),
        ("[optimizer]\nkind = 3", "{path} has the optimizer.kind 3: choose one of sgd, adam, muon"),
        ("[schedule]\nkind = 'x'", "{path} has the unknown key schedule.kind; known there are peak_epoch"),
        (
            "recipe = 'nix'",
            "no recipe is called 'nix': choose one of resnet24, cpu90, cpu94, fast90, fast94, smoke, system_a",
        ),
        ("recipe = ['smoke']", "no recipe is called ['smoke']: choose one of"),
        ("epochs = ", "{path} is not valid TOML: "),
        ("epochs = 3\nepochs = 4", "{path} is not valid TOML: "),
        ("epochs = 'three'", "Error parsing --epochs: could not convert string to float: 'three'"),
        ("epochs = true", "{path} has epochs = True, but that is a number or a text"),
        ("epochs = 2026-11-21", "{path} has epochs = datetime.date(2026, 11, 21), but that is a number or a text"),
        (f"seed = {'1' * 5000}", "{path} is not valid TOML: Exceeds the limit (4300 digits)"),
        (f"seed = 0x{'f' * 5000}", "{path} has seed = a whole number of thousands of digits, but that is a number or"),
        ("resolution = [['--help', 1]]", "{path} has resolution with '--help' in it, but its values are numbers"),
        ('data = "a\\u0000b"', "Error parsing Config: data is 'a\\x00b', but a path has no NUL"),
        ("epochs = nan", "Error parsing Config: epochs is nan, but must be a finite number"),
        ("seed = 1.5", "Error parsing --seed: invalid literal for int() with base 10: '1.5'"),
        ("amp = 'int8'", "invalid choice 'int8' for argument '--amp'. Expected one of"),
        ("resolution = [0.5]", "Error parsing --resolution: Could not find valid parse for arguments: ['0.5']"),
        ("resolution = []", "Error parsing Config: resolution is (), but its fractions must ascend to 1"),
        ("[model]\nconv_bias = 'yes'", "{path} has model.conv_bias = 'yes', but that is true or false"),
    ],
)
def test_refused_files(text: str, message: str, tmp_path: Path) -> None:
    base = "" if "recipe" in text else "recipe = 'resnet24'\n"
    with pytest.raises(UserError) as caught:
        parse(tmp_path, base + text)
    assert str(caught.value).startswith(message.format(path=tmp_path / "my.toml"))
    assert "\n" not in str(caught.value) or "TOML" in str(caught.value)


@pytest.mark.parametrize("content", [None, b"\xff\xfe"])
def test_a_file_that_cannot_be_read(content: Any, tmp_path: Path) -> None:
    path = tmp_path / "my.toml"
    if content is None:
        expected = f"cannot read the configuration {path}: No such file or directory; name a TOML file"
    else:
        path.write_bytes(content)
        expected = f"{path} is not valid TOML: 'utf-8' codec can't decode byte 0xff in position 0: invalid start byte"
    with pytest.raises(UserError) as caught:
        load_config(path)
    assert str(caught.value) == expected
