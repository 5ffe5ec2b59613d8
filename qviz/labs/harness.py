"""What runs beside a student's code: public tests, one by one. It needs nothing but Python.

Its text is also sent to where qviz cannot be imported, so it imports inside and uses no name from outside.
"""

from typing import Any


def examined(tests: list[tuple[str, str]], arrays: list[str], names: dict[str, Any]) -> dict[str, Any]:
    """Run tests and hash arrays among a student's names; neither changes them.

    Args:
        tests: Questions and the text of a test of each.
        arrays: Names of arrays.
        names: The student's names and what they stand for.

    Returns:
        Under "tests" for each test None or why it fails; under "arrays" the SHA-256 of each array by name.
    """

    def why(text: str) -> str | None:
        try:
            exec(compile(text, "<tests>", "exec"), dict(names))
        except NotImplementedError:
            return "not answered yet"
        except AssertionError as error:
            return str(error) or f"this does not hold: {line_of(error, text)}"
        except BaseException as error:  # noqa: BLE001  a student's function may raise anything
            return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
        return None

    def line_of(error: BaseException, text: str) -> str:
        trace, number = error.__traceback__, 1
        while trace is not None:
            if trace.tb_frame.f_code.co_filename == "<tests>":
                number = trace.tb_lineno
            trace = trace.tb_next
        return text.splitlines()[number - 1].strip()

    def sha256(array: Any) -> str | None:
        import hashlib

        import numpy

        try:
            array = numpy.asarray(array)
            array = numpy.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<"))
            head = f"{array.dtype.str} {array.shape} ".encode()
            return hashlib.sha256(head + array.tobytes()).hexdigest()
        except Exception:  # noqa: BLE001  whatever stands under the name is not the array
            return None

    return {
        "tests": [[question, why(text)] for question, text in tests],
        "arrays": {name: sha256(names[name]) for name in arrays if name in names},
    }
