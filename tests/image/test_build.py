"""Apps of all kinds become images, untouched; what does not says why, in one sentence."""

import json
import os
import subprocess
from collections.abc import Callable
from datetime import UTC, datetime
from itertools import count
from pathlib import Path

import pytest
from pip._internal.models.index import PyPI

from host.app import default_python, own_build
from host.commands import UserError
from ops.docker import compose, docker
from ops.images import Image, Images, has_this_server, new_tag
from ops.stack import SERVICE, Stack
from ops.terminal import Terminal
from tests.image.test_app import written
from tests.stack.stack import CHECKOUT, REPOSITORY

PROJECT = f"berth-test-build-{CHECKOUT}"
# A release with a wheel for everybody, and an old one.
SMALL, OLD = "iniconfig==2.1.0", "iniconfig==2.0.0"
PYPROJECT = f"""
[project]
name = "shop"
version = "1"
requires-python = ">=3.11"
dependencies = ["{SMALL}"]
"""
PACKAGED = """
[build-system]
requires = ["setuptools>=78"]
build-backend = "setuptools.build_meta"
"""

Build = Callable[..., Image]


@pytest.fixture
def build(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Build:
    """Builds as `make up` does."""
    seconds = count()

    def made(folder: Path, **variables: str) -> Image:
        settings = {"COMPOSE_DISABLE_ENV_FILE": "1", "COMPOSE_PROJECT_NAME": PROJECT}
        for name, value in {**settings, "APP_DIR": str(folder), **variables}.items():
            monkeypatch.setenv(name, value)
        stack = Stack.read()
        images = Images(stack)
        tag = new_tag(datetime.fromtimestamp(next(seconds), UTC))
        request.addfinalizer(lambda: images.forget(tag))
        if own := own_build(stack.service(SERVICE)["build"]):
            request.addfinalizer(lambda: docker("image", "rm", "--force", str(own["image"])))
        return images.build(tag, replaces="", terminal=Terminal())

    return made


def uv(folder: Path, *arguments: str) -> None:
    """Run uv as the app's author would."""
    command = [str(REPOSITORY / ".venv/bin/uv"), *arguments]
    environment = {**os.environ, "UV_SYSTEM_CERTS": "1", "UV_NO_PROGRESS": "1"}
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def python(image: Image, code: str) -> str:
    """Run a line in the app's Python, as the app would."""
    return docker("run", "--rm", "--network=none", "--read-only", image.id, "python", "-c", code)


def layers(image: Image) -> list[str]:
    """Return what an image consists of, from below."""
    (found,) = json.loads(docker("image", "inspect", image.id))
    return list(found["RootFS"]["Layers"])


SAYS_ALL = """
import json, os, sys
from importlib.metadata import distributions
print(json.dumps({
    "folder": os.getcwd(), "user": os.getuid(), "last": sys.path[-1],
    "names": sorted(one.name for one in distributions()),
}))
"""


def test_workspace_of_uv(tmp_path: Path, build: Build) -> None:
    """A member with a src layout and packages that are called like Berth's, and its sibling."""
    written(
        tmp_path,
        {
            "pyproject.toml": '[tool.uv.workspace]\nmembers = ["backend", "prices"]\n',
            "backend/pyproject.toml": PYPROJECT.replace('["', '["prices", "')
            + "[tool.uv.sources]\nprices = {workspace = true}\n"
            + "[dependency-groups]\ndev = ['pytest']\n"
            + PACKAGED,
            "backend/src/shop/__init__.py": "import prices, berth, server\nANSWER = prices.ANSWER",
            "backend/src/berth.py": "",
            "backend/src/server/__init__.py": "",
            "backend/.env": "PASSWORD=x",
            "prices/pyproject.toml": '[project]\nname = "prices"\nversion = "1"\n' + PACKAGED,
            "prices/src/prices/__init__.py": "ANSWER = 42\n",
            "frontend/index.html": "",
        },
    )
    uv(tmp_path, "lock")
    image = build(tmp_path / "backend")
    assert python(image, "import shop; print(shop.ANSWER)") == "42"
    said = json.loads(python(image, SAYS_ALL))
    assert (said["user"], said["last"]) == (10001, "/opt/berth")
    assert {"iniconfig", "shop", "prices", "uvicorn"} <= set(said["names"])
    assert "pytest" not in said["names"]
    top = docker("run", "--rm", image.id, "sh", "-c", "ls -A . .. /srv/src")
    assert "src" in top
    assert ".env" not in top
    assert "frontend" not in top

    # Code alone leaves the layer of what it depends on as it is; a sibling's, too.
    written(tmp_path, {"prices/src/prices/__init__.py": "ANSWER = 43\n"})
    changed = build(tmp_path / "backend")
    assert python(changed, "import shop; print(shop.ANSWER)") == "43"
    same = [a for a, b in zip(layers(image), layers(changed), strict=True) if a == b]
    assert len(layers(image)) - len(same) <= len(("source", "project"))

    file = tmp_path / "backend/pyproject.toml"
    file.write_text(file.read_text().replace(SMALL, OLD))
    with pytest.raises(UserError, match=r"uv.lock does not fit pyproject.toml: run `uv lock`$"):
        build(tmp_path / "backend")
    with pytest.raises(UserError, match="in a folder above, start with `make up`"):
        compose("--progress=plain", "build", "api", merged=True, quoted=200)


def test_lock_of_poetry(tmp_path: Path, build: Build) -> None:
    """With a project that is called otherwise than its package, as many are."""
    app = written(
        tmp_path,
        {
            "pyproject.toml": PYPROJECT
            + f'[[tool.poetry.source]]\nname = "pip"\nurl = "{PyPI.simple_url}"\n'
            + '[build-system]\nrequires = ["poetry-core"]\n'
            + 'build-backend = "poetry.core.masonry.api"\n',
            "api/main.py": "ANSWER = 42\n",
        },
    )
    poetry = ("tool", "run", "--from=poetry", f"--with-requirements={REPOSITORY}/image/poetry.txt")
    uv(app, *poetry, "poetry", "lock")
    image = build(app)
    assert python(image, "import iniconfig, api.main as m; print(m.ANSWER)") == "42"
    (app / "pyproject.toml").write_text((app / "pyproject.toml").read_text().replace(SMALL, OLD))
    with pytest.raises(
        UserError, match=r"poetry.lock does not fit pyproject.toml: run `poetry lock`"
    ):
        build(app)


def test_requirements_with_hashes(tmp_path: Path, build: Build) -> None:
    """What the app's own .dockerignore names stays out; so does a package that is another one."""
    app = written(
        tmp_path,
        {
            "requirements.in": f"{SMALL}\n",
            ".dockerignore": "notes\n",
            "notes/secret.txt": "",
            "main.py": "",
        },
    )
    lock = ("pip", "compile", "--generate-hashes", "--no-emit-index-url", "--output-file")
    uv(app, *lock, "requirements.txt", "requirements.in")
    image = build(app)
    assert python(image, "import iniconfig, os; print(sorted(os.listdir()))").count("notes") == 0
    text = (app / "requirements.txt").read_text()
    (app / "requirements.txt").write_text(text.replace("sha256:", "sha256:0")[:-2])
    pins = [line for line in text.splitlines() if "--hash" not in line]
    wrong = "".join(f"{line}\n" for line in pins if "==" in line)
    (app / "requirements.txt").write_text(f"{wrong}    --hash=sha256:{'0' * 64}\n")
    with pytest.raises(UserError, match="another one than the lock's hash says"):
        build(app)


def test_pyproject_alone(tmp_path: Path, build: Build) -> None:
    """The app's version of what Berth uses wins, if it is new enough."""
    app = written(
        tmp_path, {"pyproject.toml": PYPROJECT.replace(SMALL, "uvicorn==0.35.0"), "main.py": ""}
    )
    newer = "from importlib.metadata import version; print(version('uvicorn'))"
    assert python(build(app), newer) == "0.35.0"
    (app / "pyproject.toml").write_text(PYPROJECT.replace(SMALL, "uvicorn==0.20.0"))
    with pytest.raises(
        UserError, match=r"the app pins uvicorn 0.20.0, .* needs 0.30 or newer: .*on$"
    ):
        build(app)


def test_dependency_that_has_to_be_compiled(tmp_path: Path, build: Build) -> None:
    """Says what is missing, and is compiled with it."""
    setup = "from setuptools import *\nsetup(ext_modules=[Extension('fast', ['fast.c'])])\n"
    app = written(
        tmp_path,
        {
            "requirements.txt": f"{SMALL}\n./fast\n",
            "main.py": "",
            "fast/pyproject.toml": '[project]\nname = "fast"\nversion = "1"\n' + PACKAGED,
            "fast/setup.py": setup,
            "fast/fast.c": "int PyInit_fast;\n",
        },
    )
    with pytest.raises(UserError, match=r'fast.* has to be compiled .*APP_PACKAGES="gcc'):
        build(app)
    with pytest.raises(UserError, match="APP_PACKAGES: Debian has no package libnone1"):
        build(app, APP_PACKAGES="libnone1")
    image = build(app, APP_PACKAGES="gcc libc6-dev")
    assert python(image, "from importlib.metadata import version; print(version('fast'))") == "1"


def test_other_python(tmp_path: Path, build: Build) -> None:
    """Chosen by the app, and refused by it."""
    app = written(
        tmp_path,
        {"pyproject.toml": PYPROJECT.replace(">=3.11", ">=3.11,<3.14"), "main.py": ""},
    )
    variables = {"APP_DIR": str(app), "COMPOSE_PROJECT_NAME": PROJECT}
    subprocess.run(
        ["python3", "-m", "host"], cwd=REPOSITORY, env={**os.environ, **variables}, check=True
    )
    version = python(build(app), "import sys; print(sys.version_info[:2])")
    assert version == "(3, 13)"
    with pytest.raises(
        UserError, match=r"PYTHON_IMAGE has Python 3.14.\d+, .* asks for requires-py"
    ):
        build(app, PYTHON_IMAGE="python:3.14.8-slim")


def test_dockerfile_of_its_own(tmp_path: Path, build: Build) -> None:
    """Its image is what Berth is put into: its Python, its folder, but nobody's root."""
    app = written(
        tmp_path,
        {
            "requirements.txt": "",
            "docker/Dockerfile": f"FROM {default_python()}\nRUN python -m venv --without-pip /env\n"
            "ENV PATH=/env/bin:$PATH\nUSER nobody\nWORKDIR /code\nCOPY main.py .\n"
            'ENTRYPOINT ["false"]\n',
            "main.py": "ANSWER = 42",
        },
    )
    image = build(app, APP_DOCKERFILE="docker/Dockerfile")
    assert python(image, "import main, uvicorn; print(main.ANSWER)") == "42"
    said = json.loads(python(image, SAYS_ALL))
    assert (said["folder"], said["user"], said["last"]) == ("/code", 10001, "/opt/berth")
    with pytest.raises(UserError, match=r"APP_DOCKERFILE is built first.*start with `make up`"):
        compose("--progress=plain", "build", "api", merged=True, quoted=200)
    with pytest.raises(UserError, match="APP_DOCKERFILE=other: there is no such file in"):
        build(app, APP_DOCKERFILE="other")


def test_new_project(tmp_path: Path, build: Build) -> None:
    """As `make new` starts one: its image has its app, and knows its migrations."""
    shop = tmp_path / "shop"
    subprocess.run(["make", "new", f"DIR={shop}"], cwd=REPOSITORY, check=True)
    image = build(shop)
    assert python(image, "from app.main import app; print(app.title)") == "shop"
    says = "from pathlib import Path; print(Path('/opt/berth/revisions.json').read_text())"
    assert json.loads(python(image, says))["heads"] == ["0001"]


def test_renewed_image_keeps_its_app(tmp_path: Path, build: Build) -> None:
    """Of a workspace, whose files have changed since; of the Berth before, nothing is left."""
    written(
        tmp_path,
        {
            "pyproject.toml": '[tool.uv.workspace]\nmembers = ["backend"]\n',
            "backend/pyproject.toml": PYPROJECT,
            "backend/main.py": "ANSWER = 42\n",
            "backend/venv.py": "raise RuntimeError('no part of Python')\n",
        },
    )
    uv(tmp_path, "lock")
    with_server = build(tmp_path / "backend")
    assert has_this_server(with_server)
    images = Images(Stack.read())
    tag, former = (
        "20000101-000000-0123abc",
        "cd /opt/berth && touch former.py _berth/former.py",
    )
    dockerfile = f"FROM {images.reference(with_server.tag)}\nUSER root\nRUN {former}\n"
    written(tmp_path, {"before/Dockerfile": dockerfile})
    docker("build", f"--tag={images.reference(tag)}", str(tmp_path / "before"))
    image = images.find(images.reference(tag))
    assert image
    assert not has_this_server(image)
    written(tmp_path, {"backend/main.py": "half-edited"})
    renewed = images.renew(image, Terminal())
    try:
        assert has_this_server(renewed)
        assert renewed.replaces == tag
        assert renewed.tag.endswith("-0123abc")
        assert python(renewed, "import iniconfig, main; print(main.ANSWER)") == "42"
        assert json.loads(python(renewed, SAYS_ALL)) == json.loads(python(with_server, SAYS_ALL))
        top = docker("run", "--rm", renewed.id, "ls", "/opt/berth", "/opt/berth/_berth")
        assert "former.py" not in top
    finally:
        images.forget(renewed.tag)
        images.forget(tag)


def test_folder_that_is_not_there(tmp_path: Path, build: Build) -> None:
    """Before anything is built."""
    with pytest.raises(UserError, match=r"APP_DIR=.*: there is no such folder"):
        build(tmp_path / "nowhere")
