"""The models that ship with the project: where they lie, what they are called, which file a name means."""

from __future__ import annotations

from pathlib import Path

from .errors import UnreadableError


def folder() -> Path:
    """The folder of models: inside the package where it was installed from a wheel, beside the packages in a checkout."""
    package = Path(__file__).resolve().parent
    installed = package / "models"
    return installed if installed.is_dir() else package.parent / "models"


def names() -> list[str]:
    """The models that have a deploy file, in alphabetical order."""
    return sorted(path.parent.name for path in folder().glob("*/deploy.prototxt"))


def resolve(name: str) -> Path:
    """The file that `name` means: `caffenet` its deploy file, `caffenet/train_val` the file train_val.prototxt beside it.

    Raises UnreadableError (`unknown-model`) for any other name. A file of that path goes first, and that is the caller's decision.
    """
    files = {f"{path.parent.name}/{path.stem}": path for path in folder().glob("*/*.prototxt")}
    path = files.get(name) or files.get(f"{name}/deploy")
    if path:
        return path
    from difflib import get_close_matches

    close = get_close_matches(name, [*names(), *files], n=1, cutoff=0.6)
    remedy = f"did you mean '{close[0]}'?" if close else f"the models that ship are {', '.join(names())}"
    raise UnreadableError(f"there is no file '{name}' and no model of that name", code="unknown-model", remedy=remedy, name=name)
