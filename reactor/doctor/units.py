"""Numbers as text with a unit. PURE."""


def milliseconds(seconds: float) -> str:
    """A short time in milliseconds."""
    return f"{seconds * 1000:.1f} ms" if seconds < 0.1 else f"{seconds * 1000:.0f} ms"


def span(seconds: float) -> str:
    """A time in milliseconds or seconds."""
    return milliseconds(seconds) if seconds < 1 else f"{seconds:.1f} s".replace(".0 s", " s")


def size(count: int) -> str:
    """A number of bytes in the largest unit that fits."""
    for unit, name in ((1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")):
        if count >= unit:
            return f"{count / unit:.1f} {name}".replace(".0 ", " ")
    return f"{count} bytes"
