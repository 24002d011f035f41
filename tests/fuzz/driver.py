"""Fuzzes one target with atheris, guided by coverage: `python tests/fuzz/driver.py TARGET FOLDER [libFuzzer options]`.

FOLDER keeps the corpus between calls and gets the findings as `crash-*`, `timeout-*` or `oom-*`. Exits with 0, or at
the first finding with libFuzzer's exit status. `python -m bench soak fuzz` calls this.
"""

import importlib
import random
import sys
from pathlib import Path
from typing import Any

atheris: Any = importlib.import_module("atheris")  # from the extra `fuzz`, so it may be missing for type checkers
READERS = ("fastcifar", "tomllib", "json", "pickle", "tarfile", "zipfile", "gzip", "lzma", "_compression", "PIL")
PLUGINS = [f"{name}ImagePlugin" for name in ("Bmp", "Gif", "Jpeg", "Png", "Ppm", "Tiff", "WebP")]
OWN_MUTATIONS = {"config": 0.05}
"""The probability of a mutation by `mutators.py`, 0.8 by default. tyro takes 30 ms for every valid config file."""


def main(arguments: list[str]) -> None:
    """Instruments the readers, writes the seeds into the corpus and starts libFuzzer, which ends the process."""
    target, folder = arguments[0], Path(arguments[1])
    for name in [name for name in sys.modules if name.split(".")[0] in READERS]:
        del sys.modules[name]  # so that they are imported again, instrumented
    with atheris.instrument_imports(include=list(READERS)):
        from targets import try_input

        for name in PLUGINS:  # which Pillow imports lazily
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

    mutator: Any = importlib.import_module("mutators").MUTATORS.get(target)

    def mutated(content: bytes, largest: int, seed: int) -> bytes:
        generator = random.Random(seed)
        if mutator is not None and generator.random() < OWN_MUTATIONS.get(target, 0.8):
            try:
                return mutator(content, generator)[:largest]
            except (ValueError, RecursionError):  # not valid JSON or TOML
                pass
        return atheris.Mutate(content, largest)

    atheris.Setup([sys.argv[0], str(corpus), *options], one, custom_mutator=mutated)
    atheris.Fuzz()


if __name__ == "__main__":
    main(sys.argv[1:])
