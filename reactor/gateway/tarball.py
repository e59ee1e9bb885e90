"""The client as a package that npm installs from an address: `npm install http://HOST:PORT/client.tgz`."""

import gzip
import io
import tarfile
from importlib.resources.abc import Traversable


def packed(folder: Traversable) -> bytes:
    """Pack the files of a folder; the same files give the same bytes, as npm's lock file wants it."""
    inside = io.BytesIO()
    with tarfile.open(fileobj=inside, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for entry in sorted(folder.iterdir(), key=lambda entry: entry.name):
            if entry.is_dir() or entry.name.startswith("."):
                continue
            content = entry.read_bytes()
            member = tarfile.TarInfo(f"package/{entry.name}")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return gzip.compress(inside.getvalue(), mtime=0)
