import logging


def configure(level: str) -> None:
    """Send every record of this process to stderr, one line each."""
    logging.basicConfig(
        level=level, format="%(asctime)s %(levelname)-7s %(name)s: %(message)s", force=True
    )
