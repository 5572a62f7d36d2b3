import uuid

import pytest
from fastapi.testclient import TestClient

NOBODY = uuid.UUID(int=1)


def test_an_item_can_be_created_read_replaced_and_deleted(client: TestClient) -> None:
    """Location leads to what was created, and PUT replaces all that a client may set."""
    created = client.post("/items", json={"name": "Anchor", "description": "Heavy", "quantity": 2})
    assert created.status_code == 201
    path = created.headers["Location"]
    item = created.json()
    assert path == f"/items/{item['id']}"
    assert client.get(path).json() == item

    replaced = client.put(path, json={"name": "Buoy"}).json()
    assert (replaced["name"], replaced["description"], replaced["quantity"]) == ("Buoy", None, 0)
    assert replaced["created_at"] == item["created_at"]
    assert replaced["updated_at"] > item["updated_at"]
    assert client.get(path).json() == replaced

    deleted = client.delete(path)
    assert (deleted.status_code, deleted.content) == (204, b"")
    assert client.get(path).status_code == 404


def test_ids_are_uuid_version_7_and_times_have_a_zone(client: TestClient) -> None:
    """PostgreSQL makes both."""
    item = client.post("/items", json={"name": "Rope"}).json()
    assert uuid.UUID(item["id"]).version == 7
    assert item["created_at"].endswith("Z")


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE"])
def test_an_unknown_item_is_404_in_the_form_of_fastapi(client: TestClient, method: str) -> None:
    """Whatever is asked of it."""
    body = {"name": "x"} if method == "PUT" else None
    answer = client.request(method, f"/items/{NOBODY}", json=body)
    assert (answer.status_code, answer.json()) == (404, {"detail": "There is no such item."})


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ('{"name": ""}', "name"),
        ('{"name": "%s"}' % ("x" * 201), "name"),
        ('{"name": 1}', "name"),
        ('{"name": "a\\u0000b"}', "name"),
        ('{"name": "x", "description": "\\u0000"}', "description"),
        ('{"name": "x", "quantity": -1}', "quantity"),
        ('{"name": "x", "quantity": 2147483648}', "quantity"),
        ('{"name": "x", "quantity": "1"}', "quantity"),
        ('{"name": "x", "quantity": NaN}', "quantity"),
        ('{"name": "x", "quantity": true}', "quantity"),
        ('{"name": "x", "colour": "red"}', "colour"),
        ('{"name": "\\ud800"}', "name"),
        ("{}", "name"),
    ],
)
def test_bad_content_is_422_and_names_the_field(client: TestClient, body: str, field: str) -> None:
    """Never a 500, also for what PostgreSQL or JSON could not hold."""
    answer = client.post("/items", content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code == 422
    assert [problem["loc"] for problem in answer.json()["detail"]] == [["body", field]]


@pytest.mark.parametrize("body", ['{"\\ud800": 1, "name": "x"}', "{", "[" * 100_000, "null", ""])
def test_bodies_that_are_no_item_at_all_are_the_clients_fault(
    client: TestClient, body: str
) -> None:
    """Half a surrogate as a field's name, broken JSON, a depth no parser follows."""
    answer = client.post("/items", content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code in {400, 422}


@pytest.mark.parametrize(
    "path", ["/items/7", "/items/%00", "/items?limit=0", "/items?limit=101", "/items?after=x"]
)
def test_bad_paths_and_queries_are_422(client: TestClient, path: str) -> None:
    """Ids are UUIDs, pages hold 1 to 100 items."""
    assert client.get(path).status_code == 422


def test_text_comes_back_as_it_was_sent(client: TestClient) -> None:
    """All of Unicode but NUL, control characters and markup included."""
    name = "⚓ ' \" <b> \\ \x01 \U0001f6a2"
    path = client.post("/items", json={"name": name}).headers["Location"]
    assert client.get(path).json()["name"] == name


def test_pages_miss_nothing_and_repeat_nothing_while_items_are_added(client: TestClient) -> None:
    """Inserts land behind the cursor's page, deletes do not shift it."""
    before = [client.post("/items", json={"name": f"{n}"}).json()["id"] for n in range(7)]
    seen: list[str] = []
    after: str | None = None
    while True:
        page = client.get("/items?limit=3" + (f"&after={after}" if after else "")).json()
        seen += [item["id"] for item in page["items"]]
        after = page["next"]
        if after is None:
            break
        if len(seen) < 20:
            client.post("/items", json={"name": "meanwhile"})
            client.delete(f"/items/{page['items'][0]['id']}")
    assert len(seen) == len(set(seen))
    assert seen == sorted(seen)
    assert set(before) <= set(seen)


def test_the_documentation_names_404_for_single_items(client: TestClient) -> None:
    """A generated client must know."""
    paths = client.get("/openapi.json").json()["paths"]
    assert all(
        "404" in paths["/items/{item_id}"][method]["responses"]
        for method in paths["/items/{item_id}"]
    )
    assert client.get("/docs").status_code == 200
