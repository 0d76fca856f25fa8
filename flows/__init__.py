"""What happens, in order: the body of a flow is the diagram."""

import os

# Prefect's temporary server needs longer than its default on a slow machine, and calls nobody at home.
os.environ.setdefault("PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS", "120")
os.environ.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")
