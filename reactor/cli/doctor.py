"""The command `reactor doctor`: shows what the doctor finds, and asks before anything is set."""

import sys
from collections.abc import Iterable
from typing import Annotated, Any

from cyclopts import Parameter

from reactor.cli.flags import settings_with_redis, with_settings
from reactor.errors import ReactorError, SettingError

_Flag = Annotated[bool, Parameter(show_default=False)]


class CouldNotLook(ReactorError):
    """Nothing was examined."""

    exit_code = 2


@with_settings(no_redis="that of a reactor serve here")
async def doctor(
    *,
    fix: _Flag = False,
    yes: _Flag = False,
    json: Annotated[bool, Parameter(show_default=False, help="Write JSON lines, as into a pipe.")] = False,
    **flags: str | None,
) -> int:
    """Examine Redis and the settings as the server would have them; say what is wrong and what mends it.

    Nothing is changed, but that two throwaway keys expire on each primary. The exit code is 0 when there is
    no problem (there may be notes), 1 when there is one, 2 when it could not look: it was called wrongly, or
    no Redis answers.

    Parameters
    ----------
    fix
        Set on every server what may be set, after saying what; ask first.
    yes
        Do not ask: yes to all of it.
    """
    from reactor.doctor.examine import examined

    asks = sys.stdin.isatty() and sys.stdout.isatty()
    if fix and not (yes or asks):
        raise CouldNotLook("--fix asks before it sets anything, and there is no terminal here: add --yes.")
    try:
        settings = settings_with_redis(flags)
    except SettingError:
        raise
    except ReactorError as error:
        raise CouldNotLook(str(error)) from None
    fixed: set[tuple[str, str, str]] = set()
    if fix:
        async with examined(settings) as (report, patient):
            if patient is not None:
                fixed = await _treat(report.findings, patient, ask=not yes)
    async with examined(settings) as (report, _):
        _show(report.findings, settings.redis_url or "", fixed, json=json, looked=report.looked)
        return report.exit_code


async def _treat(findings: Any, patient: Any, *, ask: bool) -> set[tuple[str, str, str]]:
    """Set what may be set, and offer to write it into the servers' files; what was set, and where."""
    from reactor.doctor.apply import apply, fixes_of, rewrites

    fixes = fixes_of(findings)
    if not fixes:
        _say("Nothing is to be set.")
        return set()
    _say("To be set, for all that these servers hold:", *(f"  {fix.where}  {fix}" for fix in fixes))
    if ask and not await _yes("Set this?"):
        return set()
    done = await apply(patient, fixes)
    _tell_refused(done)
    files = rewrites(patient, done)
    if files:
        _say("To be written, so that it holds after a restart:")
        _say(*(f"  {fix.where}  {fix}, into {file}" for fix, file in files.items()))
        if not ask or await _yes("Write this?"):
            _tell_refused(await apply(patient, list(files)))
    without = {one.fix.where for one in done if not one.refused and one.fix.command[0] == "CONFIG"}
    without -= {fix.where for fix in files}
    for where in sorted(without):
        _say(f"  {where} has no configuration file: this holds until it restarts.")
    applied = {one.fix for one in done if not one.refused}
    return {(finding.check, finding.what, finding.where) for finding in findings if finding.fix in applied}


def _tell_refused(done: Iterable[Any]) -> None:
    _say(*(f"  {one.fix.where}  {one.fix}: refused: {one.refused}" for one in done if one.refused))


def _say(*lines: str) -> None:
    """Write to a person; standard output may be JSON."""
    from reactor.log import printable

    for line in lines:
        sys.stderr.write(f"{printable(line)}\n")
    sys.stderr.flush()


async def _yes(question: str) -> bool:
    import anyio

    sys.stderr.write(f"{question} [y/N] ")
    sys.stderr.flush()
    await anyio.wait_readable(sys.stdin)  # unlike a read, this ends by Ctrl-C
    return sys.stdin.readline().strip().lower() in {"y", "yes"}


def _show(findings: Any, url: str, fixed: set[tuple[str, str, str]], *, json: bool, looked: bool) -> None:
    from reactor.cli import output
    from reactor.cli.findings import as_dict, tell

    if output.use_json(json):
        for finding in findings:
            output.print_json(as_dict(finding, fixed=(finding.check, finding.what, finding.where) in fixed))
    else:
        tell(findings, url, looked=looked)
