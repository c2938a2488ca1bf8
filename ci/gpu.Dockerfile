# All that ci/gpu.sh takes, for a machine with an NVIDIA driver and its container toolkit:
#
#     docker build --file ci/gpu.Dockerfile --tag recurrent-gpu .
#     docker run --rm --gpus all --volume "$PWD/build/gpu:/suite/build/gpu" recurrent-gpu
#
# The wheels bring CUDA and cuDNN along.
FROM python:3.12-slim

# the commit of the code stands in every record
RUN apt-get update && apt-get install --yes --no-install-recommends git && rm -rf /var/lib/apt/lists/*

WORKDIR /suite
COPY . .
RUN git config --global --add safe.directory /suite \
    && python -m venv /environment \
    && /environment/bin/python -m pip install --no-cache-dir -e '.[gpu,test]'

ENTRYPOINT ["ci/gpu.sh", "--environment", "/environment"]
