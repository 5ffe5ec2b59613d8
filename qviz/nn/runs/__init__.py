"""Runs: an experiment from data to a row of the ledger, the same for notebooks, commands and queues."""

from __future__ import annotations

from qviz.nn.runs.contract import contract as contract
from qviz.nn.runs.contract import run_folder as run_folder
from qviz.nn.runs.experiment import Experiment as Experiment
from qviz.nn.runs.ledger import Ledger as Ledger
from qviz.nn.runs.ledger import Row as Row
from qviz.nn.runs.ledger import default_ledger as default_ledger
from qviz.nn.runs.prepare import Prepared as Prepared
from qviz.nn.runs.prepare import prepare as prepare
from qviz.nn.runs.prepare import source_of as source_of
from qviz.nn.runs.ptq_contract import ptq_contract as ptq_contract
from qviz.nn.runs.ptq_experiment import PTQExperiment as PTQExperiment
from qviz.nn.runs.ptq_prepare import PTQPrepared as PTQPrepared
from qviz.nn.runs.ptq_prepare import prepare_ptq as prepare_ptq
from qviz.nn.runs.ptq_prepare import source_of_ptq as source_of_ptq
from qviz.nn.runs.ptq_run import run_ptq as run_ptq
from qviz.nn.runs.queue import read_queue as read_queue
from qviz.nn.runs.run import folder_of as folder_of
from qviz.nn.runs.run import known as known
from qviz.nn.runs.run import run as run
from qviz.nn.runs.run import runs_of as runs_of
from qviz.nn.runs.several import Trials as Trials
from qviz.nn.runs.several import trials as trials
