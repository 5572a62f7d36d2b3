"""The example, and the probes that Berth would answer."""

from app.main import app


@app.get("/livez")
@app.get("/readyz")
async def live() -> dict[str, str]:
    return {"status": "ok"}
