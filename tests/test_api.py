"""The public API: it loads lazily, trains in a loop, takes networks as they are, and does what the commands do."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import fastcifar
from fastcifar import Config, UserError, evaluate, load_run, open_loader, predict, recipe, train
from fastcifar.models.resnet import ResNetConfig
from fastcifar.optim.sgd import SgdConfig


@pytest.fixture
def short(tiny: Config, tmp_path: Path) -> Config:
    """Half an epoch with SGD, on images of 24 pixels."""
    return replace(tiny, epochs=0.5, optimizer=SgdConfig(lr=0.01), runs=tmp_path)


class Net(nn.Module):
    """A small network of the user's."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.conv, self.head = nn.Conv2d(3, 4, 3, 2), nn.Linear(4, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.conv(x).mean((2, 3)))


def test_every_name_is_there_and_loads_when_it_is_used() -> None:
    for name in fastcifar.__all__:
        assert getattr(fastcifar, name) is not None
    assert sorted(fastcifar.__all__) == fastcifar.__all__ == dir(fastcifar)
    with pytest.raises(AttributeError, match="trian"):
        _ = fastcifar.trian  # type: ignore[attr-defined]


def test_importing_the_command_s_module_leaves_the_function() -> None:
    code = "import fastcifar.train; from fastcifar import train; assert train is fastcifar.train; train.__kwdefaults__"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_recipes() -> None:
    assert recipe("resnet24", seed=3, epochs=7.5) == replace(recipe("resnet24"), seed=3, epochs=7.5)
    with pytest.raises(UserError, match=r"cpu91.*cpu90"):
        recipe("cpu91")
    with pytest.raises(UserError, match="epochs is -1"):
        recipe("smoke", epochs=-1)
    with pytest.raises(TypeError, match="epoch"):
        recipe("smoke", epoch=3)


def test_a_run_is_what_the_command_leaves(finished: Any) -> None:
    run = load_run(finished.folder)
    assert run.folder == finished.folder
    assert load_run(finished.folder.name, finished.config.runs).folder == finished.folder
    assert run.config == finished.config
    assert run.accuracy == finished.record["test_accuracy_tta"]
    assert evaluate(run).accuracy == run.accuracy


def test_seeds_in_a_loop(short: Config) -> None:
    runs = [train(replace(short, seed=seed)) for seed in (0, 1, 0)]
    digests = [run.record["weights_sha256"] for run in runs]
    assert digests[0] == digests[2] != digests[1]
    assert len({run.folder for run in runs}) == 3
    for run in runs:
        assert run.record["clock"]["process_s"] is None  # the process does more than this run
        assert run.record["clock"]["run_s"] > 0


def test_predictions(finished: Any, tmp_path: Path) -> None:
    run = load_run(finished.folder)
    images = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), dtype=np.uint8)
    for number, image in enumerate(images):
        Image.fromarray(image).save(tmp_path / f"{number}.png")
    found = predict(run, images)
    assert found == predict(run, [tmp_path / f"{number}.png" for number in range(3)])
    assert [list(one) for one in found] == [run.class_names] * 3
    assert [sum(one.values()) for one in found] == pytest.approx([1, 1, 1])
    assert predict(run, images[:0]) == predict(run, []) == []
    for wrong in (images.astype(np.float32), images[0], images[:, :16]):
        with pytest.raises(UserError, match=r"\(n, 32, 32, 3\)"):
            predict(run, wrong)


def test_batches_are_those_of_a_run(short: Config) -> None:
    with open_loader(short) as loader:
        images, labels = next(iter(loader.epoch(0)))
    assert (images.shape, labels.shape) == ((50, 3, 24, 24), (50,))
    with open_loader(short, "test") as loader:
        assert sum(len(labels) for _, labels in loader.epoch(0)) == 200


@pytest.mark.parametrize("kind", ["class", "function", "lambda", "module"])
def test_a_network_without_registration(kind: str, short: Config) -> None:
    torch.manual_seed(5)
    given: Any = {"class": Net, "function": build_net, "lambda": lambda classes: Net(classes), "module": Net(10)}[kind]
    before = {name: tensor.clone() for name, tensor in given.state_dict().items()} if kind == "module" else {}
    run, again = train(short, model=given), train(short, model=given)
    assert run.record["weights_sha256"] == again.record["weights_sha256"]
    assert isinstance(load_run(run.folder).model, Net)
    assert evaluate(run).accuracy == run.accuracy
    if kind == "module":  # a copy is trained
        assert all(torch.equal(tensor, before[name]) for name, tensor in given.state_dict().items())


def build_net(classes: int) -> nn.Module:
    return Net(classes)


def test_two_networks_of_one_name_are_not_mixed_up(short: Config) -> None:
    def make(width: int) -> Any:
        class Net(nn.Module):
            def __init__(self, classes: int) -> None:
                super().__init__()
                self.head = nn.Linear(3 * 24 * 24, width)
                self.last = nn.Linear(width, classes)

            def forward(self, x: torch.Tensor) -> torch.Tensor:
                return self.last(self.head(x[:, :, :24, :24].flatten(1)))

        return Net

    first, second = train(short, model=make(3)), train(short, model=make(5))
    assert load_run(first.folder).model.state_dict()["head.weight"].shape[0] == 3
    assert load_run(second.folder).model.state_dict()["head.weight"].shape[0] == 5


def test_another_process_cannot_build_a_given_network(short: Config) -> None:
    run = train(short, model=Net)
    code = f"from fastcifar import load_run; load_run({str(run.folder)!r})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "'Net" in done.stderr.splitlines()[-1]
    assert "register_model" in done.stderr.splitlines()[-1]


@pytest.mark.parametrize(
    ("model", "shown"),
    [
        (lambda classes: Net(classes + 1), r"\(2, 11\).*\(2, 10\)"),
        (lambda classes: nn.Conv2d(3, classes, 3), r"\(2, 10, 22, 22\)"),
        (lambda classes: nn.Linear(7, classes), r"24x24.*RuntimeError"),
        (
            lambda classes: nn.Sequential(nn.Conv2d(3, 8, 30), nn.Flatten(), nn.Linear(8, classes)),
            r"24x24.*RuntimeError",
        ),
    ],
)
def test_a_network_that_does_not_fit_is_refused_before_a_folder_is_made(model: Any, shown: str, short: Config) -> None:
    with pytest.raises(UserError, match=shown):
        train(short, model=model)
    assert list(short.runs.iterdir()) == []


def test_mistakes(short: Config) -> None:
    with pytest.raises(UserError, match="nowhere"):
        train(replace(short, data=Path("/nowhere")))
    with pytest.raises(UserError, match="nix"):
        load_run("nix", short.runs)
    with pytest.raises(UserError, match="resolution"):
        replace(short, model=ResNetConfig(), resolution=())
    with pytest.raises(UserError, match="missing"):
        train(short, resume=short.runs / "missing")
