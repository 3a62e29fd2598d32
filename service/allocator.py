"""The C library's heap, as far as this service has to know of it."""

import ctypes
import sys


def give_back_memory() -> None:
    """Return to the system what glibc keeps, for each thread that has ever allocated; a few ms.

    Does nothing where there is another C library.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
    if trim is not None:
        trim(0)
