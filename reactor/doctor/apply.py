"""Sends the commands that fix findings, and those that write the changes into the configuration files."""

from collections.abc import Sequence
from dataclasses import dataclass

from reactor.backend.clients import CONNECTION_ERRORS
from reactor.doctor.deployment import Deployment, error_text
from reactor.doctor.finding import Finding, FixCommand


@dataclass(frozen=True, slots=True)
class AppliedFix:
    """A command that was sent. refused: the server's reason when it did not execute it."""

    command: FixCommand
    refused: str = ""


def commands_of(findings: Sequence[Finding]) -> list[FixCommand]:
    """The commands that the findings propose, without repetitions."""
    return list(dict.fromkeys(finding.command for finding in findings if finding.command is not None))


async def apply(deployment: Deployment, commands: Sequence[FixCommand]) -> list[AppliedFix]:
    """Send each command to its server; what became of each."""
    applied = []
    for command in commands:
        client = deployment.client_of(command.where)
        # The operator may have thought for longer than the server keeps an idle connection open.
        await client.connection_pool.disconnect()
        try:
            await client.execute_command(*command.words)  # type: ignore[no-untyped-call]
        except CONNECTION_ERRORS as error:
            applied.append(AppliedFix(command, error_text(error)))
        else:
            applied.append(AppliedFix(command))
    return applied


def config_rewrites(deployment: Deployment, applied: Sequence[AppliedFix]) -> dict[FixCommand, str]:
    """The commands that write the applied changes into configuration files, each with its file's path."""
    changed = {fix.command.where for fix in applied if not fix.refused and fix.command.words[0] == "CONFIG"}
    rewrites = {}
    for server in deployment.reachable:
        file = str(server.info.get("config_file", ""))
        if server.name in changed and file:
            rewrites[FixCommand(where=server.name, words=("CONFIG", "REWRITE"))] = file
    return rewrites
