# The gateway. Wheels in build/wheelhouse, if that folder exists, are used beside those of the package index; with
# --build-arg PIP_NO_INDEX=1 the index is not asked at all.
ARG PYTHON_IMAGE=docker.io/library/python:3.11-slim-bookworm

FROM ${PYTHON_IMAGE} AS build
ARG PIP_NO_INDEX
ENV PIP_NO_CACHE_DIR=1 \
    PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_FIND_LINKS=/wheelhouse
WORKDIR /src
# The dependencies first: they change less often than the code.
COPY requirements/build.txt requirements/server.txt build/wheelhous[e] /wheelhouse/
RUN python3 -m venv /build \
    && /build/bin/pip install --require-hashes --only-binary :all: -r /wheelhouse/build.txt \
    && python3 -m venv /opt/custommsg \
    && /opt/custommsg/bin/pip install --require-hashes --only-binary :all: -r /wheelhouse/server.txt
COPY client client
COPY server server
# Without the index: a dependency that a pyproject.toml declares and the lock lacks fails here, not at run time.
RUN /build/bin/pip wheel --no-index --no-deps --no-build-isolation --wheel-dir /dist ./client ./server \
    && /opt/custommsg/bin/pip install --no-index --find-links /dist "custommsg-server[uvloop]" \
    && /opt/custommsg/bin/pip uninstall --yes pip setuptools

FROM ${PYTHON_IMAGE}
ARG REVISION
LABEL org.opencontainers.image.title="custommsg" \
      org.opencontainers.image.description="A gRPC gateway for Lightning custom messages on Core Lightning" \
      org.opencontainers.image.licenses="MIT" \
      org.opencontainers.image.revision="${REVISION}"
# Nothing is installed here any more, so that pip can go. The number of the user is fixed, because deployments make it the
# owner of volumes.
RUN rm -rf /usr/local/bin/pip* /usr/local/lib/python3.11/site-packages/* /usr/local/lib/python3.11/ensurepip \
        /usr/lib/python3.11/ensurepip /usr/share/python-wheels \
    && groupadd --gid 9737 custommsg \
    && useradd --uid 9737 --gid 9737 --no-create-home --home-dir /var/lib/custommsg --shell /usr/sbin/nologin \
        custommsg \
    && install --directory --owner 9737 --group 9737 --mode 0750 /var/lib/custommsg
COPY --from=build /opt/custommsg /opt/custommsg
ENV PATH=/opt/custommsg/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    CUSTOMMSG_DATA_DIR=/var/lib/custommsg
# The only folder that the gateway writes to. Everything else may be read-only.
VOLUME /var/lib/custommsg
USER 9737:9737
EXPOSE 9737 9750
STOPSIGNAL SIGTERM
# As `custommsg-server health`, at a fifth of the cost. If the gateway has TLS, let it listen on a unix socket as well, and
# add --address=unix:/path here.
HEALTHCHECK --interval=30s --timeout=10s --start-period=10s CMD ["python", "-m", "custommsg_server.ops.probe"]
ENTRYPOINT ["custommsg-server"]
CMD ["serve"]
