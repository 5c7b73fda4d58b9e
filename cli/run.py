"""`alexinspect run`: answers of a net to images or arrays."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from inspector.errors import InspectorError
from inspector.tables import Paint, clean, listing

from . import images, options, show
from .options import How

if TYPE_CHECKING:
    from inspector import Net
    from inspector.classify import Output, Reporter, Runner
    from inspector.features import Spool
    from inspector.preprocess import Preprocessing

CELLS = ("image", "output", "shape", "rank", "class", "label", "score", "min", "mean", "max")


@click.command()
@click.argument("model", type=options.Model())
@click.argument("rest", nargs=-1, metavar="[WEIGHTS] [IMAGE]...")
@click.option("--weights", type=click.Path(), help="The weights, where the first file behind MODEL is an image already.")
@click.option("--labels", type=click.Path(), help="Names of the classes, one per line.")
@click.option("--top", type=click.IntRange(0), default=5, help="How many classes to show; 0 shows values.", show_default=True)
@images.image_options
@click.option("--batch", type=click.IntRange(1), help="Images at a time, instead of as many as the net was written for.")
@click.option("--input", "input_name", metavar="BLOB", help="The input that takes the images, where several could.")
@click.option("--npz", type=click.Path(), help="Feed the arrays of this file as they are, each to the input of its name.")
@click.option(
    "--blob", "blobs", multiple=True, metavar="BLOB[@LAYER]", help="Show or save this instead of the outputs (repeatable)."
)
@click.option("--out", type=click.Path(), metavar="X.npz", help="Save the blobs.")
@click.option("--save-image", type=click.Path(), metavar="FILE|FOLDER", help="Save outputs that are images, such as enlarged ones.")
@click.option(
    "--html",
    type=click.Path(dir_okay=False),
    metavar="FILE",
    help="A page of the net with the images, their answers, and --blob as tiles.",
)
@click.option("--check-numerics", is_flag=True, help="Stop at the first layer that makes a NaN or an infinite value.")
@options.engine_options
@options.net_options
@options.form("table", "json", "csv")
@options.color
def run(model: str, rest: tuple[str, ...], weights: str | None, how: How, **wishes: Any) -> int:
    """Run a net on images, or on arrays.

    IMAGE is a file, a folder, or a pattern such as 'photos/*.jpg'. Pixels go from 0 to 255 unless --raw-scale says otherwise; a
    --preset spells out the settings with which a family of nets was trained. What was done to the images is printed.

    A name of `alexinspect models` that ships with weights needs neither WEIGHTS nor settings. Where outputs are saved as images,
    the net takes the size of each image, unless --resize or --crop says otherwise.
    """
    recipe, weights, names = images.split(model, rest, weights)
    if not names and wishes["npz"] is None:
        raise InspectorError("names no image", code="no-images", remedy="name images, folders or patterns, or arrays with --npz")
    net = how.open(model)
    net.check()
    wishes["engine"].set(net)
    images.load_weights(net, weights)
    try:
        command = (_Images if names else _Arrays)(model, weights, net, recipe, names, **wishes)
        with images.outputs(net):
            return command.run()
    except InspectorError as error:
        if error.code != "not-finite":
            raise
        show.error(error)
        return 1


class _Command:
    """One run of the command: what was asked for, and what to print of it."""

    def __init__(self, model: str, weights: str | None, net: Net, recipe: Any, names: list[str], **wishes: Any) -> None:
        from inspector import classify
        from inspector.labels import read_labels

        self.wishes = wishes
        self.net = net
        self.model, self.weights = model, weights
        labels = wishes["labels"] or recipe.labels
        self.labels = read_labels(labels) if labels else []
        self.insist = wishes["labels"] is not None  # a model's own labels need not fit other blobs than its outputs
        self.arrays = classify.read_arrays(wishes["npz"], net) if wishes["npz"] else {}
        self.form = wishes["form"]

    def about(self) -> dict[str, Any]:
        """What the answers are of."""
        return {"model": self.model, "weights": self.weights}

    def head(self) -> Iterator[tuple[str, str]]:
        """The same for people."""
        yield "net", clean(self.model)
        if self.weights:
            yield "weights", clean(self.weights)

    def items(self) -> Iterator[tuple[str, list[Output]]]:
        """Every item and what its blobs say."""
        raise NotImplementedError

    def tail(self) -> dict[str, Any]:
        """What is known in the end."""
        return {}

    def print(self) -> None:
        if self.form == "json":
            answers = [{"image": name, "outputs": [_plain(output) for output in outputs]} for name, outputs in self.items()]
            show.json({**self.about(), "answers": answers, **self.tail()})
        elif self.form == "csv":
            show.csv(CELLS, (row for name, outputs in self.items() for row in _cells(name, outputs)))
        else:
            layout = show.layout()
            show.lines(listing(self.head(), width=layout["width"], paint=layout["paint"]))
            for name, outputs in self.items():
                show.lines(["", *_lines(name, outputs, layout["paint"])])


class _Images(_Command):
    def __init__(self, model: str, weights: str | None, net: Net, recipe: Any, names: list[str], **wishes: Any) -> None:
        super().__init__(model, weights, net, recipe, names, **wishes)
        from inspector.batches import find_images
        from inspector.classify import Reporter, Runner

        settings = wishes["settings"]
        if wishes["save_image"] and settings["preset"] is settings["resize"] is settings["crop"] is None:
            settings = {**settings, "resize": "keep"}
        self.asked = list(dict.fromkeys(wishes["blobs"])) or net.outputs
        self.runner: Runner = Runner(
            net,
            recipe.with_settings(settings),
            list(dict.fromkeys([*net.outputs, *self.asked])) if wishes["html"] else self.asked,  # the page shows the answers too
            input_name=wishes["input_name"],
            others=self.arrays,
            batch=wishes["batch"],
            check_numerics=wishes["check_numerics"],
        )
        self.paths = find_images(names)
        self.reporter: Reporter = Reporter(net, self.asked, wishes["top"], self.labels, insist=self.insist)
        self.page_reporter = Reporter(net, self.runner.blobs, wishes["top"], self.labels, insist=False)
        self.broken: list[tuple[str, InspectorError]] = []
        self.sections: list[Any] = []  # of the page
        self.pictures = (
            _Pictures(wishes["save_image"], self.runner.preprocessing, len(self.paths)) if wishes["save_image"] else None
        )

    def about(self) -> dict[str, Any]:
        runner = self.runner
        fed = {"input": runner.input, "shape": list(runner.shape[1:]) if runner.preprocessing.size else None}
        return {**super().about(), **fed, "batch": runner.batch, "preprocessing": runner.preprocessing.to_dict()}

    def head(self) -> Iterator[tuple[str, str]]:
        yield from super().head()
        size = "x".join(map(str, self.runner.shape[1:])) if self.runner.preprocessing.size else "as large as each image"
        yield "input", f"{self.runner.input}, {size}"
        for i, step in enumerate(self.runner.preprocessing.describe()):
            yield "images" if i == 0 else "", step

    def tail(self) -> dict[str, Any]:
        broken = [{"image": name, "code": error.code, "error": str(error)} for name, error in self.broken]
        return {"broken": broken, "saved": self.pictures.saved if self.pictures else []}

    def items(self) -> Iterator[tuple[str, list[Output]]]:
        from .progress import Progress

        out = self.wishes["out"]
        with (
            _spooled(out, self.asked) if out else nullcontext() as spool,
            Progress("images", len(self.paths)) as progress,
        ):
            for answers in self.runner(self.paths):
                progress.clear(sys.stdout)
                for name, error in answers.broken:
                    progress.clear()
                    show.error(error)
                    self.broken.append((name, error))
                for i, name in enumerate(answers.names):
                    item = {blob: answers.blobs[blob][i] for blob in self.asked}
                    if self.pictures is not None:
                        self.pictures.save(name, item)
                    self._section(name, {blob: rows[i] for blob, rows in answers.blobs.items()})
                    yield name, [self.reporter(blob, value) for blob, value in item.items()]
                if spool is not None and answers.names:
                    spool.add(answers.names, {blob: answers.blobs[blob] for blob in self.asked})
                progress.step(len(answers.names) + len(answers.broken))

    def _section(self, name: str, item: dict[str, Any]) -> None:
        """Remember an image's answers for the page, while it has room."""
        if self.wishes["html"] is None:
            return
        from inspector.picture.answers import MOST, answer

        if len(self.sections) < MOST:
            outputs = [self.page_reporter(blob, value) for blob, value in item.items()]
            self.sections.append(answer(name, outputs, item))

    def run(self) -> int:
        self.print()
        if len(self.broken) == len(self.paths):
            raise images.no_images()
        if self.wishes["html"] is not None:
            from inspector.files import replacing
            from inspector.picture.page import page

            with replacing(self.wishes["html"]) as file:
                file.write(page([self.net], weights=self.weights, extras=self.sections).encode())
            show.remark(f"wrote '{self.wishes['html']}'")
        if self.form == "table" and self.pictures is not None:
            for name in self.pictures.saved:
                show.remark(f"wrote '{name}'")
        return 1 if self.broken else 0


