"""A moment of fuzzing with fixed seeds. `python -m tests.fuzz` goes on for as long as one wants."""

from __future__ import annotations

import pytest

from .engine import fuzz
from .readers import readers

READERS = readers()


@pytest.mark.parametrize("name", READERS)
@pytest.mark.parametrize("seed", [1, 2])
def test_mutations(name: str, seed: int) -> None:
    tally = fuzz(READERS[name], seconds=30, runs=60, seed=seed)
    assert tally.refused < tally.runs  # some mutations are harmless
