"""Fixtures shared by all tests."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


def reference_folder() -> Path | None:
    """What real Caffe answered: $ALEXINSPECT_REFERENCE, else ../shared/reference beside the checkout; None where absent."""
    folder = Path(os.environ.get("ALEXINSPECT_REFERENCE", ROOT.parent / "shared" / "reference"))
    return folder if folder.is_dir() else None


@pytest.fixture(scope="session")
def reference() -> Path:
    """The reference folder; tests that ask for it skip where it is absent."""
    folder = reference_folder()
    if folder is None:
        pytest.skip("no reference folder: set ALEXINSPECT_REFERENCE to the answers of real Caffe")
    return folder
