"""A JupyterLab server on the loopback, with a random token and a home of its own, ended with its kernels."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from qviz.cli.lab import PROMPT

# Every cell in the page, and no questions about news or updates.
SETTINGS = {
    "notebook-extension/tracker": {"windowingMode": "none", "autoStartDefaultKernel": True},
    "apputils-extension/notification": {
        "fetchNews": "false",
        "checkForUpdates": False,
        "doNotDisturbMode": True,
    },
}


@dataclass(frozen=True)
class Server:
    """A running server."""

    port: int
    token: str
    log: Path

    def url(self, path: str) -> str:
        """Return the address of ``path``, with the token."""
        return f"http://127.0.0.1:{self.port}/{path}?token={self.token}"

    def kernels(self) -> list[str]:
        """Return the ids of the running kernels."""
        with urllib.request.urlopen(self.url("api/kernels")) as answer:
            return [kernel["id"] for kernel in json.load(answer)]

    def end_kernels(self) -> None:
        """End every kernel, so that what notebooks hold is not held any longer."""
        for kernel in self.kernels():
            end = urllib.request.Request(self.url(f"api/kernels/{kernel}"), method="DELETE")
            urllib.request.urlopen(end).close()

    def log_tail(self, characters: int = 1500) -> str:
        """Return the end of what the server said."""
        return self.log.read_text("utf-8", errors="replace")[-characters:]


@contextmanager
def lab_server(root: Path, home: Path, *, python: str, timeout_s: float = 120) -> Iterator[Server]:
    """Serve the folder ``root`` with the JupyterLab of ``python``; its state and log go to ``home``."""
    server = Server(free_port(), secrets.token_hex(16), home / "server.log")
    write_settings(home)
    command = [
        *(python, "-m", "jupyterlab", "--no-browser", "--allow-root"),
        "--ServerApp.ip=127.0.0.1",
        f"--ServerApp.port={server.port}",
        "--ServerApp.port_retries=0",
        f"--IdentityProvider.token={server.token}",
        f"--ServerApp.root_dir={root}",
        PROMPT,
        "--LabApp.expose_app_in_browser=True",
        "--LabApp.news_url=None",
        "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate",
        "--LabApp.extension_manager=readonly",
    ]
    with server.log.open("wb") as log:
        process = subprocess.Popen(
            command,
            cwd=root,
            env=_environment(home, python),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            _wait_until_up(server, process, timeout_s)
            yield server
        finally:
            _end(process)


def _environment(home: Path, python: str) -> dict[str, str]:
    own = {
        "JUPYTER_CONFIG_DIR": home / "config",
        "JUPYTER_RUNTIME_DIR": home / "runtime",
        "JUPYTER_DATA_DIR": home / "data",
        "JUPYTERLAB_SETTINGS_DIR": home / "settings",
        "JUPYTERLAB_WORKSPACES_DIR": home / "workspaces",
        "IPYTHONDIR": home / "ipython",
    }
    path = f"{Path(python).parent}{os.pathsep}{os.environ['PATH']}"
    return {**os.environ, **{name: str(folder) for name, folder in own.items()}, "PATH": path}


def write_settings(home: Path) -> None:
    """Give Lab the settings that every notebook begins with, and none that another one has left."""
    shutil.rmtree(home / "settings", ignore_errors=True)
    for name, value in SETTINGS.items():
        file = home / "settings" / "@jupyterlab" / f"{name}.jupyterlab-settings"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(value), "utf-8")


def free_port() -> int:
    """Return a port of the loopback that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _wait_until_up(server: Server, process: subprocess.Popen[bytes], timeout_s: float) -> None:
    end = time.monotonic() + timeout_s
    while time.monotonic() < end:
        if process.poll() is not None:
            raise RuntimeError(f"JupyterLab exited with {process.returncode}:\n{server.log_tail()}")
        with suppress(OSError):  # not up yet
            urllib.request.urlopen(server.url("api/status"), timeout=2).close()
            return
        time.sleep(0.1)
    raise RuntimeError(f"JupyterLab did not answer within {timeout_s} s:\n{server.log_tail()}")


def _end(process: subprocess.Popen[bytes]) -> None:
    """End the server, which ends its kernels; kill its process group if it does not obey."""
    for how in (signal.SIGTERM, signal.SIGKILL):
        if process.poll() is None:
            os.killpg(process.pid, how)
            with suppress(subprocess.TimeoutExpired):  # then the stronger signal
                process.wait(10)
