r"""The sandbox: a student's code runs in a process of its own, which knows no test and may do nothing else.

It does not protect from errors in the kernel, from what the processor's timing tells, or from code that reads
the standard library, numpy and torch; and on systems other than Linux only limits of time and size are left.
A container around the whole run adds a bound on all memory together::

    docker run --rm --network none --memory 4g --pids-limit 256 --read-only --tmpfs /tmp \
        -v "$PWD/submissions:/in:ro" -v "$PWD/out:/out" IMAGE qviz labs grade /in --out /out/grades.csv
"""

from __future__ import annotations

from qviz.labs.sandbox.worker import Done as Done
from qviz.labs.sandbox.worker import Limits as Limits
from qviz.labs.sandbox.worker import Worker as Worker
from qviz.labs.sandbox.zygote import Zygote as Zygote
