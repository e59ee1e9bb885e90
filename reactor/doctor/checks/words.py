"""Numbers as people read them."""


def milliseconds(seconds: float) -> str:
    """A short time."""
    return f"{seconds * 1000:.1f} ms" if seconds < 0.1 else f"{seconds * 1000:.0f} ms"


def span(seconds: float) -> str:
    """A time of any length."""
    return milliseconds(seconds) if seconds < 1 else f"{seconds:.1f} s".replace(".0 s", " s")


def size(count: int) -> str:
    """Bytes."""
    for unit, name in ((1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")):
        if count >= unit:
            return f"{count / unit:.1f} {name}".replace(".0 ", " ")
    return f"{count} bytes"
