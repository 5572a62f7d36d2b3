"""A headless browser beside Traefik, driven by the DevTools protocol over a pipe."""

import base64
import itertools
import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from tests.stack.inside import ATTACKER
from tests.stack.stack import HERE, Stack, docker, poll

COMMAND = (
    *("chromium-headless-shell", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"),
    *("--ignore-certificate-errors", "--user-data-dir=/tmp/browser", "--remote-debugging-pipe"),
)


@dataclass
class Browser:
    """One page, as a person behind a login dialog sees it.

    Attributes:
        login: What is typed when the browser asks for user and password.
        complaints: What its console and its policy had to say.
        asked: The address of every request.
    """

    process: subprocess.Popen[bytes]
    login: tuple[str, str]
    complaints: list[str] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)
    _session: dict[str, str] = field(default_factory=dict)
    _numbers: Iterator[int] = field(default_factory=itertools.count)

    def _send(self, method: str, **parameters: object) -> int:
        number = next(self._numbers)
        message = {"id": number, "method": method, "params": parameters, **self._session}
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(message).encode() + b"\0")
        self.process.stdin.flush()
        return number

    def _receive(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        one_byte = partial(self.process.stdout.read, 1)
        text = b"".join(itertools.takewhile(bool, iter(one_byte, b"\0")))
        assert text, "the browser has ended"
        message: dict[str, Any] = json.loads(text)
        return message

    def call(self, method: str, **parameters: object) -> dict[str, Any]:
        """Call a method of the protocol, and note what happens until it answers."""
        number = self._send(method, **parameters)
        while (message := self._receive()).get("id") != number:
            self._note(message.get("method", ""), message.get("params", {}))
        assert "error" not in message, message
        result: dict[str, Any] = message["result"]
        return result

    def _note(self, event: str, found: dict[str, Any]) -> None:
        if event == "Fetch.requestPaused":
            self.asked.append(found["request"]["url"])
            self._send("Fetch.continueRequest", requestId=found["requestId"])
        elif event == "Fetch.authRequired":
            user, password = self.login
            answer = {"response": "ProvideCredentials", "username": user, "password": password}
            request = found["requestId"]
            self._send("Fetch.continueWithAuth", requestId=request, authChallengeResponse=answer)
        elif event == "Runtime.exceptionThrown":
            self.complaints.append(str(found["exceptionDetails"]["exception"].get("description")))
        elif event == "Runtime.consoleAPICalled":
            self.complaints.append(json.dumps(found["args"]))
        elif event == "Log.entryAdded":
            self.complaints.append(json.dumps(found["entry"]))

    def attach(self) -> None:
        """Open a page, and see everything that it does."""
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        attached = self.call("Target.attachToTarget", targetId=target, flatten=True)
        self._session = {"sessionId": attached["sessionId"]}
        for domain in ("Page", "Runtime", "Log"):
            self.call(f"{domain}.enable")
        self.call("Fetch.enable", handleAuthRequests=True)

    def show(self, width: int, height: int, theme: str) -> None:
        """Look through a window of some size, in `dark` or `light`."""
        window = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
        self.call("Emulation.setDeviceMetricsOverride", **window)
        feature = {"name": "prefers-color-scheme", "value": theme}
        self.call("Emulation.setEmulatedMedia", features=[feature])

    def open(self, url: str) -> None:
        """Go to an address."""
        self.call("Page.navigate", url=url)

    def evaluate(self, expression: str) -> Any:  # noqa: ANN401
        """Return what a JavaScript expression is, once it is known."""
        said = self.call(
            "Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True
        )
        assert "exceptionDetails" not in said, said
        return said["result"].get("value")

    def wait_for(self, expression: str, *, seconds: float = 60) -> Any:  # noqa: ANN401
        """Return the first truthy value of a JavaScript expression."""
        return poll(expression, lambda: self.evaluate(expression), seconds=seconds)

    def screenshot(self, to: Path) -> bytes:
        """Take a picture of the whole page."""
        data = self.call("Page.captureScreenshot", captureBeyondViewport=True, format="png")["data"]
        picture = base64.b64decode(data)
        to.write_bytes(picture)
        return picture


@contextmanager
def browsing(stack: Stack, login: tuple[str, str]) -> Iterator[Browser]:
    """Run a browser that can reach nobody but Traefik."""
    docker("build", "--quiet", f"--tag={ATTACKER}", str(HERE / "attacker"))
    (traefik,) = stack.containers("traefik")
    # Every other name leads to a port where nobody listens.
    rules = f"--host-resolver-rules=MAP * 127.0.0.1:9, EXCLUDE {stack.domain}"
    process = subprocess.Popen(
        [
            *("docker", "run", "--rm", "--interactive", f"--network=container:{traefik['Id']}"),
            *(ATTACKER, "bash", "-c", 'exec 3<&0 4>&1 > /dev/null; exec "$@"', "browser"),
            *(*COMMAND, rules),
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    try:
        browser = Browser(process, login)
        browser.attach()
        yield browser
    finally:
        if process.stdin:
            process.stdin.close()
        process.wait(30)
        if process.stdout:
            process.stdout.close()
