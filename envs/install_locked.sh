#!/bin/sh
# What the Containerfile installs: envs/install_locked.sh cuda|cpu TORCH_INDEX [STORAGE_PLUGIN...]
set -eu
accelerator=$1 torch_index=$2
shift 2
lock=locks/clusters.txt
# The system's certificates, so that a base image may bring those of a mirror.
export PIP_NO_CACHE_DIR=1 UV_NO_CACHE=1 UV_COMPILE_BYTECODE=1 UV_SYSTEM_CERTS=1

# The requirements of the lock file whose names begin so, or all others, with their hashes.
only() { awk -v names="^($1)" '/^[^ #]/ { keep = $0 ~ names } keep' "$lock"; }
without() { awk -v names="^($1)" '/^[^ #]/ { keep = $0 !~ names } keep' "$lock"; }

chosen=$(mktemp -d)
case $accelerator in
    cuda) uv pip install --require-hashes -r "$lock" ;;
    cpu)
        without 'torch==|torchvision==|triton==|nvidia-|cuda-' > "$chosen/rest.txt"
        uv pip install --no-deps --require-hashes -r "$chosen/rest.txt"
        torch=$(grep -Eo '^(torch|torchvision)==[^ ]+' "$lock")
        if [ -n "$torch_index" ]; then
            uv pip install --no-deps --index-url "$torch_index" $torch
        else
            uv pip install --no-deps --torch-backend cpu $torch
        fi
        ;;
    *)
        echo "ACCELERATOR=$accelerator is unknown; choose cuda or cpu" >&2
        exit 1
        ;;
esac
only snakemake-storage-plugin- > "$chosen/storage.txt"
pip download --no-deps --require-hashes --dest /opt/wheels -r "$chosen/storage.txt"
if [ $# -gt 0 ]; then
    # Not held to the lock file: what object stores' clients ask for may differ from it, as botocore does.
    uv pip install "$@"
    pip download --no-deps --dest /opt/wheels "$@"
fi
uv pip check
rm -r "$chosen"
