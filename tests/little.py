"""Little nets with weights, and pictures, for the commands that run nets. Expected answers are worked out beside the tests."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from click.testing import CliRunner, Result

import inspector
from cli.main import main
from inspector.caffemodel import write_model

HEIGHT, WIDTH, CLASSES = 5, 7, 4

# grey 5 x 7 -> 4 scores
CLASSIFIER = f"""
name: "little"
layer {{ name: "in" type: "Input" top: "data" input_param {{ shape {{ dim: 6 dim: 1 dim: {HEIGHT} dim: {WIDTH} }} }} }}
layer {{ name: "ip" type: "InnerProduct" bottom: "data" top: "ip" inner_product_param {{ num_output: {CLASSES} }} }}
layer {{ name: "relu" type: "ReLU" bottom: "ip" top: "ip" }}
layer {{ name: "prob" type: "Softmax" bottom: "ip" top: "prob" }}
"""

# BGR of any size -> the same: a 1 x 1 convolution that changes nothing
SAME = """
name: "same"
layer { name: "in" type: "Input" top: "data" input_param { shape { dim: 2 dim: 3 dim: 6 dim: 8 } } }
layer { name: "conv" type: "Convolution" bottom: "data" top: "out" convolution_param { num_output: 3 kernel_size: 1 } }
"""


def saved(folder: Path, text: str, name: str = "little", **arrays: list[np.ndarray]) -> tuple[str, str]:
    """A prototxt and a file of weights; layers that are not named get random ones."""
    model, weights = folder / f"{name}.prototxt", folder / f"{name}.caffemodel"
    model.write_text(text)
    net = inspector.load(model)
    rng = np.random.default_rng(len(text))
    for layer, params in net.params.items():
        arrays.setdefault(layer, [rng.standard_normal(param.shape).astype(np.float32) * 0.3 for param in params])
    write_model(weights, net.graph.proto, arrays)
    return str(model), str(weights)


def picture(path: Path, seed: int, height: int = HEIGHT, width: int = WIDTH, channels: int = 1) -> np.ndarray:
    """Write an image of random bytes, as PNG: height x width, or height x width x 3 (RGB)."""
    from PIL import Image

    shape = (height, width) if channels == 1 else (height, width, channels)
    pixels = np.random.default_rng(seed).integers(0, 256, shape, np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return pixels


def scores(weights: str, rows: np.ndarray) -> np.ndarray:
    """What CLASSIFIER answers to rows of 35 values, in float64."""
    from inspector.caffemodel import open_weights

    [stored] = [layer for layer in open_weights(weights).layers if layer.name == "ip"]
    matrix, bias = (blob.read().astype(np.float64) for blob in stored.blobs)
    z = np.maximum(rows.reshape(len(rows), -1) @ matrix.reshape(CLASSES, -1).T + bias.reshape(-1), 0)
    e = np.exp(z - z.max(1, keepdims=True))
    return e / e.sum(1, keepdims=True)


def run(*arguments: object) -> Result:
    """The command, in this process."""
    return CliRunner().invoke(main, [str(argument) for argument in arguments])
