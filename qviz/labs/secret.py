"""The secret of a course, from which every student's hidden seeds are made."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

VARIABLE = "QVIZ_LABS_SECRET"
LEAST = 16
PUBLISHED = b"published with qviz: everybody can compute these hidden cases"
"""Stands in where a release for all is built without a secret. It protects nothing."""


def read(file: Path | None = None, environment: Mapping[str, str] = os.environ) -> bytes | None:
    """Return the secret in a file, or else in the environment; None if neither has one.

    A text of an even number of hexadecimal digits, 32 at least, is read as the bytes that it spells; any
    other text is taken as it is, without the white space around it.

    Raises:
        ValueError: The file cannot be read, or the secret has fewer than 16 bytes.
    """
    if file is not None:
        try:
            text, where = file.read_text("utf-8"), str(file)
        except (OSError, UnicodeDecodeError) as error:
            raise ValueError(f"the course's secret cannot be read from {file}: {error}") from error
    elif VARIABLE in environment:
        text, where = environment[VARIABLE], VARIABLE
    else:
        return None
    secret = _bytes(text.strip())
    if len(secret) < LEAST:
        raise ValueError(f"the course's secret in {where} has {len(secret)} bytes; {LEAST} are the least")
    return secret


def _bytes(text: str) -> bytes:
    try:
        return bytes.fromhex(text) if len(text) >= 2 * LEAST else text.encode()
    except ValueError:
        return text.encode()
