# The image of any app. The app comes from the build context `app`, which is APP_DIR, and Berth from
# this folder; see image/ for what the steps do.
ARG PYTHON_IMAGE=pinned
ARG STAGE=built

# With a name, so that another image can take its place; in full, so that Dependabot finds it.
FROM python:3.14.8-slim AS pinned

FROM ${PYTHON_IMAGE} AS base
# Whoever the app's own Dockerfile ends with.
# hadolint ignore=DL3002
USER root
# An image that has an app already may have the Berth before.
RUN rm -rf /opt/berth

FROM base AS tools
RUN --mount=type=bind,source=image/requirements.txt,target=/requirements.txt \
    --mount=type=cache,target=/root/.cache/pip \
    python -Im venv /tools && /tools/bin/pip install --require-hashes -r /requirements.txt

# What Berth needs, in a folder of its own.
FROM base AS berth
RUN --mount=from=tools,source=/tools,target=/tools \
    --mount=type=bind,source=berth/requirements.txt,target=/requirements.txt \
    --mount=type=cache,target=/root/.cache/uv \
    UV_SYSTEM_CERTS=1 UV_LINK_MODE=copy UV_COMPILE_BYTECODE=1 /tools/bin/uv pip install \
        --python python --target /opt/berth --require-hashes -r /requirements.txt \
    && rm /opt/berth/.lock

FROM base AS python
ARG APP_PACKAGES
RUN --mount=type=bind,source=image,target=/build/image \
    PYTHONPATH=/build python /build/image/packages.py ${APP_PACKAGES}

# The app's files twice: all that belong into an image, and those that say what it depends on.
FROM base AS source
ARG APP_SUBDIR
RUN --mount=type=bind,source=image,target=/build/image --mount=from=app,target=/app \
    PYTHONPATH=/build python /build/image/source.py /app "${APP_SUBDIR}" /source /manifests

# A layer that stays while only code changes.
FROM python AS dependencies
ARG APP_DOCKERFILE
ARG APP_SUBDIR
COPY --from=source /manifests /srv${APP_SUBDIR:+-workspace}
WORKDIR /srv${APP_SUBDIR:+-workspace}/${APP_SUBDIR}
RUN --mount=type=bind,source=image,target=/build/image \
    --mount=from=tools,source=/tools,target=/tools \
    --mount=type=cache,target=/root/.cache/uv \
    PYTHONPATH=/build python /build/image/install.py dependencies "${APP_SUBDIR-unknown}"

# By Berth, of what the app's own files say.
FROM python AS built
ARG APP_SUBDIR
COPY --from=berth /opt/berth /opt/berth
COPY --from=dependencies /venv /venv
COPY berth /opt/berth/_berth
COPY --from=source /source /srv${APP_SUBDIR:+-workspace}
WORKDIR /srv${APP_SUBDIR:+-workspace}/${APP_SUBDIR}
RUN --mount=type=bind,source=image,target=/build/image \
    --mount=from=tools,source=/tools,target=/tools \
    --mount=type=cache,target=/root/.cache/uv \
    PYTHONPATH=/build python /build/image/install.py project \
    && PYTHONPATH=/build /venv/bin/python /build/image/finish.py "${PWD%/"${APP_SUBDIR}"}" \
    && if [ -n "${APP_SUBDIR}" ]; then rmdir /srv && ln -s "$PWD" /srv; fi
ENV PATH=/venv/bin:$PATH
WORKDIR /srv

# On an image that has the app, which is PYTHON_IMAGE then: its own Dockerfile's, or one of another
# Berth.
FROM base AS own
COPY --from=berth /opt/berth /opt/berth
COPY berth /opt/berth/_berth
RUN --mount=type=bind,source=image,target=/build/image \
    PYTHONPATH=/build python /build/image/finish.py

FROM ${STAGE}
ENV PYTHONUNBUFFERED=1 \
    REVISIONS_FILE=/opt/berth/revisions.json
ARG APP_VERSION=dev
ENV APP_VERSION=${APP_VERSION}
ENTRYPOINT []
USER 10001:10001
CMD ["python", "-m", "_berth.server"]
