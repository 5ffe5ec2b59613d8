"""The sandbox: a student's code runs in a process of its own, which knows no test and may do nothing else."""

from __future__ import annotations

from qviz.labs.sandbox.worker import Done as Done
from qviz.labs.sandbox.worker import Limits as Limits
from qviz.labs.sandbox.worker import Worker as Worker
from qviz.labs.sandbox.zygote import Zygote as Zygote
