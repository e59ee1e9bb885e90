"""The command `reactor doctor`: prints the findings, and asks before it changes anything."""

import sys
from collections.abc import Iterable
from typing import Annotated, Any

from cyclopts import Parameter

from reactor.cli.flags import settings_with_redis, with_settings
from reactor.errors import ReactorError, SettingError

_Flag = Annotated[bool, Parameter(show_default=False)]


class CouldNotExamine(ReactorError):
    """Nothing was examined."""

    exit_code = 2


@with_settings(no_redis="that of a reactor serve here")
async def doctor(
    *,
    fix: _Flag = False,
    yes: _Flag = False,
    json: Annotated[bool, Parameter(show_default=False, help="Write JSON lines, as into a pipe.")] = False,
    plain: _Flag = False,
    **flags: str | None,
) -> int:
    """Examine Redis and the settings as the server would use them; show what is wrong and how to fix it.

    Nothing is changed; two temporary keys expire on each primary. The exit code is 0 when there is no problem
    (there may be notes), 1 when there is one, 2 when nothing could be examined: the call was wrong, or no
    Redis answers.

    Parameters
    ----------
    fix
        Apply on every server the fixes that are commands; show them and ask first.
    yes
        Do not ask; apply all of them.
    plain
        Write one line of text for each finding, without tables and colors, for a log or a ticket.
    """
    from reactor.doctor.report import examined

    asks = sys.stdin.isatty() and sys.stdout.isatty()
    if fix and not (yes or asks):
        raise CouldNotExamine(
            "--fix asks before it changes anything, but there is no terminal here: add --yes."
        )
    try:
        settings = settings_with_redis(flags)
    except SettingError:
        raise
    except ReactorError as error:
        raise CouldNotExamine(str(error)) from None
    fixed: set[tuple[str, str, str]] = set()
    if fix:
        async with examined(settings) as (report, deployment):
            if deployment is not None:
                fixed = await _apply_fixes(report.findings, deployment, ask=not yes)
    async with examined(settings) as (report, _):
        if plain:
            _show_plain(report.findings)
        else:
            _show(report.findings, settings.redis_url or "", fixed, json=json, complete=report.complete)
        return report.exit_code


async def _apply_fixes(findings: Any, deployment: Any, *, ask: bool) -> set[tuple[str, str, str]]:
    """Apply the fixes, and offer to write them into the servers' configuration files; what was fixed."""
    from reactor.doctor.apply import apply, commands_of, config_rewrites

    commands = commands_of(findings)
    if not commands:
        _print("There is nothing to apply.")
        return set()
    _print("To be applied, with effect on all data of these servers:")
    _print(*(f"  {command.where}  {command}" for command in commands))
    if ask and not await _confirm("Apply?"):
        return set()
    applied = await apply(deployment, commands)
    _print_refused(applied)
    files = config_rewrites(deployment, applied)
    if files:
        _print("To be written to the configuration, to keep it after a restart:")
        _print(*(f"  {command.where}  {command}, to {file}" for command, file in files.items()))
        if not ask or await _confirm("Write?"):
            _print_refused(await apply(deployment, list(files)))
    accepted = {fix.command for fix in applied if not fix.refused}
    without_file = {command.where for command in accepted if command.words[0] == "CONFIG"}
    without_file -= {command.where for command in files}
    for where in sorted(without_file):
        _print(f"  {where} has no configuration file: the change is lost when it restarts.")
    return {
        (finding.check, finding.what, finding.where) for finding in findings if finding.command in accepted
    }


def _print_refused(applied: Iterable[Any]) -> None:
    _print(
        *(f"  {fix.command.where}  {fix.command}: refused: {fix.refused}" for fix in applied if fix.refused)
    )


def _print(*lines: str) -> None:
    """Write to standard error; standard output may be JSON."""
    from reactor.log import printable

    for line in lines:
        sys.stderr.write(f"{printable(line)}\n")
    sys.stderr.flush()


async def _confirm(question: str) -> bool:
    import anyio

    sys.stderr.write(f"{question} [y/N] ")
    sys.stderr.flush()
    await anyio.wait_readable(sys.stdin)  # unlike a read, this can be cancelled by Ctrl-C
    return sys.stdin.readline().strip().lower() in {"y", "yes"}


def _show_plain(findings: Any) -> None:
    from reactor.cli.findings import as_line

    for finding in findings:
        sys.stdout.write(f"{as_line(finding)}\n")


def _show(findings: Any, url: str, fixed: set[tuple[str, str, str]], *, json: bool, complete: bool) -> None:
    from reactor.cli import output
    from reactor.cli.findings import as_dict, print_report

    if output.use_json(json):
        for finding in findings:
            output.print_json(as_dict(finding, fixed=(finding.check, finding.what, finding.where) in fixed))
    else:
        print_report(findings, url, complete=complete)
