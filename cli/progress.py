"""How far a long command has got, as one line on stderr that comes and goes; nothing where stderr is no terminal."""

from __future__ import annotations

import sys
from time import monotonic
from types import TracebackType
from typing import Self, TextIO

WIDTH = 24  # of the bar
PAUSE = 0.1  # seconds between two drawings


class Progress:
    """`step` counts, `clear` makes room for other output; use it in a `with`, which leaves no trace."""

    def __init__(self, what: str, total: int, done: int = 0) -> None:
        self._what = what
        self._total = total
        self._done = self._before = done
        self._began = monotonic()
        self._drawn = -1.0
        self._shown = 0
        self._on = sys.stderr.isatty()

    def step(self, count: int = 1) -> None:
        """So many more are done."""
        self._done += count
        now = monotonic()
        if self._on and now - self._drawn >= PAUSE:
            self._drawn = now
            self._draw(now - self._began)

    def _draw(self, seconds: float) -> None:
        full = WIDTH * self._done // max(self._total, 1)
        fresh = self._done - self._before
        left = seconds / fresh * (self._total - self._done) if fresh else 0
        bar = "#" * full + "." * (WIDTH - full)
        text = f"{bar} {self._done}/{self._total} {self._what}, {left:.0f} s left"
        sys.stderr.write(f"\r{text.ljust(self._shown)}")
        sys.stderr.flush()
        self._shown = len(text)

    def clear(self, stream: TextIO | None = None) -> None:
        """Take the line away, until a later step, for what comes on stderr, or on a `stream` that may lead elsewhere."""
        if self._shown and (stream is None or stream.isatty()):
            sys.stderr.write("\r" + " " * self._shown + "\r")
            sys.stderr.flush()
            self._shown = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.clear()
