"""Makes everything that was learned here: databases of digits, the training, its log, and the sample images.

    python models/lenet_digits/make.py WORK_FOLDER

It needs alexinspect[images,data] and scikit-learn, which carries 1,797 real handwritten digits of 8 x 8. A fifth of them is held
out and only tested on. The others, enlarged and bent in many ways, are mixed with digits that the strokes below draw. Everything is
seeded, so that the same versions of the libraries make the same weights; it takes some minutes.
"""

from __future__ import annotations

import math
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from itertools import pairwise
from pathlib import Path

import click
import numpy as np
from PIL import Image

from inspector.sources import datum, lmdb

HERE = Path(__file__).resolve().parent
SIZE, BOX = 28, 20  # pixels of an image, and of the digit in its middle, as in MNIST
VARIANTS, DRAWN, DRAWN_TEST = 10, 30_000, 1_000  # of each real digit; of our own
SPLIT, TRAIN, TEST, SAMPLES = range(4)  # streams of random numbers

Points = np.ndarray  # n x 2, x to the right and y down, a digit being 1 x 1
Field = Callable[[Points], Points]

# ---------------------------------------------------------------------------------------------------------------- strokes


def line(*points: tuple[float, float]) -> Points:
    """A polyline."""
    return np.array(points, float)


def arc(x: float, y: float, across: float, down: float, start: float, end: float) -> Points:
    """Part of an ellipse around (x, y); degrees, 0 to the right, 90 downwards."""
    angle = np.radians(np.linspace(start, end, 24))
    return np.stack([x + across * np.cos(angle), y + down * np.sin(angle)], 1)


def join(*parts: Points) -> Points:
    """One stroke after the other without lifting the pen."""
    return np.concatenate(parts)


SHAPES: list[list[list[Points]]] = [  # by digit the ways to write it, each some strokes
    [[arc(0.5, 0.5, 0.36, 0.5, -100, 262)], [arc(0.5, 0.5, 0.46, 0.5, -70, 296)]],
    [
        [line((0.5, 0), (0.5, 1))],
        [line((0.28, 0.24), (0.52, 0), (0.52, 1))],
        [line((0.3, 0.22), (0.52, 0), (0.52, 1)), line((0.25, 1), (0.8, 1))],
    ],
    [
        [join(arc(0.48, 0.29, 0.34, 0.29, 190, 380), line((0.5, 0.68), (0.1, 1), (0.92, 1)))],
        [join(arc(0.48, 0.27, 0.32, 0.27, 200, 400), arc(0.26, 0.86, 0.15, 0.12, -40, -330), line((0.5, 0.9), (0.95, 0.97)))],
    ],
    [
        [join(arc(0.45, 0.25, 0.34, 0.25, 200, 450), arc(0.45, 0.75, 0.4, 0.25, -90, 160))],
        [join(line((0.12, 0), (0.85, 0), (0.45, 0.4)), arc(0.45, 0.7, 0.4, 0.3, -90, 150))],
    ],
    [
        [line((0.62, 0), (0.06, 0.66), (0.95, 0.66)), line((0.66, 0.36), (0.66, 1))],
        [line((0.16, 0), (0.1, 0.55), (0.88, 0.52)), line((0.8, 0.02), (0.7, 1))],
        [line((0.66, 1), (0.66, 0), (0.05, 0.68), (0.95, 0.68))],
    ],
    [
        [join(line((0.88, 0), (0.24, 0), (0.18, 0.44)), arc(0.45, 0.7, 0.4, 0.3, 230, 510))],
        [join(line((0.22, 0), (0.2, 0.42)), arc(0.42, 0.68, 0.38, 0.32, 240, 500)), line((0.22, 0), (0.9, 0.03))],
    ],
    [
        [join(line((0.72, 0), (0.42, 0.2), (0.2, 0.5)), arc(0.5, 0.7, 0.36, 0.3, 180, 545))],
        [join(arc(0.8, 0.62, 0.68, 0.62, 250, 185), arc(0.48, 0.74, 0.36, 0.26, 180, 530))],
    ],
    [
        [line((0.08, 0.02), (0.9, 0), (0.42, 1))],
        [line((0.08, 0.02), (0.92, 0), (0.4, 1)), line((0.28, 0.5), (0.82, 0.48))],
        [line((0.1, 0.2), (0.12, 0), (0.9, 0.03), (0.6, 0.45), (0.45, 1))],
    ],
    [
        [arc(0.5, 0.25, 0.3, 0.25, -90, 270), arc(0.5, 0.75, 0.38, 0.25, -90, 270)],
        [join(arc(0.5, 0.25, 0.32, 0.25, -40, -270), arc(0.5, 0.75, 0.36, 0.25, -90, 220), line((0.75, 0.1)))],
    ],
    [
        [join(arc(0.48, 0.29, 0.34, 0.29, 0, -360), line((0.8, 0.6), (0.7, 1)))],
        [join(arc(0.48, 0.29, 0.36, 0.29, 0, -360), arc(0.3, 0.4, 0.53, 0.6, 0, 100))],
    ],
]


