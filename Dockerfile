# A container that serves the GGUF files of its /models volume; see "Container" in README.md.
#
# The base is any Debian from 12 (bookworm) on. Package indexes are those of the base image; where
# the build needs another index or certificate authority, hand them in as secrets:
#   docker build --secret id=pip.conf,src=pip.conf --secret id=ca-certificates,src=ca.crt .
#
# For a GPU, name ggml's option for it, images that have its compiler and its libraries, and packages
# that these lack. Both images need the same Python:
#   docker build --build-arg GPU=CUDA \
#     --build-arg BUILD_IMAGE=docker.io/nvidia/cuda:12.8.1-devel-ubuntu24.04 \
#     --build-arg BASE_IMAGE=docker.io/nvidia/cuda:12.8.1-runtime-ubuntu24.04 .
#   docker build --build-arg GPU=VULKAN --build-arg BUILD_PACKAGES="glslc libvulkan-dev" \
#     --build-arg PACKAGES="libvulkan1 mesa-vulkan-drivers" .
#
# For a cluster on Kubernetes (docs/cluster.md), with Ray and what KubeRay looks after it with:
#   docker build --build-arg EXTRAS=cluster --build-arg PACKAGES=wget --tag dragoman:cluster .
ARG BASE_IMAGE=docker.io/library/debian:bookworm-slim
ARG BUILD_IMAGE=${BASE_IMAGE}

FROM ${BUILD_IMAGE} AS build

ARG BUILD_PACKAGES=""
RUN apt-get update \
    && apt-get install --yes --no-install-recommends \
        ca-certificates cmake g++ make python3 python3-venv ${BUILD_PACKAGES} \
    && rm -rf /var/lib/apt/lists/*

WORKDIR /src
RUN python3 -m venv /opt/dragoman
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1

# llama.cpp for every x86-64 processor since 2013 (AVX2, FMA, F16C), not for the one it is built on,
# with kernels of ours that say why. It is compiled before the source is copied, so that a change
# there does not compile it again.
ARG CMAKE_ARGS="-DGGML_NATIVE=OFF"
ARG GPU=""
COPY constraints.txt ./
COPY server/engine/llama/kernels kernels
RUN --mount=type=secret,id=pip.conf,target=/etc/pip.conf \
    --mount=type=secret,id=ca-certificates,target=/etc/ssl/certs/ca-certificates.crt \
    CMAKE_ARGS="$CMAKE_ARGS ${GPU:+-DGGML_$GPU=ON} -DCMAKE_PROJECT_ggml_INCLUDE=/src/kernels/kernels.cmake" \
        /opt/dragoman/bin/pip install --constraint constraints.txt llama-cpp-python

ARG EXTRAS=""
COPY . .
RUN --mount=type=secret,id=pip.conf,target=/etc/pip.conf \
    --mount=type=secret,id=ca-certificates,target=/etc/ssl/certs/ca-certificates.crt \
    /opt/dragoman/bin/pip install --constraint constraints.txt ".${EXTRAS:+[$EXTRAS]}" \
    && /opt/dragoman/bin/python -m compileall -q /opt/dragoman/lib


FROM ${BASE_IMAGE}

ARG PACKAGES=""
RUN apt-get update \
    && apt-get install --yes --no-install-recommends \
        ca-certificates libgomp1 python3 ${PACKAGES} \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --uid 10001 --no-create-home --home-dir /cache --shell /usr/sbin/nologin dragoman \
    && install --directory --owner dragoman --group dragoman /models /cache

COPY --from=build /opt/dragoman /opt/dragoman
COPY --chmod=755 container/health.sh /usr/local/bin/dragoman-health

ENV PATH=/opt/dragoman/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    DRAGOMAN_HOST=0.0.0.0 \
    DRAGOMAN_MODELS_DIR=/models \
    DRAGOMAN_CACHE_DIR=/cache \
    DRAGOMAN_PULL_STARTER=false \
    DRAGOMAN_STORE_URL=sqlite:////cache/store.db \
    DRAGOMAN_FILES_DIR=/cache/files \
    DRAGOMAN_LOG_FORMAT=json

# docker build --build-arg VERSION=0.3.0 --build-arg REVISION=$(git rev-parse HEAD) .
ARG VERSION=""
ARG REVISION=""
LABEL org.opencontainers.image.title="dragoman" \
    org.opencontainers.image.description="An inference server for GGUF models that speaks OpenAI's API and Anthropic's" \
    org.opencontainers.image.licenses="Apache-2.0" \
    org.opencontainers.image.version="${VERSION}" \
    org.opencontainers.image.revision="${REVISION}"

USER 10001:10001
WORKDIR /cache
VOLUME ["/models", "/cache"]
EXPOSE 8000
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=30s --timeout=6s --start-period=2m CMD ["dragoman-health"]
ENTRYPOINT ["dragoman"]
CMD ["serve"]
