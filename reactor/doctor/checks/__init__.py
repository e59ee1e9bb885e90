"""The checks. Each module of this folder judges one subject and registers its functions here.

A new check is a new module; nothing else has to name it.
"""

from collections.abc import Callable, Iterable
from functools import cache
from importlib import import_module
from pkgutil import iter_modules

from reactor.doctor.deployment import Deployment
from reactor.doctor.finding import Finding
from reactor.settings import Settings

DeploymentCheck = Callable[[Deployment], Iterable[Finding]]
SettingsCheck = Callable[[Settings], Iterable[Finding]]

_deployment_checks: dict[DeploymentCheck, int] = {}
_settings_checks: dict[SettingsCheck, int] = {}


def deployment_check(*, order: int) -> Callable[[DeploymentCheck], DeploymentCheck]:
    """Register a function that judges a deployment. order: its position in the report, ascending."""

    def register(function: DeploymentCheck) -> DeploymentCheck:
        _deployment_checks[function] = order
        return function

    return register


def settings_check(*, order: int) -> Callable[[SettingsCheck], SettingsCheck]:
    """Register a function that judges the settings, also where no Redis answers."""

    def register(function: SettingsCheck) -> SettingsCheck:
        _settings_checks[function] = order
        return function

    return register


def check_deployment(deployment: Deployment) -> list[Finding]:
    """The findings of every check of deployments, in the order of the report."""
    _load()
    ordered = sorted(_deployment_checks, key=_deployment_checks.__getitem__)
    return [finding for check in ordered for finding in check(deployment)]


def check_settings(settings: Settings) -> list[Finding]:
    """The findings of every check of settings, in the order of the report."""
    _load()
    ordered = sorted(_settings_checks, key=_settings_checks.__getitem__)
    return [finding for check in ordered for finding in check(settings)]


@cache
def _load() -> None:
    """Import every module of this folder once, so that its checks are registered."""
    for module in iter_modules(__path__):
        import_module(f"{__name__}.{module.name}")