def elastic(rng: np.random.Generator, strength: float) -> Field:
    """A smooth random field of displacements: a few long waves."""
    waves = rng.uniform(-1.2, 1.2, (4, 2)) * math.tau
    phases = rng.uniform(0, math.tau, 4)
    amounts = rng.normal(0, strength, (4, 2))
    return lambda points: np.sin(points @ waves.T + phases) @ amounts


def bending(rng: np.random.Generator) -> np.ndarray:
    """Another width, slant and turn, as a matrix."""
    turn, slant = rng.normal(0, 0.12), rng.normal(0.12, 0.22)
    rotation = np.array([[math.cos(turn), -math.sin(turn)], [math.sin(turn), math.cos(turn)]])
    return rotation @ np.array([[rng.uniform(0.55, 1.15), -slant], [0, 1]])


def dense(stroke: Points, step: float = 0.03) -> Points:
    """The same polyline with points so close that it can be bent, and that a round pen leaves no gaps between them."""
    pieces = [stroke[:1]]
    for a, b in pairwise(stroke):
        count = max(1, math.ceil(float(np.hypot(*(b - a))) / step))
        pieces.append(a + (b - a) * (np.arange(1, count + 1) / count)[:, None])
    return np.concatenate(pieces)


def draw(rng: np.random.Generator, digit: int) -> np.ndarray:
    """A digit as somebody might write it: 28 x 28, 0 to 255."""
    ways = SHAPES[digit]
    strokes = [stroke + rng.normal(0, 0.02, stroke.shape if len(stroke) < 8 else 2) for stroke in ways[rng.integers(len(ways))]]
    matrix, field, shake = bending(rng), elastic(rng, 0.035), elastic(rng, 0.012)
    placed = []
    for stroke in strokes:
        points = dense(stroke)
        placed.append((points + field(points) + shake(3 * points) - 0.5) @ matrix.T)
    everything = np.concatenate(placed)
    low, high = everything.min(0), everything.max(0)
    pen = rng.uniform(0.8, 2.3)  # half its width, in pixels
    scale = (BOX * rng.uniform(0.85, 1.2) - 2 * pen) / max(high - low)
    ink = trace((everything - (low + high) / 2) * scale + SIZE / 2, pen)
    return centred(ink * rng.uniform(0.8, 1), rng.normal(0, 1, 2)).round().astype(np.uint8)


def trace(points: Points, pen: float) -> np.ndarray:
    """Ink of a round pen that was at all these points: 1 nearer than it is wide, falling to 0 within a pixel."""
    across, down = ((np.arange(SIZE)[:, None] + 0.5 - points[:, i]) ** 2 for i in (0, 1))
    distance = np.sqrt((down[:, None] + across).min(-1))
    return np.clip(pen + 0.5 - distance, 0, 1)


# ---------------------------------------------------------------------------------------------------------------- images


def sampled(image: np.ndarray, at: Points) -> np.ndarray:
    """Values of an image between its pixels, 0 outside."""
    padded = np.pad(image, 1)
    x, y = (np.clip(at[..., i] + 0.5, 0, size - 1.001) for i, size in ((0, padded.shape[1]), (1, padded.shape[0])))
    column, row = x.astype(int), y.astype(int)
    right, below = x - column, y - row
    upper = padded[row, column] * (1 - right) + padded[row, column + 1] * right
    lower = padded[row + 1, column] * (1 - right) + padded[row + 1, column + 1] * right
    return upper * (1 - below) + lower * below


def pixels() -> Points:
    return np.stack(np.meshgrid(np.arange(SIZE) + 0.5, np.arange(SIZE) + 0.5), -1)


def centred(ink: np.ndarray, shift: np.ndarray) -> np.ndarray:
    """Ink of 0 to 1 as pixels of 0 to 255, its mass in the middle, as in MNIST, but for `shift`."""
    mass = (pixels() * ink[..., None]).sum((0, 1)) / max(ink.sum(), 1e-9)
    return np.clip(sampled(ink, pixels() + mass - SIZE / 2 - shift), 0, 1) * 255


