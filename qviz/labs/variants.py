"""A variant for each student, from the student's id and a secret of the course.

seed = HMAC-SHA256(secret, "qviz-labs-1" 0 lab 0 student 0 use), its first four bytes; the student is written
in one way (NFKC, no spaces at the ends, case folded), so "Anna" and "anna " are one student and "0123" and
"123" are two.
"""

from __future__ import annotations

import hashlib
import hmac
import unicodedata

from qviz.labs.model import Lab, Variant

COMMON = "common"
"""The student of a release that is the same for all."""
_SCHEME = "qviz-labs-1"


def same_student(student: str) -> str:
    """The one way in which a student's id is written before it is hashed or compared.

    Raises:
        ValueError: nothing is left of it, or it is longer than 200 characters.
    """
    written = unicodedata.normalize("NFKC", student).strip().casefold()
    if not written or len(written) > 200:
        raise ValueError(f"a student's id has 1 to 200 characters, got {student[:220]!r}")
    return written


def variant(lab: Lab, secret: bytes, student: str = COMMON) -> Variant:
    """The variant of a student, the same whenever it is asked for.

    Args:
        lab: the lab.
        secret: the course's secret, at least 16 bytes. Who has it can compute every hidden seed.
        student: the student's id.

    Raises:
        ValueError: the secret is too short, or the id cannot be one.
    """
    if len(secret) < 16:
        raise ValueError(f"a course's secret has at least 16 bytes, got {len(secret)}")
    written = same_student(student)

    def number(use: str) -> int:
        return int.from_bytes(_digest(secret, lab.name, written, use)[:4], "little")

    return Variant(
        lab=lab.name,
        student=student,
        params=lab.variants[number("params") % len(lab.variants)],
        data_seed=number("data"),
        hidden_seed=number("hidden"),
        mac=_digest(secret, lab.name, written, f"version {lab.version}").hex()[:32],
    )


def made_by(lab: Lab, secret: bytes, student: str, mac: str) -> bool:
    """Whether a release says truly that it was built for this student, with this secret."""
    return hmac.compare_digest(variant(lab, secret, student).mac.encode(), mac.encode())


def _digest(secret: bytes, *parts: str) -> bytes:
    return hmac.new(secret, "\0".join((_SCHEME, *parts)).encode(), hashlib.sha256).digest()
