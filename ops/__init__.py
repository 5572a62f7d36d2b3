"""What the operator of a Berth host runs: up, deploy, rollback, doctor."""

import host  # noqa: F401 - it sends a Python that is too old to a newer one
