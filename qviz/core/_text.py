"""Text: counted nouns, nouns with their article, lists that end in "and 3 more", and tables."""

from __future__ import annotations

from collections.abc import Sequence


def count(number: int, noun: str) -> str:
    """Return a number with its noun, which takes an "s" unless there is one.

    Example:
        >>> count(1, "bit"), count(1800, "image")
        ('1 bit', '1,800 images')
    """
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def article(noun: str) -> str:
    """Return a word or the name of a class with its article, as it is read aloud: "LSTM" letter by letter.

    Example:
        >>> article("LSTM"), article("GRU"), article("UNet"), article("Embedding")
        ('an LSTM', 'a GRU', 'a UNet', 'an Embedding')
    """
    spelled = noun[:2].isupper()
    return f"{'an' if noun[:1] in ('AEFHILMNORSX' if spelled else 'AEIOUaeiou') else 'a'} {noun}"


def some(names: Sequence[str], most: int = 3) -> str:
    """Return the first names and how many more there are; "nothing" for none.

    Example:
        >>> some(["a", "b", "c", "d", "e"])
        'a, b, c and 2 more'
    """
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return (", ".join(names[:most]) + more) or "nothing"


def table(head: Sequence[str], rows: Sequence[Sequence[str]], *, right: Sequence[int] = ()) -> str:
    """Return lines of aligned columns, two spaces apart.

    Args:
        head: The columns' titles.
        rows: One sequence of cells a row, as many as there are titles.
        right: Places of the columns that are aligned on the right.

    Example:
        >>> print(table(["layer", "weights"], [["conv1", "432"]], right=[1]))
        layer  weights
        conv1      432
    """
    lines = [list(head), *map(list, rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(
            cell.rjust(w) if i in right else cell.ljust(w)
            for i, (cell, w) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )


def markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return the same as a Markdown table."""
    return "\n".join("| " + " | ".join(line) + " |" for line in (head, ["---"] * len(head), *rows))
