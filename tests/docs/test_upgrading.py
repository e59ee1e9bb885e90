"""The document on upgrades names every right that the present release needs."""

import re

from reactor import __version__
from reactor.presence.rights import (
    CLUSTER_COMMANDS,
    CLUSTER_SUBSCRIBE_COMMANDS,
    KEY_COMMANDS,
    OPTIONAL_COMMANDS,
    OTHER_COMMANDS,
    SUBSCRIBE_COMMANDS,
)
from tests.docs.documents import section

RIGHTS = section("scripts/deploy/UPGRADING.md", "## Rights in Redis, by release")
RELEASE = r"(\d+\.\d+\.\d+)"


def rights_of(text: str) -> set[str]:
    return set(re.findall(r"`\+([a-z|]+)`", text))


def test_the_rows_of_all_releases_together_are_the_rights_that_are_needed():
    rows = re.findall(rf"^\| {RELEASE}(.*?) \| (.*?) \|$", RIGHTS, re.MULTILINE)
    assert __version__ in {release for release, _, _ in rows}
    single = set[str]().union(*(rights_of(rights) for _, more, rights in rows if "cluster" not in more))
    cluster = set[str]().union(*(rights_of(rights) for _, more, rights in rows if "cluster" in more))
    assert single == {*KEY_COMMANDS, *OTHER_COMMANDS, *SUBSCRIBE_COMMANDS}
    assert cluster == {*CLUSTER_COMMANDS, *CLUSTER_SUBSCRIBE_COMMANDS}


def test_the_optional_rights_are_named():
    (line,) = re.findall(r"^Optional, .*$", RIGHTS, re.MULTILINE)
    assert rights_of(line) == set(OPTIONAL_COMMANDS)
