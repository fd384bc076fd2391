"""Nothing phones home and nothing is written outside a private home: environment, set before heavy imports."""

from __future__ import annotations

import os
from pathlib import Path

from pipeline.scene.errors import InputError


def home() -> Path:
    """occfactory's own folder for Prefect's database and caches: $OCCFACTORY_HOME, else the user's cache folder."""
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(os.environ.get("OCCFACTORY_HOME") or Path(cache) / "occfactory")


def quiet_environment() -> None:
    """Telemetry off, Prefect in its private home and calm; what the user has set stays."""
    os.environ.update(DO_NOT_TRACK="1", PREFECT_SERVER_ANALYTICS_ENABLED="false", HF_HUB_DISABLE_TELEMETRY="1")
    os.environ.update(RAY_USAGE_STATS_ENABLED="0")
    defaults = {
        "PREFECT_HOME": str(home() / "prefect"),
        "PREFECT_SERVER_ALLOW_EPHEMERAL_MODE": "true",
        "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120",
        "PREFECT_LOGGING_LEVEL": "WARNING",
        "PREFECT_LOGGING_SERVER_LEVEL": "CRITICAL",
        "PREFECT_SHOW_CLI_ART": "false",
    }
    for name, value in defaults.items():
        os.environ.setdefault(name, value)


def make_prefect_home() -> None:
    """Prefect makes its home, but not the folders above it. Raises InputError."""
    place = Path(os.environ["PREFECT_HOME"])
    try:
        place.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(place, "a folder to keep Prefect's database", str(error), "set OCCFACTORY_HOME") from None
