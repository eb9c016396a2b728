# One node of TimeMachine. Build: docker build --tag timemachine .

FROM python:3.12.11-slim-bookworm AS build

# plyvel has wheels for x86-64 only; elsewhere it is compiled against Debian's LevelDB.
# No versions: Debian offers one of each, the one with the latest security fix.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends g++ libleveldb-dev \
    && rm -rf /var/lib/apt/lists/*

ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
RUN python -m venv /opt/timemachine
ENV PATH=/opt/timemachine/bin:$PATH

# First what changes seldom. The lock names a hash for each file, and the build tools too.
COPY requirements/node.lock /build/requirements/node.lock
RUN pip install --require-hashes --requirement /build/requirements/node.lock

COPY pyproject.toml README.md LICENSE /build/
COPY timemachine /build/timemachine
COPY node /build/node
COPY admin /build/admin
RUN pip install --no-build-isolation --no-deps /build \
    && pip uninstall --yes setuptools pip


FROM python:3.12.11-slim-bookworm

# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends libleveldb1d \
    && rm -rf /var/lib/apt/lists/*

# A fixed number, so that the owner of a mounted volume can be set from outside.
RUN groupadd --gid 10001 timemachine \
    && useradd --uid 10001 --gid 10001 --no-create-home --shell /usr/sbin/nologin timemachine \
    && install --directory --owner timemachine --group timemachine --mode 0700 /data
COPY --from=build /opt/timemachine /opt/timemachine
ENV PATH=/opt/timemachine/bin:$PATH PYTHONUNBUFFERED=1

USER 10001:10001
VOLUME /data
# 8001: the API. 9001: node to node.
EXPOSE 8001 9001

# Is the process alive? Whoever serves TLS or another port overrides this (--health-cmd).
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --retries=3 \
    CMD ["python", "-c", "from urllib.request import urlopen; urlopen('http://127.0.0.1:8001/healthz', timeout=4)"]

# `docker stop` sends SIGTERM: the node stops claiming, lets open sends end, closes its store.
STOPSIGNAL SIGTERM
ENTRYPOINT ["timemachine", "serve", "--data", "/data"]

# The default is a node that only its own container reaches: beyond loopback a node without
# credentials has to be asked for. To let this machine, and nobody else, reach it:
#   docker run --publish 127.0.0.1:8001:8001 --volume timemachine:/data \
#     timemachine --http 0.0.0.0:8001 --insecure
CMD ["--http", "127.0.0.1:8001", "--rpc", "127.0.0.1:9001"]
