"""Keep manifest.json and the table of hashes in README.md true; the two make_*.py scripts call ``record``."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

HERE = Path(__file__).resolve().parent
START, END = "<!-- hashes: written by card.py -->", "<!-- end of hashes -->"


def source_dir() -> Path:
    """Return the folder that holds the downloaded originals: ``$QVIZ_DATA``, or ``~/.cache/qviz``."""
    return Path(os.environ.get("QVIZ_DATA") or Path.home() / ".cache" / "qviz")


def sha256(path: Path) -> str:
    """Return the sha256 of a file, as 64 hexadecimal digits."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def record(name: str, *, kind: str, made_by: str, made_from: str) -> None:
    """Write size and sha256 of ``data/<name>`` to manifest.json, then bring README.md's table up to date."""
    path = HERE / "manifest.json"
    manifest = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    file = HERE / name
    manifest[name] = {
        "sha256": sha256(file),
        "bytes": file.stat().st_size,
        "kind": kind,
        "made_by": made_by,
        "made_from": made_from,
    }
    manifest = dict(sorted(manifest.items()))
    path.write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8", newline="\n")
    _update_readme(manifest)
    print(f"{name}: {manifest[name]['bytes']:,} bytes, sha256 {manifest[name]['sha256']}")


def _update_readme(manifest: dict[str, dict[str, object]]) -> None:
    path = HERE / "README.md"
    text = path.read_text(encoding="utf-8")
    if START not in text or END not in text:
        raise SystemExit(f"README.md has lost its markers {START!r} and {END!r}; the table was not updated")
    rows = ["| file | bytes | sha256 |", "|---|---:|---|"]
    rows += [f"| `{name}` | {entry['bytes']:,} | `{entry['sha256']}` |" for name, entry in manifest.items()]
    before, after = text.split(START)[0], text.split(END)[1]
    table = "\n".join([START, *rows, END])
    path.write_text(f"{before}{table}{after}", encoding="utf-8", newline="\n")
