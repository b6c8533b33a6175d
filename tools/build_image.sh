#!/bin/sh
# Builds the image without a registry and without Docker, then runs a command with it.
#
#   tools/build_image.sh [COMMAND...]
#
# debootstrap makes the base image, which gets the name that the Dockerfile's FROM has. The wheels come from
# build/wheelhouse. The command finds the image's files in CUSTOMMSG_IMAGE_ROOT, and its configuration, as JSON, in the
# file CUSTOMMSG_IMAGE_CONFIG. This needs root, and Debian's packages buildah and debootstrap. The base image and the
# wheels stay in build/ for the next time. Everything else is removed.
set -eu
cd "$(dirname "$0")/.."

BASE=$(sed -n 's/^ARG PYTHON_IMAGE=//p' Dockerfile)
IMAGE=localhost/custommsg:check
PYTHON=${PYTHON:-python3}

for tool in buildah debootstrap; do
    command -v $tool >/dev/null || { echo "$0 needs $tool: apt-get install buildah debootstrap" >&2; exit 3; }
done
[ "$(id -u)" = 0 ] || { echo "$0 needs to be root, for debootstrap" >&2; exit 3; }
mkdir -p build/image

# vfs and chroot work within a container, too.
buildah() {
    command buildah --storage-driver vfs --root "$PWD/build/image/storage" --runroot "$PWD/build/image/run" "$@"
}
quietly() { "$@" >build/image/log 2>&1 || { cat build/image/log >&2; return 1; }; }

# Nobody else uses this storage, so that leftovers of an interrupted run can be removed, too.
cleanup() {
    buildah rm --all >/dev/null || :
    buildah rmi --force "$IMAGE" >/dev/null 2>&1 || :
}
cleanup
trap cleanup EXIT
trap 'exit 1' INT TERM

make_base() {
    container=$(buildah from --pull-never scratch)
    quietly debootstrap --variant=minbase --include=python3,python3-venv bookworm "$(buildah mount "$container")"
    rm -rf "$(buildah mount "$container")"/var/cache/apt/* "$(buildah mount "$container")"/var/lib/apt/lists/*
    buildah commit --quiet "$container" "$BASE" >/dev/null
}

since() { echo "$(($(date +%s) - $1)) s"; }

if ! buildah inspect --type image "$BASE" >/dev/null 2>&1; then
    started=$(date +%s)
    make_base
    echo "base        made in $(since "$started")"
fi

# For the Python of the image, which may be another than the one that runs this.
started=$(date +%s)
mkdir -p build/wheelhouse
for lock in build server; do
    quietly "$PYTHON" -m pip download --disable-pip-version-check --require-hashes --only-binary :all: \
        --python-version 3.11 --dest build/wheelhouse --requirement requirements/$lock.txt
done
echo "wheelhouse  $(find build/wheelhouse -name '*.whl' | wc -l) wheels in $(since "$started")"

started=$(date +%s)
quietly buildah bud --isolation chroot --pull-never --format docker --tag "$IMAGE" --build-arg PIP_NO_INDEX=1 \
    --build-arg REVISION="$(git rev-parse HEAD)" .
echo "image       built in $(since "$started")"

container=$(buildah from --pull-never "$IMAGE")
CUSTOMMSG_IMAGE_ROOT=$(buildah mount "$container")
CUSTOMMSG_IMAGE_CONFIG=$PWD/build/image/config.json
buildah inspect --type image "$IMAGE" >"$CUSTOMMSG_IMAGE_CONFIG"
export CUSTOMMSG_IMAGE_ROOT CUSTOMMSG_IMAGE_CONFIG
echo "image       $(du -sm "$CUSTOMMSG_IMAGE_ROOT" | cut -f1) MB, of which custommsg and its packages" \
    "$(du -sm "$CUSTOMMSG_IMAGE_ROOT/opt/custommsg" | cut -f1) MB"

# Without exec, so that the trap still runs afterwards.
"$@"
