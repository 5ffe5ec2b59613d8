"""One zygote for all tests of labs: it takes seconds to start and milliseconds to use."""

from __future__ import annotations

import pytest

from qviz.labs.sandbox import Zygote


@pytest.fixture(scope="session")
def zygote():
    with Zygote() as zygote:
        yield zygote
