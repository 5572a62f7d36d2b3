ARG PYTHON_IMAGE=pinned

# With a name, so that another image can take its place; in full, so that Dependabot finds it.
FROM python:3.14.8-slim AS pinned

FROM ${PYTHON_IMAGE} AS build
WORKDIR /build
COPY requirements.txt .
RUN python -m venv --without-pip /venv \
    && pip --python /venv/bin/python install --no-cache-dir --require-hashes -r requirements.txt

FROM ${PYTHON_IMAGE}
ENV PATH=/venv/bin:$PATH \
    PYTHONUNBUFFERED=1
COPY --from=build /venv /venv
WORKDIR /srv
COPY pyproject.toml ./
COPY migrations migrations
COPY app app
RUN python -m compileall -q app migrations
ARG APP_VERSION=dev
ENV APP_VERSION=${APP_VERSION}
USER 10001:10001
CMD ["python", "-m", "app.server"]