def enlarged(image: np.ndarray, gain: float = 1.35, field: Field | None = None, matrix: np.ndarray | None = None) -> np.ndarray:
    """A real digit of 8 x 8, 0 to 16, as ink of 28 x 28; bent by a field and a matrix, if they are given."""
    large = np.asarray(Image.fromarray((image / 16).astype(np.float32)).resize((BOX, BOX), Image.Resampling.BICUBIC))
    at = (pixels() - SIZE / 2) / BOX
    if matrix is not None:
        at = at @ matrix.T
    if field is not None:
        at = at + field(at.reshape(-1, 2)).reshape(at.shape)
    return np.clip(sampled(large, at * BOX + BOX / 2) * gain, 0, 1)


def plain(image: np.ndarray) -> np.ndarray:
    """A real digit as it is, enlarged: what the net is tested on."""
    return centred(enlarged(image), np.zeros(2)).round().astype(np.uint8)


def varied(rng: np.random.Generator, image: np.ndarray) -> np.ndarray:
    """A real digit, enlarged and bent."""
    size = rng.uniform(0.95, 1.2, 2)
    matrix = np.diag(size) + rng.normal(0, 0.1, (2, 2)) * (1 - np.eye(2))
    ink = enlarged(image, rng.uniform(1.1, 1.9), elastic(rng, 0.02), matrix)
    return centred(ink, rng.normal(0, 0.7, 2)).round().astype(np.uint8)


# ---------------------------------------------------------------------------------------------------------------- databases


def write(path: Path, images: Iterable[tuple[np.ndarray, int]]) -> None:
    """A database that Caffe reads."""
    shutil.rmtree(path, ignore_errors=True)
    with lmdb.replacing(path) as database:
        for i, (image, label) in enumerate(images):
            record = datum.from_image(image[..., None], label)
            database.put(f"{i:08d}".encode(), record.SerializeToString())
    click.echo(f"{path.name}: {i + 1} images")


def held_out(targets: np.ndarray) -> np.ndarray:
    """Which of the real digits are tested on: a fifth, drawn by lot."""
    order = np.random.default_rng([28, SPLIT]).permutation(len(targets))
    mask = np.zeros(len(targets), bool)
    mask[order[: -(-len(targets) // 5)]] = True
    return mask


def training(images: np.ndarray, targets: np.ndarray) -> Iterator[tuple[np.ndarray, int]]:
    """Variants of real digits and drawn ones, mixed."""
    rng = np.random.default_rng([28, TRAIN])
    for i in rng.permutation(len(images) * VARIANTS + DRAWN):
        if i < DRAWN:
            yield draw(rng, int(i) % 10), int(i) % 10
        else:
            which = (int(i) - DRAWN) % len(images)
            yield varied(rng, images[which]), int(targets[which])


def samples() -> list[np.ndarray]:
    """Drawn digits to show the net with, from 0 to 9."""
    rng = np.random.default_rng([28, SAMPLES])
    return [draw(rng, digit) for digit in range(10)]


@click.command()
@click.argument("work", type=click.Path(path_type=Path))
def main(work: Path) -> None:
    """Make the databases in WORK, train there, and put weights, log and samples beside this script."""
    from sklearn.datasets import load_digits

    work.mkdir(parents=True, exist_ok=True)
    digits = load_digits()
    test = held_out(digits.target)
    write(work / "real_lmdb", ((plain(image), int(label)) for image, label in zip(digits.images[test], digits.target[test])))
    rng = np.random.default_rng([28, TEST])
    write(work / "drawn_lmdb", ((draw(rng, i % 10), i % 10) for i in range(DRAWN_TEST)))
    write(work / "train_lmdb", training(digits.images[~test], digits.target[~test]))

    (HERE / "samples").mkdir(exist_ok=True)
    for digit, image in enumerate(samples()):
        Image.fromarray(image).save(HERE / "samples" / f"{digit}.png", optimize=True)

    for name in ("solver.prototxt", "train_val.prototxt"):
        shutil.copy(HERE / name, work)
    command = [
        Path(sys.executable).with_name("alexinspect"),
        "train",
        "solver.prototxt",
        "--csv",
        "train.csv",
        "--plot",
        "train.svg",
    ]
    log = subprocess.run([*command], cwd=work, check=True, capture_output=True, text=True).stdout
    (HERE / "train.log").write_text(log)
    shutil.copy(work / "train.svg", HERE)
    newest = max(work.glob("lenet_digits_iter_*.caffemodel"), key=lambda path: path.stat().st_mtime)
    shutil.copy(newest, HERE / "weights.caffemodel")
    accuracy = [line for line in log.splitlines() if "Test net output #0: accuracy" in line][-2:]
    click.echo("\n".join(["accuracy on held-out real digits, then on drawn ones:", *accuracy]))


if __name__ == "__main__":
    main()
