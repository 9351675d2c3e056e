# ScanMix in a container: docs/container.md says how to build and use it. `make container` runs these steps without Docker.
FROM python:3.11-slim

# Where PyTorch comes from; for NVIDIA GPUs: https://download.pytorch.org/whl/cu130
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
ARG EXTRAS=timm,onnx,parquet

WORKDIR /scanmix
COPY pyproject.toml README.md LICENSE constraints.txt constraints-timm.txt ./
COPY release/install.sh release/
COPY src src
RUN sh release/install.sh python . "$EXTRAS"

# Your files are mounted at /work; what is downloaded or computed once stays there, in .cache.
ENV HOME=/work
WORKDIR /work
RUN chmod 1777 .
USER 1000:1000
ENTRYPOINT ["scanmix"]
CMD ["--help"]
