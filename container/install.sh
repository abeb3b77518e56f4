#!/bin/sh
# Install voxwarp for a container: Dockerfile and voxwarp.def run this.
#
#     install.sh SOURCE [FOLDER]
#
# SOURCE is a clone of the repository, FOLDER gets a virtual environment and compiled kernels
# (/opt/voxwarp). TORCH_ARGS says which build of PyTorch is installed; empty: pip's default, which on
# Linux is the one for CUDA.
set -eu
source=$1
folder=${2:-/opt/voxwarp}

python3 -m venv "$folder"
pip() { "$folder/bin/python" -m pip --no-cache-dir --disable-pip-version-check "$@"; }

# shellcheck disable=SC2086
pip install -c "$source/constraints.txt" torch \
  ${TORCH_ARGS---index-url https://download.pytorch.org/whl/cpu}
pip install -c "$source/constraints.txt" "${source}[cohort,plot]"

# For a class of processors, because nobody knows on which one the container will run.
"$folder/bin/python" -m voxwarp.networks.ahead "$folder/kernels"
chmod -R a+rX "$folder"
