"""Display: an explorer in a notebook, live where there is a kernel, and as a picture where there is none."""

from __future__ import annotations

import asyncio
import sys
import weakref
from typing import TYPE_CHECKING, Any

from IPython.core.getipython import get_ipython
from IPython.display import display, update_display

from qviz.plot.draw import bundle, figure

if TYPE_CHECKING:
    from IPython.core.interactiveshell import ExecutionInfo, ExecutionResult, InteractiveShell

    from qviz.plot.scene import Scene
    from qviz.widgets.explorer import Explorer

VIEW = "application/vnd.jupyter.widget-view+json"
REST_S = 5.0
"""After a move in the browser the PNG is drawn again when nothing has moved for this time."""

HIDDEN = """
.jp-OutputArea-child:has(.qviz-{0}) + .jp-OutputArea-child:has(.jp-RenderedImage, .qviz-still) {{
  display: none;
}}
"""
"""A rule that lives in the live view, so that the PNG is seen only where the view is not."""


class Cells:
    """The explorers of each cell: one is closed when every cell that made or showed it has been run again."""

    def __init__(self) -> None:
        self._shell: InteractiveShell | None = None
        self._now: list[weakref.ref[Shown]] = []
        self._of: dict[str, list[weakref.ref[Shown]]] = {}

    def add(self, shown: Shown) -> None:
        """Take in what the present cell makes or shows."""
        shell = get_ipython()
        if shell is not self._shell and shell is not None:
            shell.events.register("pre_run_cell", self._before)
            shell.events.register("post_run_cell", self._after)
            self._shell = shell
        self._now.append(weakref.ref(shown))

    def _before(self, info: ExecutionInfo) -> None:
        self._now.clear()
        for ref in self._of.pop(info.cell_id, ()):
            if (shown := ref()) is not None:
                shown.cells.discard(info.cell_id)
                if not shown.cells:
                    self._forget(shown.close())

    def _forget(self, explorer: Explorer | None) -> None:
        """Take an explorer out of the outputs that IPython keeps: ``Out``, ``_`` and ``_12``."""
        names, hidden = self._shell.user_ns, self._shell.user_ns_hidden
        for kept in (names.get("_oh", {}), names, hidden):
            for key in [key for key, value in kept.items() if value is explorer]:
                if not str(key).strip("_0123456789"):
                    del kept[key]

    def _after(self, result: ExecutionResult) -> None:
        cell = result.info.cell_id
        here = {shown for ref in self._now if (shown := ref()) is not None}
        for shown in here:
            shown.cells.add(cell)
        if cell is not None:
            self._of[cell] = [weakref.ref(shown) for shown in here]
        self._now.clear()


CELLS = Cells()


class Shown:
    """The outputs of one explorer: its live view, and under it the same picture as a PNG.

    The PNG is what a page without the kernel shows: a saved notebook that is opened again, an export, GitHub.
    It is drawn again after each cell in which the explorer was changed, and hidden while the view is alive.

    Args:
        explorer: The explorer.

    Attributes:
        cells: The cells in which the explorer was made or shown.
    """

    def __init__(self, explorer: Explorer) -> None:
        self._explorer = weakref.ref(explorer)
        self.cells: set[str | None] = set()
        CELLS.add(self)
        self._id: str | None = None
        self._stale = False
        self._waits: asyncio.TimerHandle | None = None
        self._draws: asyncio.Task[None] | None = None

    def display(self) -> None:
        """Show live view and PNG as two outputs."""
        explorer = self._explorer()
        CELLS.add(self)
        if "google.colab" in sys.modules:  # Colab loads bqplot only where it was asked to
            from google.colab import output

            output.enable_custom_widget_manager()
        static, metadata = explorer._repr_mimebundle_()
        view = static.pop(VIEW, None)
        if view is not None and not fetches_widgets():
            text = f"Run this cell to use the {type(explorer).__name__}; below is how it was left."
            display({VIEW: view, "text/plain": text}, raw=True)
        if self._id is None:
            self._id = f"qviz-{explorer.model_id}"
            if shell := get_ipython():
                shell.events.register("post_run_cell", self._after_cell)
        display(static, raw=True, metadata=metadata, display_id=self._id)
        self._stale = False

    def changed(self) -> None:
        """Note that the PNG no longer shows the present choice; it is drawn again when there is time."""
        self._stale = self._id is not None
        self._leave()
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:  # no kernel: nobody looks
            return
        self._waits = loop.call_later(REST_S, lambda: self._draw(loop))

    def _leave(self) -> None:
        """Draw no picture of what is past."""
        for waits in (self._waits, self._draws):
            if waits is not None:
                waits.cancel()

    def _draw(self, loop: asyncio.AbstractEventLoop) -> None:
        """Draw the PNG in a thread: it takes 0.5 to 1.8 s, in which the next move is not to wait."""
        explorer = self._explorer()
        if explorer is not None and self._stale:
            self._draws = loop.create_task(self._drawn(explorer.scene()))

    async def _drawn(self, scene: Scene) -> None:
        self._show(*await asyncio.to_thread(still, scene))

    def refresh(self) -> None:
        """Draw the PNG again if it is no longer true."""
        explorer = self._explorer()
        if explorer is not None and self._stale:
            self._show(*still(explorer.scene()))

    def _show(self, static: dict[str, Any], metadata: dict[str, Any]) -> None:
        self._stale = False
        update_display(static, raw=True, metadata=metadata, display_id=self._id)

    def close(self) -> Explorer | None:
        """Close the explorer and return it; its picture stays as it is."""
        self._leave()
        if self._id is not None and (shell := get_ipython()):
            shell.events.unregister("post_run_cell", self._after_cell)
        self._id, self._stale = None, False
        if (explorer := self._explorer()) is not None:
            explorer.close()
        return explorer

    def _after_cell(self, *_: Any) -> None:
        self.refresh()


def still(scene: Scene) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return MIME data and metadata of what pages show where there is no kernel: a PNG and the words."""
    return bundle(figure(scene), scene.text)


def fetches_widgets() -> bool:
    """Return whether this is VS Code, which would fetch bqplot from the network: there the PNG is shown."""
    shell = get_ipython()
    return shell is not None and "__vsc_ipynb_file__" in shell.user_ns
