# A release build pins the base harder: --build-arg PYTHON_DIGEST=@sha256:…
ARG PYTHON_TAG=3.12-slim
ARG PYTHON_DIGEST=

FROM python:${PYTHON_TAG}${PYTHON_DIGEST} AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
WORKDIR /src
COPY requirements/build.lock requirements/image.lock requirements/
# The path is the final one: scripts in a virtual environment name their interpreter.
RUN python -m venv /opt/build \
 && /opt/build/bin/pip install --require-hashes -r requirements/build.lock \
 && python -m venv /opt/offload \
 && /opt/offload/bin/pip install --require-hashes -r requirements/image.lock
COPY pyproject.toml README.md LICENSE ./
COPY deploy/crd deploy/crd
COPY migrations migrations
COPY offload offload
# Without pip in the end: nothing is installed into a running container.
RUN /opt/build/bin/pip wheel --no-deps --no-build-isolation --wheel-dir /dist . \
 && /opt/offload/bin/pip install --no-deps /dist/*.whl \
 && /opt/offload/bin/pip uninstall --yes pip

FROM python:${PYTHON_TAG}${PYTHON_DIGEST}
LABEL org.opencontainers.image.title="offload" \
      org.opencontainers.image.description="External artifact service for AgentRuns" \
      org.opencontainers.image.licenses="Apache-2.0"
# The folder is where a volume for SQLite, tokens or the stand-in's data goes; nothing else is writable.
RUN groupadd --gid 10001 offload \
 && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /var/lib/offload --shell /usr/sbin/nologin offload \
 && install --directory --owner=10001 --group=10001 --mode=0750 /var/lib/offload
COPY --from=build /opt/offload /opt/offload
# Inside a container all interfaces are the container's; `offload serve` refuses them without access control.
ENV PATH=/opt/offload/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    OFFLOAD_HOST=0.0.0.0 \
    OFFLOAD_METRICS_HOST=0.0.0.0
WORKDIR /var/lib/offload
USER 10001:10001
EXPOSE 8080 9464
# Of `offload serve`. Where the container runs another command, give it another check.
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s \
  CMD ["python", "-c", "from urllib.request import urlopen; urlopen('http://127.0.0.1:8080/livez', timeout=4)"]
ENTRYPOINT ["offload"]
CMD ["--help"]