class _Arrays(_Command):
    def __init__(self, *arguments: Any, **wishes: Any) -> None:
        super().__init__(*arguments, **wishes)
        if wishes["save_image"] or wishes["html"] or any(value is not None for value in wishes["settings"].values()):
            raise InspectorError("arrays are fed as they are", code="no-images", remedy="leave out the options for images")

    def items(self) -> Iterator[tuple[str, list[Output]]]:
        from inspector.classify import Reporter, answer_arrays

        found = answer_arrays(self.net, self.arrays, self.wishes["blobs"], check_numerics=self.wishes["check_numerics"])
        reporter = Reporter(self.net, list(found), self.wishes["top"], self.labels, insist=self.insist)
        if self.wishes["out"]:
            _save(self.wishes["out"], found)
        batch = next(iter(self.arrays.values())).shape[:1]
        whole = any(value.shape[:1] != batch for value in found.values())
        for i in range(1 if whole else batch[0]):
            name = self.wishes["npz"] if whole else f"{self.wishes['npz']}[{i}]"
            yield name, [reporter(blob, value if whole else value[i]) for blob, value in found.items()]

    def about(self) -> dict[str, Any]:
        return {**super().about(), "inputs": {name: list(array.shape) for name, array in self.arrays.items()}}

    def head(self) -> Iterator[tuple[str, str]]:
        yield from super().head()
        for i, (name, array) in enumerate(self.arrays.items()):
            yield "inputs" if i == 0 else "", f"{clean(name)}, {'x'.join(map(str, array.shape)) or 'scalar'}, as it is"

    def run(self) -> int:
        self.print()
        return 0


