"""What connects a browser to a kernel under ``qviz lab``: Jupyter's own, with messages that leave at once."""

from __future__ import annotations

from asyncio import Future

from jupyter_server.services.kernels.connection.channels import ZMQChannelsWebsocketConnection


class PromptConnection(ZMQChannelsWebsocketConnection):
    """A kernel's websocket without Nagle's algorithm.

    A widget that moves sends several small messages. With the algorithm the second waits until the first is
    acknowledged, which browsers put off for 40 ms: under a held key GridExplorer shows 17 pictures a second
    instead of 14, a plain bqplot page 27 instead of 17.
    """

    def connect(self) -> Future[None] | None:
        """Connect, after TCP was told not to collect small messages."""
        self.websocket_handler.set_nodelay(True)
        return super().connect()
