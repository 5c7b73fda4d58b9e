"""How a net wants to be run: its weights, the names of its classes, and what happens to images on their way in.

A model that ships says so in a file `run.toml` beside its deploy.prototxt, so that `alexinspect run NAME IMAGE` needs no more::

    weights = "weights.caffemodel"        # beside this file, like all paths in it
    labels = "labels.txt"
    [preprocessing]                       # the settings of the command's options
    preset = "lenet"
    resize = "256x256"                    # "keep": the net takes the size of each image
    mean = [104, 117, 123]                # or a file
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from . import shelf
from .errors import InspectorError, UnreadableError
from .files import read_bytes
from .preprocess import PRESETS, Preprocessing, Size

FILE = "run.toml"
KEEP = "keep"  # a resize that leaves every image as large as it is

_PLAIN = {"crop": str, "channel_order": str, "raw_scale": float, "input_scale": float, "mirror": bool, "gray": bool}


@dataclass(frozen=True, slots=True)
class Recipe:
    """Everything but the net and the images. With `keep` the net is reshaped to the size of each image."""

    weights: str | None = None
    labels: str | None = None
    preprocessing: Preprocessing = Preprocessing()  # noqa: RUF009  # frozen
    keep: bool = False

    def with_settings(self, settings: Mapping[str, Any], folder: Path | None = None) -> Recipe:
        """The same with other settings for images; a `preset` goes first, and None leaves a setting as it is.

        `folder` is where a mean file may lie. Raises InspectorError for settings that make no sense.
        """
        images, keep = self.preprocessing, self.keep
        given = {name: value for name, value in settings.items() if value is not None}
        if "preset" in given:
            images, keep = _preset(given.pop("preset")), False
        if "resize" in given:
            size = given.pop("resize")
            keep = size == KEEP
            images = replace(images, resize=None if keep else read_size(size))
        if "mean" in given:
            mean = given.pop("mean")
            mean = ",".join(map(str, mean)) if isinstance(mean, list) else str(mean)
            beside = (folder or Path()) / mean
            images = images.with_mean(str(beside) if folder and beside.is_file() else mean)
        for name, value in given.items():
            kind = _PLAIN.get(name)
            if kind is None:
                known = ", ".join(["preset", "resize", "mean", *_PLAIN])
                raise InspectorError(f"there is no setting '{name}' for images", code="setting", remedy=f"there are {known}")
            if not isinstance(value, kind) and not (kind is float and isinstance(value, int)):
                raise InspectorError(f"'{name}' is {value!r}, and it takes a {kind.__name__}", code="setting")
            changed: dict[str, Any] = {name: value}
            images = replace(images, **changed)
        return replace(self, preprocessing=images, keep=keep)


def _preset(name: str) -> Preprocessing:
    if name not in PRESETS:
        raise InspectorError(f"there is no preset '{name}'", code="setting", remedy=f"use {', '.join(PRESETS)}")
    return PRESETS[name]


def read_size(value: Any) -> Size:
    """A height and a width from `256x224`, `256` for both, or a list of the two."""
    match value:
        case int() | [int(), int()] if not isinstance(value, bool):
            return (value, value) if isinstance(value, int) else (value[0], value[1])
        case str() if found := re.fullmatch(r"(\d{1,6})(?:[x,×](\d{1,6}))?", value):
            return int(found[1]), int(found[2] or found[1])
    raise InspectorError(f"resize is {value!r}, which is no size", code="setting", remedy=f"use HEIGHTxWIDTH, or {KEEP}")


def of(model: str) -> Recipe:
    """The recipe of a model that ships, by its name or that of a file of it, such as `NAME/train_val`; else an empty one.

    Raises InspectorError for a run.toml that makes no sense.
    """
    name = model.partition("/")[0]
    path = shelf.folder() / name / FILE
    if name not in shelf.names() or not path.is_file() or Path(model).exists():
        return Recipe()
    return read(path)


def read(path: Path) -> Recipe:
    """A recipe from its file; a path in it must lead to something. Raises InspectorError, naming the file."""
    try:
        said = tomllib.loads(read_bytes(path).decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UnreadableError(f"'{path}' is no TOML: {error}", code="recipe") from None
    weights, labels = (_beside(path, said.pop(name, None), name) for name in ("weights", "labels"))
    settings = said.pop("preprocessing", {})
    if said or not isinstance(settings, dict):
        known = "weights, labels and [preprocessing]"
        raise InspectorError(
            f"'{path}': there is no '{next(iter(said), 'preprocessing')}' here", code="recipe", remedy=f"use {known}"
        )
    try:
        return Recipe(weights, labels).with_settings(settings, path.parent)
    except InspectorError as error:
        raise InspectorError(f"'{path}': {error}", code="recipe") from None


def _beside(recipe: Path, value: Any, name: str) -> str | None:
    """The path that a recipe names, from its own folder."""
    if value is None:
        return None
    if not isinstance(value, str) or not (recipe.parent / value).is_file():
        raise InspectorError(f"'{recipe}': {name} is {value!r}, and there is no such file beside it", code="recipe")
    return str(recipe.parent / value)
