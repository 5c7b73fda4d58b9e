"""Where boxes stand: a layered layout in the manner of Sugiyama, for graphs that are mostly chains with short side ways.

Ranks by the longest path; long edges get a bend in every rank that they cross; bends and boxes are put in order by the barycentre
of their neighbours; places along a rank are the least squares closest to those of the neighbours (pool adjacent violators), so
that chains come out straight and nothing overlaps. (Sugiyama, Tagawa and Toda 1981; Gansner et al. 1993 for the order of the
phases.)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise

SWEEPS = 12  # over the ranks, down and up again; the pictures do not change visibly after about ten


@dataclass(slots=True)
class Spot:
    """A box or a bend: its size, its rank, and its centre."""

    width: float
    height: float
    rank: int = 0
    x: float = 0.0
    y: float = 0.0


@dataclass(frozen=True, slots=True)
class Layout:
    """Centres of the boxes, the points of each edge from box to box (bends only, ends not included), and the size of it all."""

    places: list[tuple[float, float]]
    bends: list[list[tuple[float, float]]]
    width: float
    height: float


def layered(
    sizes: Sequence[tuple[float, float]],
    edges: Sequence[tuple[int, int]],
    *,
    gap: float = 24,
    rank_gap: float = 44,
    bend: float = 10,
) -> Layout:
    """Place boxes of `sizes` (width, height) with `edges` (from, to), top to bottom; the graph must have no cycle.

    `gap` is between neighbours of a rank, `rank_gap` between ranks, `bend` the room of an edge that passes through a rank.
    """
    count = len(sizes)
    spots = [Spot(width, height) for width, height in sizes]
    for i, rank in enumerate(_ranks(count, edges)):
        spots[i].rank = rank
    chains: list[list[int]] = []  # of each edge: box, bends, box
    for start, end in edges:
        chain = [start]
        for rank in range(spots[start].rank + 1, spots[end].rank):
            chain.append(len(spots))
            spots.append(Spot(bend, 0, rank))
        chains.append([*chain, end])
    above: list[list[int]] = [[] for _ in spots]
    below: list[list[int]] = [[] for _ in spots]
    for chain in chains:
        for upper, lower in pairwise(chain):
            below[upper].append(lower)
            above[lower].append(upper)
    ranks: list[list[int]] = [[] for _ in range(max((spot.rank for spot in spots), default=-1) + 1)]
    for i, spot in enumerate(spots):
        ranks[spot.rank].append(i)
    _order(ranks, above, below)
    _place(spots, ranks, above, below, gap)
    y = 0.0
    for rank_members in ranks:
        height = max(spots[i].height for i in rank_members)
        for i in rank_members:
            spots[i].y = y + height / 2
            if i >= count:
                spots[i].height = height  # an edge passes straight between the boxes of a rank
        y += height + rank_gap
    left = min((spot.x - spot.width / 2 for spot in spots), default=0.0)
    for spot in spots:
        spot.x -= left
    bends = [[(spots[i].x, spots[i].y + side * spots[i].height / 2) for i in chain[1:-1] for side in (-1, 1)] for chain in chains]
    width = max((spot.x + spot.width / 2 for spot in spots), default=0.0)
    return Layout([(spot.x, spot.y) for spot in spots[:count]], bends, width, max(0.0, y - rank_gap))


def _ranks(count: int, edges: Sequence[tuple[int, int]]) -> list[int]:
    """Longest path from a source; sources move down to just above their first reader: labels are read at the end."""
    below: list[list[int]] = [[] for _ in range(count)]
    left = [0] * count
    for start, end in edges:
        below[start].append(end)
        left[end] += 1
    sources = [i for i in range(count) if not left[i]]
    ranks = [0] * count
    ready = list(sources)
    while ready:
        i = ready.pop()
        for j in below[i]:
            ranks[j] = max(ranks[j], ranks[i] + 1)
            left[j] -= 1
            if not left[j]:
                ready.append(j)
    for i in sources:
        if below[i]:
            ranks[i] = min(ranks[j] for j in below[i]) - 1
    return ranks


def _order(ranks: list[list[int]], above: list[list[int]], below: list[list[int]]) -> None:
    """Order within each rank by the barycentre of neighbours, sweeping down and up; keeps the order with the fewest crossings."""
    best, fewest = [list(rank) for rank in ranks], _crossings(ranks, below)
    for sweep in range(SWEEPS):
        if not fewest:
            break
        down = sweep % 2 == 0
        for r in range(1, len(ranks)) if down else range(len(ranks) - 2, -1, -1):
            fixed = {i: place for place, i in enumerate(ranks[r - 1] if down else ranks[r + 1])}
            neighbours = above if down else below
            here = {i: place for place, i in enumerate(ranks[r])}

            def centre(
                i: int, neighbours: list[list[int]] = neighbours, fixed: dict[int, int] = fixed, here: dict[int, int] = here
            ) -> float:
                places = [fixed[j] for j in neighbours[i]]
                return sum(places) / len(places) if places else here[i]

            ranks[r].sort(key=centre)
        crossings = _crossings(ranks, below)
        if crossings < fewest:
            best, fewest = [list(rank) for rank in ranks], crossings
    ranks[:] = best


def _crossings(ranks: list[list[int]], below: list[list[int]]) -> int:
    """Pairs of edges that cross between neighbouring ranks."""
    total = 0
    for upper, lower in pairwise(ranks):
        place = {i: p for p, i in enumerate(lower)}
        ends = [p for i in upper for p in sorted(place[j] for j in below[i])]
        total += sum(1 for a, end in enumerate(ends) for later in ends[a + 1 :] if later < end) if len(ends) > 1 else 0
    return total


def _place(spots: list[Spot], ranks: list[list[int]], above: list[list[int]], below: list[list[int]], gap: float) -> None:
    """Places along each rank, from left to right; first packed, then drawn to the neighbours' places sweep by sweep."""
    for rank in ranks:
        x = 0.0
        for i in rank:
            spots[i].x = x + spots[i].width / 2
            x += spots[i].width + gap
        middle = (x - gap) / 2
        for i in rank:
            spots[i].x -= middle
    for sweep in range(SWEEPS):
        order = ranks if sweep % 2 == 0 else ranks[::-1]
        for rank in order:
            wanted, weights = [], []
            for i in rank:
                near = above[i] + below[i]  # both, or long nets would drift to one side
                places = [spots[j].x for j in near] or [spots[i].x]
                wanted.append(sum(places) / len(places))
                # a bend that follows a bend should stand right under it
                weights.append(8.0 if spots[i].height == 0 else 1.0 + len(near))
            for i, x in zip(rank, _apart(wanted, weights, [spots[i].width for i in rank], gap), strict=True):
                spots[i].x = x

    # a run of ranks with one box each stands upright, under or over the one that has the most neighbours
    for alone, run in groupby(ranks, key=lambda rank: len(rank) == 1):
        members = [rank[0] for rank in run]
        if alone:
            x = spots[max(members, key=lambda i: len(above[i]) + len(below[i]))].x
            for i in members:
                spots[i].x = x


def _apart(wanted: Sequence[float], weights: Sequence[float], widths: Sequence[float], gap: float) -> list[float]:
    """The places closest to `wanted` (weighted least squares) that keep the order and `gap`: pool adjacent violators."""
    offsets = [0.0]
    for left, right in pairwise(widths):
        offsets.append(offsets[-1] + (left + right) / 2 + gap)
    pools: list[list[float]] = []  # mean, weight, members
    for x, weight, offset in zip(wanted, weights, offsets, strict=False):
        pools.append([x - offset, weight, 1])
        while len(pools) > 1 and pools[-2][0] > pools[-1][0]:
            mean, total, members = pools.pop()
            last = pools[-1]
            last[0] = (last[0] * last[1] + mean * total) / (last[1] + total)
            last[1] += total
            last[2] += members
    flat = [pool[0] for pool in pools for _ in range(int(pool[2]))]
    return [x + offset for x, offset in zip(flat, offsets, strict=False)]
