"""What a machine without Docker, or without a container registry, needs to run Berth."""
