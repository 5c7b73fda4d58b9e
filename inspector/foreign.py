"""Files that are not what they were given for: said by their first bytes, with what to do about it.

Signatures are those of each format's own specification. Every reader asks here before it calls a file corrupt.
"""

from __future__ import annotations

import re

HEAD = 4096  # bytes that suffice for every rule below
HDF5_SIGNATURE = b"\x89HDF\r\n\x1a\n"

# first bytes -> what it is and what to do
_SIGNATURES: tuple[tuple[bytes, str], ...] = (
    (b"version https://git-lfs.github.com/spec/", "a Git LFS pointer, not the file itself; fetch it with 'git lfs pull'"),
    (b"\x1f\x8b", "compressed with gzip; unpack it first with gunzip or tar -xzf"),
    (b"BZh", "compressed with bzip2; unpack it first with bunzip2 or tar -xjf"),
    (b"\xfd7zXZ\x00", "compressed with xz; unpack it first with unxz or tar -xJf"),
    (b"\x28\xb5\x2f\xfd", "compressed with zstd; unpack it first with unzstd"),
    (b"\x04\x22\x4d\x18", "compressed with lz4; unpack it first with unlz4"),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive; unpack it first"),
    (b"Rar!\x1a\x07", "a RAR archive; unpack it first"),
    (HDF5_SIGNATURE, "an HDF5 file; Caffe keeps weights and solver states in them, give it where one of those is wanted"),
    (b"\x93NUMPY", "a NumPy array (.npy), not a Caffe file"),
    (b"\x89PNG\r\n\x1a\n", "a PNG image; give it where an image is wanted"),
    (b"\xff\xd8\xff", "a JPEG image; give it where an image is wanted"),
    (b"GIF8", "a GIF image; give it where an image is wanted"),
    (b"%PDF-", "a PDF document"),
    (b"\x7fELF", "a program or library (ELF)"),
    (b"SQLite format 3\x00", "an SQLite database"),
    (b"GGUF", "a GGUF model (llama.cpp), not a Caffe file"),
    (b"MATLAB 5.0 MAT-file", "a MATLAB file; save its arrays in another form"),
    (b"\xff\xfe", "text in UTF-16; save it as UTF-8"),
    (b"\xfe\xff", "text in UTF-16; save it as UTF-8"),
)

_HTML = re.compile(rb"(?:\xef\xbb\xbf)?\s*<(?:!doctype\s|html|head|\?xml|script|body|title|error>)", re.IGNORECASE)
_ANNEX = re.compile(rb"(?:\.\./)*(?:\.git)?/annex/objects/\S+\s*$")
_SERVER = re.compile(
    rb"\s*(?:(?:HTTP/1\.[01] )?[45]\d\d[: ]|Not Found\s*$|Access Denied|\{\s*\"(?:error|message)\")", re.IGNORECASE
)
_PICKLE = re.compile(rb"\x80[\x01-\x05]")
# GraphDef: a node whose first field is its name; in a NetParameter the net's name itself would begin with a line break
_TENSORFLOW = re.compile(rb"\n[\x01-\xff]{1,3}\n[\x01-\x7f][\x21-\x7e]+\x12[\x01-\x7f][A-Z]\w+")


def recognise(head: bytes, size: int) -> str | None:
    """What a file that begins with `head` (up to HEAD bytes) and has `size` bytes is, if it is none of Caffe's, and the remedy.

    A sentence in lower case: `this is a Git LFS pointer, not the file itself; fetch it with 'git lfs pull'`. None: nothing known.
    """
    if size == 0:
        return "the file is empty; fetch it again"
    if not head.strip(b"\x00"):
        return f"the file begins with {len(head)} zero bytes, as a broken download or copy leaves them; fetch it again"
    what = _what(head)
    return f"this is {what}" if what else None


def _what(head: bytes) -> str | None:
    for signature, what in _SIGNATURES:
        if head.startswith(signature):
            return what
    if head.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        return _zip(head)
    if head[257:262] == b"ustar":
        return "a tar archive; unpack it first with tar -xf"
    if _HTML.match(head):
        return "a web page (HTML or XML), not the file behind it; fetch the file itself, as its link for download gives it"
    if _ANNEX.match(head):
        return "a git-annex pointer, not the file itself; fetch it with 'git annex get'"
    if _SERVER.match(head):
        return "a server's error message, not the file itself; fetch it again"
    if head[4:8] == b"TFL3":
        return "a TensorFlow Lite model; convert it to Caffe first"
    if head[16:20] == b"\xde\xc0\xef\xbe":
        return "an LMDB database; a data layer reads its folder"
    if head[8:10] == b'{"' and head[7:8] == b"\x00":
        return "a safetensors file; convert it to Caffe first"
    if _is_onnx(head):
        return "an ONNX model; convert it to Caffe first"
    if _PICKLE.match(head):
        torch = b"\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19." in head[:16]
        return f"a {'PyTorch file' if torch else 'Python pickle'}, which may run any code when loaded; convert it to Caffe first"
    if _TENSORFLOW.match(head):
        return "a TensorFlow graph; convert it to Caffe first"
    return None


def _zip(head: bytes) -> str:
    if b"/data.pkl" in head or b"/byteorder" in head or b"/version" in head[:200]:
        return "a PyTorch file (a zip archive); convert it to Caffe first"
    if b".npy" in head[:200]:
        return "a NumPy archive (.npz), not a Caffe file"
    return "a zip archive; unpack it first with unzip"


def _is_onnx(head: bytes) -> bool:
    """ONNX's ModelProto: a small ir_version, short strings, then a number, a graph or an opset, which no Caffe file has there."""
    if len(head) < 4 or head[0] != 0x08 or head[1] > 0x20:
        return False
    at = 2
    while at + 1 < len(head):
        tag = head[at]
        if tag in (0x28, 0x3A, 0x42):  # model_version, graph, opset_import
            return True
        if tag not in (0x12, 0x1A, 0x22, 0x32) or head[at + 1] >= 0x80:  # producer, its version, domain, doc_string
            return False
        at += 2 + head[at + 1]
    return False
