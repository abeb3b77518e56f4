# voxwarp on processors. docs/how-to/container.md has the commands to build and to run it.
#
#     docker build -t voxwarp .
#
# For NVIDIA's GPUs: docker build --build-arg TORCH_ARGS= -t voxwarp:gpu .
FROM python:3.11-slim AS build
ARG TORCH_ARGS="--index-url https://download.pytorch.org/whl/cpu"
COPY . /source
RUN TORCH_ARGS="$TORCH_ARGS" /source/container/install.sh /source /opt/voxwarp

FROM python:3.11-slim
LABEL org.opencontainers.image.title="voxwarp" \
      org.opencontainers.image.description="Learning-based deformable registration of 3-D brain scans" \
      org.opencontainers.image.version="0.1.0" \
      org.opencontainers.image.licenses="Apache-2.0 AND CC-BY-NC-4.0"
COPY --from=build /opt/voxwarp /opt/voxwarp
# Weights, template and compiled kernels are in the image. Nothing is written outside of the folders
# of results and of temporary files, so any user, a read-only file system and no home will do.
ENV PATH=/opt/voxwarp/bin:$PATH \
    VOXWARP_READY_KERNELS=/opt/voxwarp/kernels \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONNOUSERSITE=1
WORKDIR /data
USER 1000:1000
ENTRYPOINT ["voxwarp"]
CMD ["--help"]