# ---- files


class _Pictures:
    """Where outputs that are images go: into a file if there is one of each, else into a folder under the images' names."""

    def __init__(self, target: str, preprocessing: Preprocessing, count: int) -> None:
        from inspector.sources.picture import SUFFIXES

        self.target = Path(target)
        self.preprocessing = preprocessing
        self.single = self.target.suffix.lower() in SUFFIXES
        self.saved: list[str] = []
        if self.single and count > 1:
            message = f"{count} images do not go into one file '{target}'"
            raise InspectorError(message, code="save-image", remedy="name a folder")

    def save(self, name: str, item: dict[str, Any]) -> None:
        """Save what is an image in one item's blobs. Raises InspectorError if nothing is."""
        from inspector.classify import picture
        from inspector.preprocess import save_image

        drawn = {blob: image for blob, value in item.items() if (image := picture(value, self.preprocessing)) is not None}
        if not drawn or (self.single and len(drawn) > 1):
            what = f"'{', '.join(drawn)}' are all images" if drawn else f"none of '{', '.join(item)}' is an image"
            raise InspectorError(what, code="save-image", remedy="choose one with --blob" + (", or name a folder" if drawn else ""))
        for blob, image in drawn.items():
            path = self.target if self.single else self._path(name, blob if len(drawn) > 1 else "")
            save_image(path, image)
            self.saved.append(str(path))

    def _path(self, name: str, blob: str) -> Path:
        """A new name in the folder: the image's, and the blob's where there are several."""
        from inspector.files import made

        made(self.target)
        stem = "-".join(part for part in (Path(name).stem, blob.replace("/", "_")) if part)
        path = self.target / f"{stem}.png"
        for number in count(2):
            if str(path) not in self.saved:
                break
            path = self.target / f"{stem}-{number}.png"
        return path


@contextmanager
def _spooled(out: str, blobs: Sequence[str]) -> Iterator[Spool]:
    """Rows that become an .npz in the end, and nothing if it does not come to that."""
    from tempfile import TemporaryDirectory

    from inspector.features import Spool, write_npz
    from inspector.files import trouble

    path = Path(out)
    try:
        folder = TemporaryDirectory(prefix=f".{path.name}.", dir=path.parent)
    except OSError as error:
        raise trouble(path, error, "write") from None
    with folder as name, Spool(Path(name), blobs) as spool:
        yield spool
        if spool.names:
            write_npz(path, spool)


def _save(out: str, arrays: dict[str, Any]) -> None:
    import numpy as np

    from inspector.files import replacing

    with replacing(out) as file:
        np.savez(file, allow_pickle=False, **arrays)


# ---- words


def _lines(name: str, outputs: Iterable[Output], paint: Paint) -> Iterator[str]:
    """An item: its name, and a line for each class or blob."""
    yield paint(clean(name), "name")
    several = len(list(outputs)) > 1
    for output in outputs:
        shape = "x".join(map(str, output.shape)) or "scalar"
        if output.best:
            if several:
                yield f"  {paint(clean(output.blob), 'label')}  {paint(shape, 'shape')}"
            digits = max(len(str(found.index)) for found in output.best)
            for found in output.best:
                yield f"  {found.score:8.4f}  {found.index:>{digits}}  {clean(found.label or '')}".rstrip()
            continue
        if output.values is not None:
            said = " ".join(f"{value:.6g}" for value in output.values)
        else:
            said = f"from {output.least:.6g} to {output.most:.6g}, mean {output.mean:.6g}"
        yield f"  {paint(clean(output.blob), 'label')}  {paint(shape, 'shape')}  {said}"


def _cells(name: str, outputs: Iterable[Output]) -> Iterator[list[Any]]:
    """An item as rows of CSV."""
    for output in outputs:
        start = [name, output.blob, "x".join(map(str, output.shape))]
        end = [output.least, output.mean, output.most]
        for rank, found in enumerate(output.best, 1):
            yield [*start, rank, found.index, found.label, found.score, *end]
        if not output.best:
            yield [*start, None, None, None, None, *end]


def _plain(output: Output) -> dict[str, Any]:
    """An output for JSON, which knows no NaN."""

    def finite(value: float) -> float | None:
        return value if math.isfinite(value) else None

    return {
        "blob": output.blob,
        "shape": list(output.shape),
        "top": [{"class": found.index, "label": found.label, "score": finite(found.score)} for found in output.best],
        "values": None if output.values is None else [finite(value) for value in output.values],
        "min": finite(output.least),
        "mean": finite(output.mean),
        "max": finite(output.most),
    }
