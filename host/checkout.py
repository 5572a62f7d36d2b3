"""The repository's files, which containers read as users of their own."""

from collections.abc import Iterator
from pathlib import Path

from host.commands import UserError, say

ROOT = Path(__file__).parent.parent
_TO_READ = 0o044
_TO_ENTER = 0o055


def ensure(root: Path = ROOT) -> None:
    """Let others than their owner read the files of a checkout that was made under umask 077.

    Whoever may not enter the checkout itself still sees none of them: its own mode stays.

    Raises:
        UserError: This user may not change them.
    """
    ignored = {line.strip("/") for line in (root / ".gitignore").read_text().splitlines()}
    closed = {path: mode for path in _shipped(root, ignored) if (mode := _missing(path))}
    if not closed:
        return
    say("the checkout is for its owner alone: containers, which are others, get to read it")
    try:
        for path, mode in closed.items():
            path.chmod(path.stat().st_mode | mode)
    except PermissionError:
        raise UserError(
            f"containers may not read what is in {root}: `sudo chmod -R go+rX {root}`"
        ) from None


def _shipped(folder: Path, ignored: set[str]) -> Iterator[Path]:
    """Return what is in a folder, but for hidden files, links and what git does not keep."""
    for path in folder.iterdir():
        if path.name.startswith(".") or path.name in ignored or path.is_symlink():
            continue
        yield path
        if path.is_dir():
            yield from _shipped(path, ignored)


def _missing(path: Path) -> int:
    """Return the permissions that a file or folder lacks for others to read it."""
    mode = path.stat().st_mode
    wanted = _TO_ENTER if mode & 0o100 else _TO_READ
    return wanted & ~mode
