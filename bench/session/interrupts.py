"""Keep a Ctrl-C that falls where Python drops exceptions: a garbage collector's callback, a `__del__`."""

import _thread
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

_SOON_S = 0.05  # at once it would fall into the same place, and be lost again


@contextmanager
def kept_interrupts() -> Iterator[None]:
    """Within it, a KeyboardInterrupt that Python drops is raised once more, a moment later."""
    before = sys.unraisablehook

    def raise_again(dropped: "sys.UnraisableHookArgs") -> None:
        if issubclass(dropped.exc_type, KeyboardInterrupt):
            threading.Timer(_SOON_S, _thread.interrupt_main).start()
        else:
            before(dropped)

    sys.unraisablehook = raise_again
    try:
        yield
    finally:
        sys.unraisablehook = before
