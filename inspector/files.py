"""Reading and writing files that nobody vouches for: no hang on a pipe, no endless device, nothing half-written."""

from __future__ import annotations

import os
import select
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from .errors import InspectorError, UnreadableError

PIPE_LIMIT = 1 << 28  # bytes taken from a pipe, which has no size to look at beforehand
PIPE_PATIENCE = 4.0  # seconds without a byte after which a pipe is given up


def trouble(path: str | os.PathLike[str], error: OSError, doing: str = "read") -> UnreadableError:
    """An OSError in the words of the person who named the file."""
    reason = (error.strerror or type(error).__name__).lower()
    remedies = {
        FileNotFoundError: "check the path",
        PermissionError: "check the file's permissions",
        IsADirectoryError: "name a file in it",
    }
    return UnreadableError(f"cannot {doing} '{os.fspath(path)}': {reason}", code="file", remedy=remedies.get(type(error), ""))


def read_bytes(path: str | os.PathLike[str]) -> bytes:
    """The whole content of a file or pipe.

    Raises UnreadableError for what cannot or should not be read: folders, devices, a pipe through which nothing comes.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise trouble(path, error) from None
    except ValueError as error:  # a NUL in the name
        raise UnreadableError(f"cannot read {os.fspath(path)!r}: {error}", code="file") from None
    try:
        mode = os.fstat(descriptor).st_mode
        if stat.S_ISREG(mode):
            with open(descriptor, "rb", buffering=0, closefd=False) as file:
                return file.readall()
        if stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode):
            return _read_pipe(descriptor, path)
    except OSError as error:
        raise trouble(path, error) from None
    finally:
        os.close(descriptor)
    kind = "a folder" if stat.S_ISDIR(mode) else "a device"
    remedy = "name a file in it" if stat.S_ISDIR(mode) else "copy its content to a file"
    raise UnreadableError(f"'{os.fspath(path)}' is {kind}, not a file", code="file", remedy=remedy)


def head(path: str | os.PathLike[str], size: int) -> tuple[bytes, int]:
    """The first bytes of a regular file, and how many it has; nothing of what is no file, which `read_bytes` then explains."""
    try:
        if not Path(path).is_file():
            return b"", 0
        with Path(path).open("rb", buffering=0) as file:
            return file.read(size), os.fstat(file.fileno()).st_size
    except (OSError, ValueError):
        return b"", 0


def _read_pipe(descriptor: int, path: str | os.PathLike[str]) -> bytes:
    pieces: list[bytes] = []
    total = 0
    while True:
        if not select.select([descriptor], [], [], PIPE_PATIENCE)[0]:
            raise UnreadableError(f"nothing came through the pipe '{os.fspath(path)}' for {PIPE_PATIENCE:g} s", code="file")
        piece = os.read(descriptor, 1 << 20)
        if not piece:
            return b"".join(pieces)
        pieces.append(piece)
        total += len(piece)
        if total > PIPE_LIMIT:
            raise UnreadableError(f"more than {PIPE_LIMIT >> 20} MiB came through the pipe '{os.fspath(path)}'", code="file")


def file_name(name: str) -> str:
    """A layer's name as the name of a file in any folder: odd characters become underscores."""
    return "".join(c if c.isalnum() or c in "-_." else "_" for c in name).lstrip(".") or "layer"


def made(folder: Path) -> Path:
    """A folder that is there from now on. Raises UnreadableError where it cannot be made."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise trouble(folder, error, "make") from None
    return folder


@contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """A file to write that takes `path`'s place when the block ends well; otherwise what was there stays as it was.

    A symbolic link stays, and what it points to is replaced. A device or pipe is written to as it is.
    """
    target = Path(path).resolve()
    if target.exists() and not target.is_file() and not target.is_dir():
        try:
            with target.open("wb") as file:
                yield file
        except OSError as error:
            raise trouble(path, error, "write") from None
        return
    temporary = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        if target.is_dir():
            raise InspectorError(f"cannot write '{target}': it is a folder", code="file", remedy="name a file in it")
        with temporary.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(target)
    except OSError as error:
        raise trouble(path, error, "write") from None
    finally:
        temporary.unlink(missing_ok=True)
