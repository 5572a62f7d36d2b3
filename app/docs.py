from importlib.resources import files

from fastapi import FastAPI, Response
from starlette.staticfiles import StaticFiles

# Swagger UI's own files come from this server, and the browser takes them from nobody else.
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
PAGE = """\
<!doctype html>
<html lang="en">
  <head>
    <meta charset="utf-8">
    <title>{title}</title>
    <link rel="stylesheet" href="docs/swagger-ui.css">
  </head>
  <body>
    <div id="swagger-ui"></div>
    <script src="docs/swagger-ui-bundle.js"></script>
    <script src="docs/start.js"></script>
  </body>
</html>
"""
START = """\
SwaggerUIBundle({url: "openapi.json", dom_id: "#swagger-ui", deepLinking: true});
"""


def add_docs(app: FastAPI) -> None:
    """Serve /docs in place of FastAPI's own, which loads Swagger UI from a CDN."""

    @app.get("/docs", include_in_schema=False)
    async def docs() -> Response:
        page = PAGE.format(title=app.title)
        return Response(page, headers={"Content-Security-Policy": POLICY}, media_type="text/html")

    @app.get("/docs/start.js", include_in_schema=False)
    async def start() -> Response:
        return Response(START, media_type="text/javascript")

    app.mount("/docs", StaticFiles(directory=str(files("fastapi_offline") / "static")))
