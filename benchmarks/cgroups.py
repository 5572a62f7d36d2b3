"""What a container has used, from its control group; versions 1 and 2."""

from pathlib import Path

from host.commands import UserError

ROOT = Path("/sys/fs/cgroup")


class Cgroup:
    """A container's control group, found by its first process."""

    def __init__(self, container: str, pid: int) -> None:
        self._container = container
        paths: dict[str, str] = {}
        for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            for controller in controllers.split(","):
                paths[controller] = path.lstrip("/")
        self._version = 1 if "cpuacct" in paths else 2
        if self._version == 1:
            self._cpu = ROOT / "cpuacct" / paths["cpuacct"]
            self._memory = ROOT / "memory" / paths["memory"]
        else:
            self._cpu = self._memory = ROOT / paths[""]
        if not self._cpu.is_dir():
            raise UserError(f"{self._cpu} does not exist: run this where Docker runs")

    def cpu_seconds(self) -> float:
        """Processor time since the container started."""
        if self._version == 1:
            return int(self._read(self._cpu / "cpuacct.usage")) / 1e9
        return self._field(self._cpu / "cpu.stat", "usage_usec") / 1e6

    def memory_mib(self) -> float:
        """Memory in use as `docker stats` counts it: less the cache that could go at once."""
        if self._version == 1:
            used = int(self._read(self._memory / "memory.usage_in_bytes"))
            cache = self._field(self._memory / "memory.stat", "total_inactive_file")
        else:
            used = int(self._read(self._memory / "memory.current"))
            cache = self._field(self._memory / "memory.stat", "inactive_file")
        return (used - cache) / 2**20

    def _field(self, file: Path, name: str) -> int:
        fields = dict(line.split() for line in self._read(file).splitlines())
        return int(fields[name])

    def _read(self, file: Path) -> str:
        try:
            return file.read_text()
        except OSError:
            raise UserError(f"{self._container} ended while it was measured") from None
