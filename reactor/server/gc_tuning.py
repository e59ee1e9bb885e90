"""Has Python look for cycles less often: here hardly anything makes any, and members live long."""

import gc


def spare_the_collector() -> None:
    """Set the collector for a process that serves.

    With Python's defaults it takes a tenth of the time of a storm of joins, in which all that is new stays.
    """
    gc.collect()
    gc.freeze()  # what was imported is never looked at again
    gc.set_threshold(20_000, 50, 50)
