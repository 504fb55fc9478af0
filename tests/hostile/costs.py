"""What one input costs, in processor time of this thread and in memory."""

from __future__ import annotations

import resource
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from .attacks import Figures


@dataclass
class Limits:
    """What an input may cost.

    Attributes:
        seconds: Processor time of this thread; ten times what the worst should take, as machines are busy.
        megabytes: By how much the peak memory of this process may rise.
    """

    seconds: float
    megabytes: float

    @contextmanager
    def hold(self, figures: Figures, example: object) -> Iterator[None]:
        """Measure what is done meanwhile, and note where it exceeds a limit."""
        with suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew, where there is Linux
        began, peak = time.thread_time(), _peak()
        yield
        seconds, megabytes = time.thread_time() - began, _peak() - peak
        figures.measure("seconds of processor time", seconds)
        figures.measure("MB more at the peak", megabytes)
        if seconds > self.seconds:
            figures.breaks(f"at most {self.seconds} s of processor time", f"{seconds:.1f} s: {example}")
        if megabytes > self.megabytes:
            figures.breaks(f"at most {self.megabytes} MB more at the peak", f"{megabytes:.0f} MB: {example}")


def _peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
