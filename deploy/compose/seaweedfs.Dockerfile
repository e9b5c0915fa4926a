# The S3 store of docker-compose.yml: the server that tests and `offload dev` run too, from the same package.
ARG PYTHON_TAG=3.12-slim
FROM python:${PYTHON_TAG}
WORKDIR /data
COPY requirements/seaweedfs.lock /usr/share/seaweedfs/
RUN python -m pip install --no-cache-dir --require-hashes -r /usr/share/seaweedfs/seaweedfs.lock \
 && install --directory --owner=10002 --group=10002 --mode=0750 /data
USER 10002:10002
EXPOSE 8333
HEALTHCHECK --interval=2s --timeout=5s --start-period=30s \
  CMD ["python", "-c", "from urllib.request import urlopen; urlopen('http://127.0.0.1:8333/healthz', timeout=4)"]
ENTRYPOINT ["weed"]
