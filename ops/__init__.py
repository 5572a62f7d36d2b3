"""What the operator of a Berth host runs: up, deploy, rollback, doctor."""
