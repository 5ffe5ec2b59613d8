"""Files: what is found, as strict JSON with a versioned schema, and read again."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Self

from qviz.core._files import write_atomically
from qviz.inspection.plain import from_plain, schema_of, to_plain

DIALECT = "https://json-schema.org/draft/2020-12/schema"


class Filed:
    """What can be saved as JSON and loaded again; a frozen dataclass that has ``SCHEMA`` and ``VERSION``.

    Fields are written by their names, and NaN and infinities, for which JSON has no notation, as the texts
    "nan", "inf" and "-inf". :meth:`schema` says what each field is.
    """

    SCHEMA: ClassVar[str]
    VERSION: ClassVar[int]

    def to_dict(self) -> dict[str, Any]:
        """Return all fields as what strict JSON can hold, with the names of schema and version."""
        return {"schema": self.SCHEMA, "version": self.VERSION, **to_plain(self)}

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Self:
        """Return what :meth:`to_dict` was called on: an equal object.

        Raises:
            ValueError: It is something else, of another version, or damaged; says where.
        """
        if not isinstance(content, Mapping) or content.get("schema") != cls.SCHEMA:
            raise ValueError(f'this is no {cls.SCHEMA} file: it does not say "schema": "{cls.SCHEMA}"')
        if content.get("version") != cls.VERSION:
            raise ValueError(
                f"{cls.SCHEMA} is read in version {cls.VERSION}, got version {content.get('version')!r}"
            )
        rest = {key: value for key, value in content.items() if key not in ("schema", "version")}
        return from_plain(cls, rest)

    def save(self, path: str | Path) -> Path:
        """Write :meth:`to_dict` as JSON and return the path; a file that is there is replaced in one go.

        Raises:
            OSError: The file cannot be written.
        """
        content = json.dumps(self.to_dict(), allow_nan=False, ensure_ascii=False, separators=(",", ":"))
        write_atomically(path, content.encode())
        return Path(path)

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Return what :meth:`save` wrote: an equal object.

        Raises:
            FileNotFoundError: There is no such file.
            ValueError: It is no JSON, something else, of another version, or damaged; says where.
        """
        path = Path(path)
        if not path.is_file():
            raise FileNotFoundError(f"there is no file {path}")
        try:
            return cls.from_dict(json.loads(path.read_bytes()))
        except (ValueError, RecursionError) as problem:  # of which a JSONDecodeError is one
            raise ValueError(f"{path} cannot be read: {problem}") from problem

    @classmethod
    def schema(cls) -> dict[str, Any]:
        """Return the JSON Schema (draft 2020-12) of the files, with a sentence for every field."""
        defs: dict[str, Any] = {}
        schema_of(cls, defs)
        top = defs.pop(cls.__name__)
        names = {"schema": {"const": cls.SCHEMA}, "version": {"const": cls.VERSION}}
        return {
            "$schema": DIALECT,
            "title": f"{cls.SCHEMA}, version {cls.VERSION}",
            **top,
            "properties": names | top["properties"],
            "required": [*names, *top["required"]],
            "$defs": defs,
        }
