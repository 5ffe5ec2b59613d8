"""Batch: what a move changes in many widgets, in one message to the page."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from anywidget import AnyWidget
from ipywidgets import Widget

PAGE = """
export default {
  initialize({ model }) {
    model.on("msg:custom", async (updates, buffers) => {
      const models = await Promise.all(updates.map(([id]) => model.widget_manager.get_model(id)));
      let next = 0;
      updates.forEach(([, data, count], i) => {
        const own = buffers.slice(next, next += count);
        models[i]._handle_comm_msg({ header: {}, parent_header: {}, content: { data }, buffers: own });
      });
    });
    model.send("ready");
  },
};
"""
"""What the page does with it: every model takes its part as if it had come by itself."""


class Batch(AnyWidget):
    """Sends what changes in many widgets as one message, to a page that has said that it can take it.

    A message takes 1.2 to 2 ms of kernel, server and page together, and a move changes 2 to 30 widgets: the
    last picture of a move of GridExplorer's Clip is there after 55 to 66 ms instead of 81 to 89. Until a page
    has said so, and where there is none, every widget sends its own.
    """

    _esm = PAGE

    def __init__(self) -> None:
        self._ready = False
        super().__init__()
        self.on_msg(self._told)

    def _told(self, widget: Widget, content: Any, buffers: Any) -> None:
        self._ready = content == "ready"

    @contextmanager
    def gathering(self, widgets: Iterable[Widget]) -> Iterator[None]:
        """Send what these widgets send meanwhile when it is over."""
        comms = [widget.comm for widget in widgets if widget.comm is not None]
        if not self._ready or self.comm is None:
            yield
            return
        updates: list[tuple[str, Any, int]] = []
        parts: list[Any] = []

        def gather(own: Any) -> Callable[..., None]:
            def send(data: Any = None, metadata: Any = None, buffers: Any = None) -> None:
                if data.get("method") != "update":  # an echo answers the message that it came with
                    type(own).send(own, data, metadata, buffers)
                    return
                updates.append((own.comm_id, data, len(buffers or ())))
                parts.extend(buffers or ())

            return send

        for comm in comms:
            comm.send = gather(comm)
        try:
            yield
        finally:
            for comm in comms:
                del comm.send
            if updates:
                self.send(updates, parts)
