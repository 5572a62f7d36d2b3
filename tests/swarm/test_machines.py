"""What the tests of a swarm stand on: engines that are three machines to each other."""

import requests

from tests.stack.stack import image, poll
from tests.swarm.machines import Machines

_SERVER = (
    "import http.server, os\n"
    "class Handler(http.server.BaseHTTPRequestHandler):\n"
    "    def do_GET(self):\n"
    "        self.send_response(200)\n"
    "        self.end_headers()\n"
    "        self.wfile.write(os.environ['NODE'].encode())\n"
    "http.server.HTTPServer(('', 8080), Handler).serve_forever()\n"
)


def who_answers(machines: Machines) -> set[str]:
    """Return the names that the machines give at their own addresses."""
    answers = set()
    for number in machines.numbers:
        try:
            answers.add(requests.get(f"http://{machines.address(number)}:8080", timeout=2).text)
        except requests.RequestException:
            continue
    return answers


def test_machine_that_dies_leaves_a_quorum_and_comes_back(machines: Machines) -> None:
    """Each runs what is in the registry, and is reached at its own address."""
    name = machines.push(image("python"))
    # A stack's Traefik may have the usual ports.
    machines.docker(
        *(1, "service", "create", "--quiet", "--detach", "--name=who", "--mode=global"),
        *("--endpoint-mode=dnsrr", "--publish=mode=host,target=8080,published=8080"),
        *("--env=NODE={{.Node.Hostname}}", name, "python", "-c", _SERVER),
    )
    everybody = {f"node{number}" for number in machines.numbers}
    poll("all three", lambda: who_answers(machines) == everybody, seconds=90)

    leader = machines.leader()
    other = leader % machines.count + 1
    machines.kill(leader)
    poll("another leader", lambda: machines.leader() != leader)
    poll("the loss", lambda: machines.node(leader, by=other) == "down active", seconds=60)
    assert who_answers(machines) == everybody - {f"node{leader}"}
    machines.start(leader)
    poll("all three again", lambda: who_answers(machines) == everybody, seconds=60)
    machines.docker(other, "service", "rm", "who")
