"""What `run` and `extract` share: weights and images on the command line, and what happens to images on their way in."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from inspector.errors import Finding, InspectorError, UnreadableError

from . import options, show

if TYPE_CHECKING:
    from inspector import Net
    from inspector.recipe import Recipe

F = TypeVar("F", bound=Callable[..., Any])

PRESETS = ("caffenet", "googlenet", "vgg", "resnet", "mobilenet", "squeezenet", "lenet", "none")
SETTINGS = ("preset", "resize", "crop", "mean", "raw_scale", "input_scale", "mirror", "channel_order", "gray")


def image_options(command: F) -> F:
    """--preset and what it consists of, which reach the command as `settings`; None is what nobody said."""

    @wraps(command)
    def bundled(**rest: Any) -> Any:
        return command(settings={name: rest.pop(name) for name in SETTINGS}, **rest)

    order = click.Choice(["BGR", "RGB"], case_sensitive=False)
    for option in (
        click.option("--gray/--color-image", default=None, help="Make the image grey; a net with 1 channel does so by itself."),
        click.option("--channel-order", type=order, help="Order of the net's channels; BGR unless said otherwise."),
        click.option("--mirror/--no-mirror", default=None, help="Let left and right change places."),
        click.option("--input-scale", type=float, metavar="FACTOR", help="Multiply by this after the mean, such as 0.017."),
        click.option("--raw-scale", type=float, metavar="MOST", help="Pixels go from 0 to this: 255 unless said otherwise."),
        click.option("--mean", metavar="FILE|B,G,R", help="Subtract a mean: a .npy or .binaryproto, or numbers for the channels."),
        click.option("--crop", type=click.Choice(["center", "oversample"]), help="Crop to the input, by centre or ten times."),
        click.option("--resize", metavar="HxW|keep", help="Resize to this, else to the input; or keep sizes."),
        click.option("--preset", type=click.Choice(PRESETS), help="The usual settings of a family of nets."),
    ):
        bundled = option(bundled)
    return bundled  # type: ignore[return-value]  # the same command with other keywords


def split(model: str, rest: Sequence[str], weights: str | None) -> tuple[Recipe, str | None, list[str]]:
    """The recipe of a MODEL, its weights, and the images, of what stands behind the MODEL.

    The first is the weights, unless it is a folder or named as an image, or they are given otherwise: by --weights, or by a model
    that ships with its own.
    """
    from inspector import recipe as recipes
    from inspector.sources.picture import SUFFIXES

    recipe = recipes.of(model)
    images = list(rest)
    pictures = bool(images) and (Path(images[0]).suffix.lower() in SUFFIXES or Path(images[0]).is_dir())
    if weights is None and images and not pictures and (recipe.weights is None or _is_weights(images[0])):
        if recipe.weights is None and model != "-" and options.is_weights(model) and not _is_weights(images[0]):
            return recipe, model, images  # a caffemodel holds the net and its weights
        weights = images.pop(0)
    if weights is None and recipe.weights is None and model != "-" and options.is_weights(model):
        weights = model
    return recipe, weights or recipe.weights, images


def _is_weights(name: str) -> bool:
    """Whether a file holds weights, and no image, which is binary too."""
    from inspector.files import head
    from inspector.foreign import HDF5_SIGNATURE, recognise

    if not options.is_weights(name):
        return False
    start, size = head(name, 4096)
    return start.startswith(HDF5_SIGNATURE) or recognise(start, size) is None


def load_weights(net: Net, weights: str | None) -> None:
    """Give the net its weights; what gets none is said. Raises InspectorError for a net with parameters and no file of them."""
    if weights is None:
        if net.params:
            message = "the net has parameters, and no weights are given"
            raise InspectorError(message, code="no-weights", remedy="name a .caffemodel behind the MODEL")
        return
    missing = net.load_weights(weights).missing
    if missing:
        named = ", ".join(f"'{name}'" for name in missing[:5]) + (", ..." if len(missing) > 5 else "")
        message = f"{len(missing)} layer(s) get nothing from '{weights}' and keep what their fillers say: {named}"
        show.say(Finding("weights-missing", message, "warning"), "warning")


def no_images() -> UnreadableError:
    """Not one could be read."""
    return UnreadableError("no image could be read", code="no-images")


@contextmanager
def outputs(net: Net) -> Iterator[None]:
    """What the net's HDF5Output layers write while it runs, and which files that were in the end."""
    with net.open_outputs() as files:
        yield
    for name in files:
        show.remark(f"wrote '{name}'")
