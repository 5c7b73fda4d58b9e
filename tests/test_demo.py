"""The tour: all of it works in time and leaves nothing, and it says so when something does not."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from cli.main import TROUBLE, main
from inspector import shelf

STEPS = ["summary", "diff", "run", "weights"]


def commands(text: str) -> list[str]:
    return re.findall(r"^\$ alexinspect (\w+) ", text, re.M)


def test_the_tour_in_a_process_of_its_own(tmp_path: Path) -> None:
    pytest.importorskip("PIL")
    began = time.monotonic()
    command = [sys.executable, "-m", "inspector", "demo"]
    answer = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert answer.returncode == 0, answer.stdout + answer.stderr
    assert time.monotonic() - began < 5 * 4  # five seconds, and a machine that has other things to do
    assert commands(answer.stdout) == STEPS
    assert "60,965,224" in answer.stdout and re.search(r"0\.9\d+ +7 +seven", answer.stdout)
    assert "All of it worked." in answer.stdout
    assert not list(tmp_path.iterdir())


def test_the_picture_can_be_kept(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("PIL")
    assert not main(["demo", "--out", str(tmp_path / "here")], standalone_mode=False)
    assert [path.name for path in (tmp_path / "here").iterdir()] == ["filters.png"]
    assert commands(capsys.readouterr().out) == STEPS


def test_a_step_that_fails_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("caffenet", "lenet_digits"):
        shutil.copytree(shelf.folder() / name, tmp_path / name)
    (tmp_path / "lenet_digits" / "run.toml").write_text("weights = 'gone.caffemodel'")
    monkeypatch.setattr(shelf, "folder", lambda: tmp_path)
    assert main(["demo"], standalone_mode=False) == TROUBLE
    said = capsys.readouterr()
    assert commands(said.out) == STEPS
    assert "the tour did not get through: run" in said.err
    assert "All of it worked." not in said.out


def test_the_filters_fit_into_the_terminal(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    assert not main(["demo"], standalone_mode=False)
    sketch = capsys.readouterr().out.splitlines()[-7:-2]
    assert {len(line) for line in sketch} == {5 * 10 + 4 * 2}  # five filters, two letters a pixel, and gaps
