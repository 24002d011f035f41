"""Speed records of others, reimplemented as recipes: time them and ours with the same clock on the same machine."""

from fastcifar.config import AugmentConfig, Config
from fastcifar.evaluation.flip_tta import FlipTta
from fastcifar.evaluation.selective_tta import SelectiveTta
from fastcifar.models.ffcv_net import FfcvNetConfig
from fastcifar.models.speednet import SpeedNetConfig
from fastcifar.optim.muon import MuonConfig
from fastcifar.optim.sgd import SgdConfig
from fastcifar.schedules.one_cycle import OneCycle


def airbench94() -> Config:
    """K. Jordan's airbench94_muon: batch 2,000, Muon, 8 epochs; published at 94.01%.

    Source: github.com/KellerJordan/cifar10-airbench, arXiv 2404.00498. Differences: selective TTA instead of six views
    of every test image; the learning rate of the stem's bias follows the schedule of all others, where the original
    takes it to 0 within the three epochs in which the bias learns.
    """
    return Config(
        recipe="airbench94",
        epochs=8,
        batch_size=2000,
        label_smoothing=0.2,
        evaluation=SelectiveTta(),
        model=SpeedNetConfig(widths=(64, 256, 256), activation="gelu", logit_scale=1 / 256),
        optimizer=MuonConfig(lr=0.24, momentum=0.6, steps=3, bias_lr=0.053, head_lr=0.67, weight_decay=0.004),
        schedule=OneCycle(peak_epoch=0, start=1, end=0),
        augment=AugmentConfig(pad=2, pad_mode="reflect", flip="alternating", cutout=0),
    )


def hiverge94() -> Config:
    """Network and schedule of hiverge's cifar10-speedrun, derived from airbench94; published at 94.03%.

    Source: github.com/hiverge/cifar10-speedrun. Differences: no jitter of brightness and contrast (14% and 13%), no
    weight decay on filters, filters rescaled to their norm before every step instead of every eighth, SiLU instead of
    GELU in the stem, and other weights of the views in selective TTA.
    """
    batch_size = 1536
    return Config(
        recipe="hiverge94",
        epochs=7.63,
        batch_size=batch_size,
        label_smoothing=0.09,
        evaluation=SelectiveTta(),
        model=SpeedNetConfig(
            widths=(64, 256, 256), activation="silu", bn_momentum=1 - 0.5566, logit_scale=1 / 256, stem_epochs=0.19
        ),
        optimizer=MuonConfig(
            lr=0.205,
            momentum=0.655,
            steps=3,
            bias_lr=0.0573,
            head_lr=0.5415,
            sgd_momentum=0.825,
            weight_decay=1.0418e-6 * batch_size,
        ),
        schedule=OneCycle(peak_epoch=0, start=1, end=0),
        augment=AugmentConfig(pad=2, pad_mode="reflect", flip="alternating", cutout=0),
    )


def ffcv_example() -> Config:
    """FFCV's CIFAR-10 example: SGD with the peak at epoch 5 of 24, flip TTA, cutout 4; published at 92.6%.

    Source: `examples/cifar` in FFCV's repository. Difference: images are padded with black, not with the mean colour.
    """
    return Config(
        recipe="ffcv_example",
        epochs=24,
        batch_size=512,
        label_smoothing=0.1,
        evaluation=FlipTta(),
        model=FfcvNetConfig(),
        optimizer=SgdConfig(lr=0.5, momentum=0.9, weight_decay=5e-4),
        schedule=OneCycle(peak_epoch=5, start=0, end=0),
        augment=AugmentConfig(pad=2, pad_mode="zero", flip="random", cutout=4),
    )


BASELINES = (airbench94, hiverge94, ffcv_example)
