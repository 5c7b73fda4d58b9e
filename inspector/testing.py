"""What `caffe test` does: a net's outputs over batches of its own data, and their means. (tools/caffe.cpp)"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from .classify import check_fed
from .errors import InspectorError
from .lazy import np
from .sources import READERS

if TYPE_CHECKING:
    from .net import Net


@dataclass(slots=True)
class Score:
    """One value of one output blob: its sum over the batches so far, and the weight of its blob in the loss."""

    blob: str
    index: int  # in the blob
    weight: float
    total: float = 0.0
    values: list[float] = field(default_factory=list)  # one for each batch

    @property
    def mean(self) -> float:
        return self.total / len(self.values)


@dataclass(slots=True)
class Result:
    """Scores in the order of the net's outputs, and its losses, one for each batch."""

    scores: list[Score] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)

    @property
    def loss(self) -> float:
        """The mean of the whole net's loss, every weighted top counted, outputs or not."""
        return sum(self.losses) / len(self.losses)


def batches(net: Net, iterations: int, result: Result, *, check_numerics: bool = False) -> Iterator[int]:
    """Fill `result`, batch by batch; gives the number of each that is done.

    Raises InspectorError if a source is missing or broken, if an input has none, or if an output changes its size.
    """
    net.check()
    read = [top.name for node in net.layers if node.type in READERS and node.type != "MemoryData" for top in node.tops]
    check_fed(net, read)
    if not read and not any(node.type == "DummyData" for node in net.layers):
        raise InspectorError(
            "the net reads no data of its own", code="no-sources", remedy="use its train_val file, or `alexinspect run`"
        )
    # a blob and, where a later layer works on it in place, the value that carries the weight
    weighted = [
        (f"{top.name}@{node.name}" if node.name and net.blobs.get(top.name) is not top else top.name, weight)
        for node in net.layers
        for top, weight in zip(node.tops, node.loss_weights, strict=True)
        if weight
    ]
    weights = dict(weighted)
    wanted = list(dict.fromkeys([*net.outputs, *weights]))
    with net.open_sources() as feed:
        for i in range(iterations):
            values = net.forward(wanted, check_numerics=check_numerics, **feed.next())
            flat = {name: np.ravel(value) for name, value in values.items()}
            result.losses.append(float(sum(weight * flat[name].sum(dtype=np.float64) for name, weight in weighted)))
            _add(result, {name: flat[name].tolist() for name in net.outputs}, weights)
            yield i


def _add(result: Result, outputs: dict[str, list[float]], weights: dict[str, float]) -> None:
    if not result.scores:
        result.scores = [Score(blob, i, weights.get(blob, 0.0)) for blob, values in outputs.items() for i in range(len(values))]
    flat = [value for values in outputs.values() for value in values]
    if len(flat) != len(result.scores):
        message = f"the outputs had {len(result.scores)} values, and now they have {len(flat)}"
        raise InspectorError(message, code="mixed-sizes", remedy="scores of a batch must be as many for every batch")
    for score, value in zip(result.scores, flat, strict=True):
        score.total += value
        score.values.append(value)
