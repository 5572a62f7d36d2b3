import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import requests

from tests.berth.programs import Server

# For each operation and way of making cases; a deep run takes more.
EXAMPLES = os.environ.get("EXAMPLES", "200")
# That a float without a fraction is an integer is JSON Schema's opinion, not strict typing's; and
# Starlette's `Allow` names the methods of one of the routes on a path.
NOT_PROMISED = "positive_data_acceptance,allow_header_conformance"
JSON = {"Content-Type": "application/json"}


def test_the_api_keeps_its_documented_contract(api: Server, tmp_path: Path) -> None:
    """Thousands of good and bad requests: no 5xx, no answer that the documentation omits."""
    # One worker: its threads meet a bug of CPython 3.11 now and then, in compiling syntax trees.
    done = subprocess.run(
        [
            *(Path(sys.executable).parent / "schemathesis", "run", f"{api.url}/openapi.json"),
            *("--max-examples", EXAMPLES, "--mode", "all", "--seed", "1", "--workers", "1"),
            *("--checks", "all", "--exclude-checks", NOT_PROMISED, "--no-color"),
        ],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    cases = re.search(r"(\d+) generated", done.stdout)
    assert cases is not None
    assert int(cases[1]) > 2000, done.stdout


@pytest.mark.parametrize(
    ("body", "headers"),
    [
        (b"\xff\xfe{\x00}\x00", JSON),
        ('{"name": "Ünïcode"}'.encode("latin-1"), JSON),
        (b'{"name": "a\x00b"}', JSON),
        (b'{"name": "x", "quantity": 1' + b"0" * 5000 + b"}", JSON),
        (b'{"name": "x", "quantity": 1e999}', JSON),
        (b'{"name": "x", "quantity": -0.0}', JSON),
        (b'{"name":' * 50_000, JSON),
        (b'{"name": "x"}', {"Content-Type": "text/plain"}),
        (b'{"name": "x"}', {"Content-Type": "application/xml"}),
        (b"name=x", {"Content-Type": "application/x-www-form-urlencoded"}),
        (b"--x\r\n\r\n--x--", {"Content-Type": "multipart/form-data; boundary=x"}),
        (b'{"name": "x"}', {"Content-Type": "application/json", "Content-Encoding": "gzip"}),
        (b'{"name": "x"}', {"Content-Type": "\xff/\xff"}),
        (b"", {}),
    ],
)
def test_what_is_no_item_is_the_clients_fault(
    api: Server, body: bytes, headers: dict[str, str]
) -> None:
    """Wrong encodings, types and depths, numbers beyond any column."""
    answer = requests.post(f"{api.url}/items", data=body, headers=headers, timeout=5)
    if "Content-Encoding" in headers:
        assert answer.status_code == 201  # plain after all, which is what was read
    else:
        assert answer.status_code in {400, 422}


@pytest.mark.parametrize(
    "path",
    [
        *("/items/%ff", "/items/%ed%a0%80", "/items/%00", "/items/" + "0" * 36),
        *("/items?after=%00", "/items?limit=1e9", "/items?limit=%ff"),
        f"/items?limit={'9' * 5000}",
    ],
)
def test_addresses_that_make_no_sense_are_the_clients_fault(api: Server, path: str) -> None:
    """Bytes that are no UTF-8, half surrogates, numbers without end."""
    assert api.get(path).status_code == 422
