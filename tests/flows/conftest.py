"""Prefect's home for these tests: one a test process, made before Prefect is imported."""

import os
import tempfile

from flows.quiet import quiet_environment

os.environ.setdefault("OCCFACTORY_HOME", tempfile.mkdtemp(prefix="occfactory-test-home-"))
quiet_environment()
