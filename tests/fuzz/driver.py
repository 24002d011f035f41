"""Fuzzes one target with atheris, by coverage: `python tests/fuzz/driver.py TARGET FOLDER [options of libFuzzer]`.

FOLDER keeps the corpus from call to call, and gets what was found as `crash-*`, `timeout-*` or `oom-*`. Ends with 0,
or at the first finding with libFuzzer's exit status. `python -m bench soak fuzz` calls this.
"""

import importlib
import random
import sys
from pathlib import Path
from typing import Any

atheris: Any = importlib.import_module("atheris")  # of the extra `fuzz`, so type checkers may not have it
READERS = ("fastcifar", "tomllib", "json", "pickle", "tarfile", "zipfile", "gzip", "lzma", "_compression", "PIL")
PLUGINS = [f"{name}ImagePlugin" for name in ("Bmp", "Gif", "Jpeg", "Png", "Ppm", "Tiff", "WebP")]
BY_HAND = {"config": 0.05}
"""How often an input is mutated by `mutators.py`; tyro takes 30 ms for every file that can be read."""


def main(arguments: list[str]) -> None:
    """Instruments what reads, writes the seeds into the corpus and hands over to libFuzzer, which ends the process."""
    target, folder = arguments[0], Path(arguments[1])
    for name in [name for name in sys.modules if name.split(".")[0] in READERS]:
        del sys.modules[name]  # or they would stay without instruments
    with atheris.instrument_imports(include=list(READERS)):
        from targets import try_input

        for name in PLUGINS:  # which Pillow imports when it first needs them
            importlib.import_module(f"PIL.{name}")
    seeds = importlib.import_module("seeds").seeds(target)
    corpus = folder / "corpus"
    corpus.mkdir(parents=True, exist_ok=True)
    for number, content in enumerate(seeds):
        (corpus / f"seed-{number}").write_bytes(content)
    for path in (Path(__file__).parent / "corpus" / target).glob("*"):
        (corpus / path.name).write_bytes(path.read_bytes())
    options = [f"-artifact_prefix={folder}/", "-print_final_stats=1", *arguments[2:]]

    def one(content: bytes) -> None:
        try_input(target, content)

    by_hand: Any = importlib.import_module("mutators").MUTATORS.get(target)

    def mutated(content: bytes, largest: int, seed: int) -> bytes:
        generator = random.Random(seed)
        if by_hand is not None and generator.random() < BY_HAND.get(target, 0.8):
            try:
                return by_hand(content, generator)[:largest]
            except (ValueError, RecursionError):  # it was not readable
                pass
        return atheris.Mutate(content, largest)

    atheris.Setup([sys.argv[0], str(corpus), *options], one, custom_mutator=mutated)
    atheris.Fuzz()


if __name__ == "__main__":
    main(sys.argv[1:])
