"""Sets what may be set, and writes it into the servers' files where that is wanted."""

from collections.abc import Sequence
from dataclasses import dataclass

from reactor.backend.clients import CONNECTION_ERRORS
from reactor.doctor.deployment import Patient
from reactor.doctor.finding import Finding, Fix
from reactor.doctor.look import said


@dataclass(frozen=True, slots=True)
class Done:
    """What became of a command; `refused` says why nothing did."""

    fix: Fix
    refused: str = ""


def fixes_of(findings: Sequence[Finding]) -> list[Fix]:
    """What may be set, each command once for each server."""
    return list(dict.fromkeys(finding.fix for finding in findings if finding.fix is not None))


async def apply(patient: Patient, fixes: Sequence[Fix]) -> list[Done]:
    """Send the commands, each to its server."""
    done = []
    for fix in fixes:
        client = patient.client_of(fix.where)
        # Somebody may have thought about it for longer than the server keeps an idle connection.
        await client.connection_pool.disconnect()
        try:
            await client.execute_command(*fix.command)  # type: ignore[no-untyped-call]
        except CONNECTION_ERRORS as error:
            done.append(Done(fix, said(error) or type(error).__name__))
        else:
            done.append(Done(fix))
    return done


def rewrites(patient: Patient, done: Sequence[Done]) -> dict[Fix, str]:
    """The commands that write what was set into the servers' configuration files, each with its file."""
    changed = {one.fix.where for one in done if not one.refused and one.fix.command[0] == "CONFIG"}
    found = {}
    for server in patient.seen:
        file = str(server.info.get("config_file", ""))
        if server.name in changed and file:
            found[Fix(where=server.name, command=("CONFIG", "REWRITE"))] = file
    return found
