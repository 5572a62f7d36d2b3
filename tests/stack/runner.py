"""The runners of GitHub and GitLab, as far as the files of docs/ci/ ask for them.

Each job has a container of its own with clean clones in it, and each script a bash as there. Its
environment has what the file names and no more; what is set for an environment comes to its jobs.
"""

import os
import re
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from host.app import default_python
from tests.stack.stack import docker, image, poll

LAPTOP = "berth-test-laptop"
# What stands for images that a job asks for by other versions than this machine has.
_IMAGES = {"debian": LAPTOP, "python": default_python(), "postgres": image("postgres")}
# An option: with this machine's engine.
ENGINE = "--volume=/var/run/docker.sock:/var/run/docker.sock"
_WORKSPACE = "/builds/you/shop"
_PUSHED = "github.event_name == 'push'"


@dataclass(frozen=True)
class Forge:
    """What somebody has at GitHub or GitLab.

    Attributes:
        repositories: A folder with a repository at each path that the files name.
        registry: The name of the app's images.
        token: What lets into the registry as user `berth`.
        production: The variables of this environment, by their names.
        key: Its secret, DEPLOY_KEY.
        network: Docker's, that the server is on.
        server: The server's address in it.
    """

    repositories: Path
    registry: str
    token: str
    production: Mapping[str, str]
    key: str
    network: str
    server: str

    def github(self, workflow: str, commit: str) -> str:
        """Run a workflow, as a push to its branch does; returns its log."""
        parsed = yaml.safe_load(workflow)
        log = ""
        known = {"github.token": self.token}
        known |= {f"env.{name}": value for name, value in parsed["env"].items()}
        ended: set[str] = set()
        for name, job in parsed["jobs"].items():
            assert job.get("needs") in {None, *ended}
            assert job.get("if", _PUSHED) == _PUSHED
            given = dict(known)
            if job.get("environment") == "production":
                given |= {f"vars.{name}": value for name, value in self.production.items()}
                given["secrets.DEPLOY_KEY"] = self.key
            # A machine with an engine.
            host = f"--add-host={self.production['SERVER'].partition('@')[2]}:{self.server}"
            with self._job(LAPTOP, "--network=host", host, ENGINE) as container:
                for step in job["steps"]:
                    if "uses" in step:
                        assert re.fullmatch(r"actions/checkout@[0-9a-f]{40}", step["uses"])
                        wanted = {k: _value(v, given) for k, v in step["with"].items()}
                        self._check_out(container, **{"ref": commit} | wanted)
                        continue
                    own = {k: _value(v, given) for k, v in step.get("env", {}).items()}
                    variables = {"GITHUB_ACTOR": "berth", "GITHUB_SHA": commit}
                    log += self._bash(container, parsed["env"] | variables | own, step["run"])
            ended.add(name)
        return log

    def gitlab(self, pipeline: str, commit: str) -> str:
        """Run a pipeline, as a push to the default branch does; returns its log."""
        parsed = yaml.safe_load(pipeline)
        jobs = [one for one in parsed.values() if isinstance(one, dict) and "stage" in one]
        jobs.sort(key=lambda one: int(parsed["stages"].index(one["stage"])))
        return "".join(
            self._gitlab_job(commit, parsed["variables"], parsed.get(job.get("extends"), {}) | job)
            for job in jobs
        )

    def _gitlab_job(self, commit: str, variables: Mapping[str, str], job: Mapping[str, Any]) -> str:
        predefined = {
            "CI_COMMIT_SHA": commit,
            "CI_REGISTRY": self.registry.partition("/")[0],
            "CI_REGISTRY_IMAGE": self.registry,
            "CI_REGISTRY_USER": "berth",
            "CI_REGISTRY_PASSWORD": self.token,
        }
        own = {**variables, **job.get("variables", {})}
        services = list(job.get("services", []))
        options = [f"--network={self.network}"]
        if services == ["docker:28-dind"]:  # which this machine's engine stands for
            options.append(ENGINE)
            own = {name: value for name, value in own.items() if not name.startswith("DOCKER_")}
            services = []
        with ExitStack() as running:
            for service in services:
                running.enter_context(self._service(service, own))
            container = running.enter_context(self._job(_here(job["image"]), *options))
            own |= predefined
            if job.get("environment") == "production":
                files = {"KNOWN_HOSTS": self.production["KNOWN_HOSTS"], "DEPLOY_KEY": self.key}
                own["SERVER"] = self.production["SERVER"]
                for name, text in files.items():
                    own[name] = f"/{name}"
                    _write(container, own[name], text)
            self._check_out(container, ref=commit)
            script = "\n".join([*job.get("before_script", []), *job["script"]])
            return self._bash(container, own, f"set -o pipefail\n{script}")

    @contextmanager
    def _job(self, name: str, *options: str) -> Iterator[str]:
        container = docker(
            *("run", "--detach", "--init", "--rm", f"--workdir={_WORKSPACE}", *options),
            *(f"--volume={self.repositories}:{self.repositories}:ro", name, "sleep", "infinity"),
        )
        try:
            yield container
        finally:
            docker("rm", "--force", container)

    @contextmanager
    def _service(self, name: str, variables: Mapping[str, str]) -> Iterator[None]:
        alias = f"--network-alias={name.partition(':')[0]}"
        given = [f"--env={name}={value}" for name, value in variables.items()]
        container = docker(
            *("run", "--detach", "--rm", f"--network={self.network}", alias, *given, _here(name))
        )
        try:
            ready = f"docker exec {container} pg_isready --quiet --host=127.0.0.1"
            poll("the service", lambda: subprocess.call(ready.split()) == 0)
            yield
        finally:
            docker("rm", "--force", "--volumes", container)

    def _check_out(
        self,
        container: str,
        *,
        ref: str,
        repository: str = "you/shop",
        path: str = ".",
        **_: object,
    ) -> None:
        clone = (
            f"git clone --quiet {self.repositories}/{repository} /clone && cd /clone"
            f" && git checkout --quiet {ref} && tar -c ."
        )
        fetched = ["docker", "run", "--rm", f"--volume={self.repositories}:{self.repositories}:ro"]
        with subprocess.Popen([*fetched, LAPTOP, "sh", "-c", clone], stdout=subprocess.PIPE) as git:
            into = f"{_WORKSPACE}/{path}"
            unpack = f"mkdir -p {into} && tar -x --no-same-owner -C {into}"
            command = ["docker", "exec", "--interactive", container, "sh", "-c", unpack]
            subprocess.run(command, stdin=git.stdout, check=True)
        assert git.returncode == 0

    def _bash(self, container: str, variables: Mapping[str, str], script: str) -> str:
        """Run a script and return its log, in which there is no secret, nor in any argument."""
        assert "${{" not in script  # which would become part of the script, whatever is in it
        _write(container, "/script", script)
        done = subprocess.run(
            [
                *("docker", "exec", *(f"--env={name}" for name in variables)),
                *(container, "sh", "-c"),
                "BASH_XTRACEFD=9 exec bash -e -o xtrace /script 9> /trace",
            ],
            env={**os.environ, **variables},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
            timeout=300,
        )
        log = done.stdout
        assert done.returncode == 0, log
        commands = docker("exec", container, "cat", "/trace")
        for secret in (self.token, *self.key.splitlines()[1:-1]):
            assert secret not in log
            assert secret not in commands
        return log


def _here(name: str) -> str:
    return _IMAGES[name.partition(":")[0]]


def _value(given: object, known: Mapping[str, str]) -> Any:  # noqa: ANN401
    if not isinstance(given, str):
        return given
    return re.sub(r"\$\{\{ ([\w.]+) \}\}", lambda found: known[found[1]], given)


def _write(container: str, path: str, text: str) -> None:
    command = ["docker", "exec", "--interactive", container, "sh", "-c", f"cat > {path}"]
    subprocess.run(command, input=text, text=True, check=True)
