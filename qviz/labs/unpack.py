"""Every text in a file, however packed: JSON, archives, compression, base64, hexadecimal, pieces of strings.

Nothing is executed or unpickled. What cannot be read, such as compiled code, is named instead.
"""

from __future__ import annotations

import ast
import base64
import binascii
import bz2
import codecs
import io
import json
import lzma
import re
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from typing import Any, NamedTuple

DEPTH = 4
_MOST = 8_000_000
_BASE64 = re.compile(r"(?:[A-Za-z0-9+/_-]{20,}\s*)+={0,2}")
_HEX = re.compile(r"(?:[0-9a-fA-F]{2}){16,}")
_READABLE = re.compile(rb"[\t\n\r\x20-\x7e]{14,}")
_IMAGES = (b"\x89PNG\r\n", b"\xff\xd8\xff", b"GIF8", b"%PDF")
_OPAQUE = {
    b"SQLite format 3": "a database",
    b"\x80\x02": "a pickled object",
    b"\x80\x03": "a pickled object",
    b"\x80\x04": "a pickled object",
    b"\x80\x05": "a pickled object",
    b"\xe3\x00\x00\x00": "compiled code",
    b"c\x00\x00\x00": "compiled code",
}


class Found(NamedTuple):
    """A text and where it was; ``opaque`` says what it is if it cannot be read."""

    where: str
    text: str
    opaque: str = ""


def from_bytes(content: bytes, where: str, depth: int = DEPTH) -> Iterator[Found]:
    """Yield every text in some bytes, and what is opaque.

    Args:
        content: What a file has, or a part of one.
        where: How the place is called.
        depth: How many wrappings are opened.
    """
    if content.startswith(_IMAGES) or depth < 0:
        return
    for magic, what in _OPAQUE.items():
        if content.startswith(magic) and len(content) > 16:
            yield Found(where, "", what)
            return
    if content[2:4] == b"\r\n" and content[1:2] in (b"\x0c", b"\x0d", b"\x0e", b"\x0f"):
        yield Found(where, "", "compiled code")
        return
    members = list(_members(content))
    for name, inner in members:
        yield from from_bytes(inner, f"{where}, {name}", depth - 1)
    if not members:
        yield from from_text(_decoded(content), where, depth)


def from_text(text: str, where: str, depth: int = DEPTH) -> Iterator[Found]:
    """Yield a text and every text that is packed in it; as :func:`from_bytes`."""
    if not text.strip():
        return
    value = _json(text) if depth > 0 and text.lstrip()[:1] in ("{", "[") else None
    if isinstance(value, (dict, list)):
        yield from from_json(value, where, depth - 1)
        return
    yield Found(where, text)
    if depth <= 0 or len(text) > _MOST:
        return
    for piece in _literals(text):
        yield from from_bytes(piece, f"{where}, string", depth - 1)
    for pattern, decode, name in ((_HEX, bytes.fromhex, "hexadecimal"), (_BASE64, _base64, "base64")):
        for match in pattern.finditer(text):
            inner = decode(match[0])
            if len(inner) >= 12 and inner != text.encode("utf-8", "surrogatepass"):
                yield from from_bytes(inner, f"{where}, {name}", depth - 1)


def from_json(value: Any, where: str, depth: int = DEPTH) -> Iterator[Found]:
    """Yield every text in a JSON value; lists of texts, as notebooks have them, are joined too."""
    if isinstance(value, str):
        yield from from_text(value, where, depth)
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from from_text(key, where, depth)
            yield from from_json(item, f"{where}, {key}"[:200], depth)
    elif isinstance(value, list):
        if value and all(isinstance(item, str) for item in value):
            yield from from_text("".join(value), where, depth)
            return
        for number, item in enumerate(value, 1):
            yield from from_json(item, f"{where} {number}", depth)


def disguises(text: str) -> Iterator[tuple[str, str]]:
    """Yield the text plain, backwards, and with its letters turned by 13."""
    yield "", text
    yield "backwards", text[::-1]
    yield "rot13", codecs.encode(text, "rot13")


def _members(content: bytes) -> Iterator[tuple[str, bytes]]:
    """The files of an archive, or what was compressed; nothing if it is neither."""
    try:
        if content.startswith(b"PK\x03\x04"):
            with zipfile.ZipFile(io.BytesIO(content)) as archive:
                for entry in archive.infolist():
                    with archive.open(entry) as file:
                        yield entry.filename, file.read(_MOST)
        elif content[257:262] == b"ustar":
            with tarfile.open(fileobj=io.BytesIO(content)) as archive:
                for member in archive.getmembers():
                    if (file := archive.extractfile(member)) is not None:
                        yield member.name, file.read(_MOST)
        elif content.startswith(b"\x1f\x8b"):
            yield "gzip", zlib.decompressobj(31).decompress(content, _MOST)
        elif content[:1] == b"\x78" and len(content) > 2 and int.from_bytes(content[:2], "big") % 31 == 0:
            yield "zlib", zlib.decompressobj().decompress(content, _MOST)
        elif content.startswith(b"BZh"):
            yield "bzip2", bz2.BZ2Decompressor().decompress(content, _MOST)
        elif content.startswith(b"\xfd7zXZ"):
            yield "xz", lzma.LZMADecompressor().decompress(content, _MOST)
    except (
        OSError,
        EOFError,
        zlib.error,
        zipfile.BadZipFile,
        tarfile.TarError,
        lzma.LZMAError,
        RuntimeError,
    ):
        return


def _decoded(content: bytes) -> str:
    """Bytes as the text that they most likely are; of other bytes, what is readable in them."""
    if content.startswith((b"\xff\xfe", b"\xfe\xff")) or content[:200].count(0) > len(content[:200]) // 3:
        for encoding in ("utf-16", "utf-16-le", "utf-16-be"):
            text = content.decode(encoding, "replace")
            if sum(letter.isascii() for letter in text) > 0.8 * len(text):
                return text
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError:
        return "\n".join(run.decode("ascii") for run in _READABLE.findall(content))


def _literals(text: str) -> Iterator[bytes]:
    """The strings in a piece of Python, those that are added or listed put together."""
    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return
    for node in ast.walk(tree):
        if isinstance(node, (ast.BinOp, ast.List, ast.Tuple, ast.Constant)):
            piece = _joined(node)
            if len(piece) >= 14:
                yield piece


def _joined(node: ast.AST) -> bytes:
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value.encode("utf-8", "surrogatepass")
    if isinstance(node, ast.Constant) and isinstance(node.value, bytes):
        return node.value
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        return _joined(node.left) + _joined(node.right)
    if isinstance(node, (ast.List, ast.Tuple)):
        return b"".join(_joined(item) for item in node.elts)
    return b""


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _base64(text: str) -> bytes:
    text = "".join(text.split()).rstrip("=").replace("-", "+").replace("_", "/")
    try:
        return base64.b64decode(text[: len(text) - (len(text) % 4 == 1)] + "=" * (-len(text) % 4))
    except (binascii.Error, ValueError):
        return b""
