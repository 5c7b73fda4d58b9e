"""Training lines of a log as two tables, TRAIN and TEST: iteration, seconds, learning rate, speed, loss and the nets' outputs.

What people have Caffe's tools/extra/parse_log.py for, with its columns first. The lines changed little: v0.99 scored tests as
`Test score #0: 0.57`, later versions name each output; speed is printed from rc4 on, and NVCaffe puts its GPUs in brackets first.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime

from .logparse import Record

Value = float | int | None
Row = dict[str, Value]

FIRST = ("NumIters", "Seconds", "LearningRate")
AVERAGE = "AverageLoss"  # the solver's, over average_loss iterations, where an output of the net is called loss
_FILES = ("solver", "sgd_solver", "parallel", "")  # the sources that say these lines; masked logs of web pages may name none
_LEAD = r"\s*(?:[\[(]\d+(?:\.\d+)?[\])])?\s*"  # which GPU says it
_NUMBER = r"([-+]?(?:\d+\.?\d*(?:e[-+]?\d+)?|nan|inf)|-nan)"
_ITERATION = re.compile(_LEAD + r"Iteration (\d{1,15})\b(.*)")
_LOSS = re.compile(r".*?, loss = " + _NUMBER, re.I)
_RATE = re.compile(r"\s*, lr = " + _NUMBER, re.I)
_SPEED = re.compile(r" \(" + _NUMBER + r" iter/s", re.I)
_TIME = re.compile(r" \(" + _NUMBER + r" s\)", re.I)
_OUTPUT = re.compile(_LEAD + r"(Train|Test) net output #(\d{1,9}): (?:(.+) = )?" + _NUMBER + r"(?: \(\*.*)?\s*$", re.I)
_SCORE = re.compile(_LEAD + r"Test score #(\d{1,9}): " + _NUMBER, re.I)
_TESTING = re.compile(r", Testing net(?: \(#(\d{1,9})\))?")


@dataclass(slots=True)
class Training:
    """Rows in the log's order; a value that the log does not tell is missing or None."""

    train: list[Row] = field(default_factory=list)
    test: list[Row] = field(default_factory=list)

    @staticmethod
    def columns(rows: Iterable[Row]) -> list[str]:
        """The columns of a table: Caffe's own first, outputs in the order in which they came up."""
        names = dict.fromkeys(name for row in rows for name in row)
        return [*FIRST, *(name for name in names if name not in FIRST)]


def read(records: Iterable[Record]) -> Training:
    """The training lines among a log's records. Lines of other kinds do not matter, nor does where the log begins or ends."""
    reader = _Reader()
    for record in records:
        if record.file.partition(".")[0] in _FILES:
            reader.take(record)
    for row in reader.found.train + reader.found.test:
        for name in FIRST:
            row.setdefault(name, None)
    return reader.found


class _Reader:
    def __init__(self) -> None:
        self.found = Training()
        self.said: set[str] = set()  # of the last TRAIN row
        self.rate: Value = None
        self.start: datetime | None = None
        self.now: datetime | None = None
        self.solving = False

    def take(self, record: Record) -> None:
        self._clock(record)
        text = record.text
        if text.startswith("Solving") and not self.solving:
            self.start, self.solving = self.now, True
        elif match := _ITERATION.match(text):
            self._iteration(int(match[1]), match[2])
        elif match := _OUTPUT.match(text):
            rows = self.found.train if match[1].lower() == "train" else self.found.test
            if rows:
                _put(rows[-1], match[3] or f"output {match[2]}", float(match[4]), average=rows is self.found.train)
        elif (match := _SCORE.match(text)) and self.found.test:
            _put(self.found.test[-1], f"score {match[1]}", float(match[2]))

    def _clock(self, record: Record) -> None:
        """The time of a record. Logs do not tell the year: a step back of months is a new year."""
        if not record.time:
            return
        day, _, clock = record.time.partition(" ")
        year = self.now.year if self.now else 2000
        try:
            moment = datetime.fromisoformat(f"{year}-{day[:2]}-{day[2:]}T{clock[:15].ljust(15, '0') if '.' in clock else clock}")
        except ValueError:  # 29 February of another year, or no date at all
            return
        if self.now is not None and (self.now - moment).days > 180:
            moment = moment.replace(year=year + 1) if (moment.month, moment.day) != (2, 29) else moment
        self.now = moment
        self.start = self.start or moment

    def _iteration(self, number: int, rest: str) -> None:
        if match := _TESTING.match(rest):
            row = self._begin(self.found.test, number)
            if match[1] is not None and int(match[1]):
                row["TestNet"] = int(match[1])
            return
        loss, rate = _LOSS.match(rest), _RATE.match(rest)
        if loss:
            row = self._row(number, "loss")
            row.setdefault("loss", float(loss[1]))
            if speed := _SPEED.match(rest):
                if float(speed[1]) > 1e-9:  # before the first iteration Caffe divides by what is not there yet
                    row["IterationsPerSecond"] = float(speed[1])
            elif (time := _TIME.match(rest)) and float(time[1]) > 0:
                row["IterationsPerSecond"] = round(1 / float(time[1]), 6)
        elif rate:
            self.rate = float(rate[1])
            self._row(number, "LearningRate")["LearningRate"] = self.rate

    def _row(self, number: int, name: str) -> Row:
        """The row of an iteration, which several lines fill; a new one where a line comes again, as after a restart.

        `caffe train` says its last loss once more, without the outputs.
        """
        rows = self.found.train
        if not rows or rows[-1]["NumIters"] != number or (name in self.said and name != "loss"):
            self.said.clear()
            self._begin(rows, number)
        self.said.add(name)
        return rows[-1]

    def _begin(self, rows: list[Row], number: int) -> Row:
        seconds = (self.now - self.start).total_seconds() if self.now and self.start else None
        rows.append({"NumIters": number, "Seconds": seconds, "LearningRate": self.rate})
        return rows[-1]


def _put(row: Row, name: str, value: float, *, average: bool = False) -> None:
    """An output's value. The elements of one blob come one by one under its name; a `loss` goes before the solver's average."""
    if average and name == "loss" and name in row and AVERAGE not in row:
        row[AVERAGE], row[name] = row[name], value
        return
    count = sum(other == name or re.fullmatch(re.escape(name) + r"\[\d+\]", other) is not None for other in row)
    row[f"{name}[{count}]" if count else name] = value
