"""Links between slices: as they are, or as another network's would be.

An emulated link keeps a batch for the time that it would spend on the wire, by the rule of the simulator: a server's
network card sends one batch at a time, first come, first served, for batch size · transfer time per request, and
the batch arrives one hop latency later. The real way through this machine's memory comes on top.
"""

from dataclasses import dataclass, field

from simulator.dispatch.system import System
from simulator.executor.fleet import SliceId


@dataclass
class Links:
    """The ways between stages; with ``emulated`` they take the time that the system's network would.

    >>> Links(None).send(SliceId(0, 0, 0), 8, 1000)
    (1000, 0)
    """

    emulated: System | None
    _card_free_us: dict[SliceId, int] = field(default_factory=dict)

    def send(self, sender: SliceId, size: int, now_us: int) -> tuple[int, int]:
        """Return when a batch that leaves ``sender`` now arrives, and how long it waits for the network card."""
        if self.emulated is None:
            return now_us, 0
        here, there = (sender.pipeline, sender.stage), (sender.pipeline, sender.stage + 1)
        card = sender._replace(slice=sender.slice // int(self.emulated.card_slices[here]))
        begin_us = max(now_us, self._card_free_us.get(card, 0))
        self._card_free_us[card] = begin_us + size * int(self.emulated.transfer_us[there])
        return self._card_free_us[card] + int(self.emulated.hop_us[there]), begin_us - now_us
