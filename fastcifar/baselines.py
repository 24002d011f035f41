"""What others train, written anew as recipes: to be timed against ours by the same clock on the same machine."""

from fastcifar.config import AugmentConfig, Config, FfcvNetConfig, MuonConfig, ScheduleConfig, SgdConfig, SpeedNetConfig


def airbench94() -> Config:
    """The recipe of K. Jordan's airbench94_muon: whole pictures, batch 2,000, Muon, 8 epochs; 94.0% as published.

    Published with six views of a test picture; here two count.
    """
    return Config(
        recipe="airbench94",
        epochs=8,
        batch_size=2000,
        label_smoothing=0.2,
        evaluation="mirrored",
        model=SpeedNetConfig(widths=(64, 256, 256), activation="gelu", logit_scale=1 / 256),
        optimizer=MuonConfig(lr=0.24, momentum=0.6, steps=3, bias_lr=0.053, head_lr=0.67, weight_decay=0.004),
        schedule=ScheduleConfig(peak_epoch=0, start=1, end=0),
        augment=AugmentConfig(pad=2, pad_mode="reflect", flip="alternating", cutout=0),
    )


def ffcv_example() -> Config:
    """FFCV's CIFAR-10 example: its network, SGD with its peak at epoch 5 of 24, mirrored views, cutout 4.

    Its borders have the mean colour; here they are black, and only the holes have it.
    """
    return Config(
        recipe="ffcv_example",
        epochs=24,
        batch_size=512,
        label_smoothing=0.1,
        evaluation="mirrored",
        model=FfcvNetConfig(),
        optimizer=SgdConfig(lr=0.5, momentum=0.9, weight_decay=5e-4),
        schedule=ScheduleConfig(peak_epoch=5, start=0, end=0),
        augment=AugmentConfig(pad=2, pad_mode="zero", flip="random", cutout=4),
    )


BASELINES = (airbench94, ffcv_example)
