"""A page for every code: what it means, how it comes about, a wrong example and its fix. `codes.toml` holds them.

Caffe's own words are not in there: they come from the dialects, whose tables are keyed by the same codes.

    python -m inspector.codes        writes CODES.md anew
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path

from .errors import InspectorError

FILE = Path(__file__).with_suffix(".toml")
DOCUMENT = Path(__file__).parent.parent / "CODES.md"
INTRODUCTION = """\
# What alexinspect finds, code by code

Every finding and every error has a code. `alexinspect explain CODE` prints its page, with what Caffe itself says, and
`alexinspect check` chooses by `--select CODE` and `--ignore CODE`; globs such as `weights-*` are understood.

A comment at the head of an example says which blobs it is given. This page is made from `inspector/codes.toml` by
`python -m inspector.codes`.
"""


@dataclass(frozen=True, slots=True)
class Page:
    """What there is to say of one code, or of several that are the same mistake in different places.

    `wrong` and `right` are prototxt whose first comment lines name the blobs that it is given, or (`shell`) what one types.
    """

    codes: tuple[str, ...]
    chapter: str
    title: str
    means: str
    wrong: str = ""
    right: str = ""
    shell: bool = False


@cache
def pages() -> tuple[Page, ...]:
    """All pages, in the order of the chapters."""
    data = tomllib.loads(FILE.read_text(encoding="utf-8"))
    chapters = data.pop("chapters")
    return tuple(
        Page(**{**entry, "codes": tuple(entry["codes"]), "chapter": title})
        for key, title in chapters.items()
        for entry in data[key]
    )


@cache
def _by_code() -> dict[str, Page]:
    return {code: page for page in pages() for code in page.codes}


def page(code: str) -> Page:
    """The page of a code. Raises InspectorError (`no-such-code`) with a suggestion."""
    found = _by_code().get(code)
    if found is None:
        raise _unknown(code)
    return found


def refuse_unknown(glob: str) -> None:
    """Raise InspectorError (`no-such-code`) for a code or glob that no code matches."""
    if not any(fnmatchcase(code, glob) for code in _by_code()):
        raise _unknown(glob)


def _unknown(code: str) -> InspectorError:
    from difflib import get_close_matches

    close = get_close_matches(code, _by_code(), 1)
    remedy = f"did you mean '{close[0]}'?" if close else "see alexinspect explain for all of them"
    return InspectorError(f"there is no code '{code}'", code="no-such-code", remedy=remedy)


def titles() -> dict[str, str]:
    """A sentence for each code."""
    return {code: page.title for code, page in _by_code().items()}


def caffe(page: Page) -> dict[str, str]:
    """How BVLC Caffe's last state says it, by code: source line and words, with <names> where it prints numbers."""
    from . import dialect

    said = dialect.load(dialect.DEFAULT).refusals
    words = {}
    for code in page.codes:
        if code in said:
            statement = said[code]
            text = re.sub(r"\{(\w+)[^}]*\}", r"<\1>", statement.template).replace("{{", "{").replace("}}", "}").strip()
            words[code] = f"{statement.place}] {text or 'it dies of a division by zero (SIGFPE)'}"
    return words


def markdown() -> str:
    """CODES.md."""
    return "\n".join([INTRODUCTION, *_chapters()])


def _chapters() -> Iterator[str]:
    chapter = ""
    for one in pages():
        if one.chapter != chapter:
            chapter = one.chapter
            yield f"## {chapter}\n"
        yield f"### {', '.join(f'`{code}`' for code in one.codes)}\n"
        yield f"**{one.title}.** {one.means.strip()}\n"
        language = "sh" if one.shell else "prototxt"
        for label, example in (("Wrong", one.wrong), ("Right", one.right)):
            if example:
                yield f"{label}:\n\n```{language}\n{example.strip()}\n```\n"


if __name__ == "__main__":
    DOCUMENT.write_text(markdown(), encoding="utf-8")
