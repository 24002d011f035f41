"""Untrusted input is read, or refused with UserError or RunFailedError, in bounded memory.

`corpus/` holds inputs that once failed, or might, under names that describe them.
"""

import contextlib
import math
import random
from pathlib import Path

import pytest
from campaign import finding, run_target
from hypothesis import given, settings
from hypothesis import strategies as st
from mutators import MUTATORS
from seeds import seeds
from targets import TARGETS, try_input

CORPUS = Path(__file__).parent / "corpus"
MAX_MIB = 1024.0


def memory_mib(field: str) -> float:
    """VmRSS, or VmHWM (its peak since `forget_peak`), in MiB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(field)).split()[1]) / 1024


def forget_peak() -> None:
    Path("/proc/self/clear_refs").write_text("5")


@pytest.mark.timeout(60)
@pytest.mark.parametrize("target", TARGETS)
def test_corpus_is_read_or_refused(target: str):
    for path in sorted((CORPUS / target).iterdir()):
        forget_peak()
        before = memory_mib("VmRSS")
        text = try_input(target, path.read_bytes())
        assert memory_mib("VmHWM") - before < MAX_MIB, path
        assert text is None or len(text) < 2000, path


@pytest.mark.parametrize("target", TARGETS)
def test_every_target_reads_a_seed(target: str):
    texts = [try_input(target, content) for content in seeds(target)]
    assert None in texts or (target == "verified" and "is damaged" in str(texts))


@pytest.mark.parametrize("target", TARGETS)
@settings(max_examples=200, deadline=None)
@given(
    noise=st.none() | st.binary(max_size=300),
    number=st.integers(0, 2**32),
    flips=st.lists(st.tuples(st.integers(0, 2**16), st.integers(0, 255)), max_size=4),
)
def test_noise_and_mutations_are_read_or_refused(
    target: str, noise: bytes | None, number: int, flips: list[tuple[int, int]]
):
    generator = random.Random(number)
    content = bytearray(generator.choice(seeds(target)) if noise is None else noise)
    for position, value in flips if content else ():
        content[position % len(content)] = value
    if target in MUTATORS:
        with contextlib.suppress(ValueError, RecursionError):  # no longer valid JSON or TOML
            content = MUTATORS[target](bytes(content), generator)
    try_input(target, bytes(content))


def test_a_finding_is_one_line():
    text = "Traceback:\n  ValueError: 1\nValueError: 1\n== ERROR: libFuzzer: target exited\nTest unit written to y\n"
    assert finding(text) == "ValueError: 1; == ERROR: libFuzzer: target exited; Test unit written to y"


@pytest.mark.slow
@pytest.mark.parametrize("target", TARGETS)
def test_a_fuzzer_finds_nothing(target: str, tmp_path: Path):
    pytest.importorskip("atheris", reason="the extra `fuzz` is not installed")
    tally = run_target(target, 10_000, tmp_path, math.inf)
    assert tally.findings == []
    assert tally.inputs >= 10_000
    assert tally.edges > 0
