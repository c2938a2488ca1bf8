#!/usr/bin/env bash
# Tries for ten minutes to break it: kills, full disks, strange compilers, damaged caches, odd cells.
# PYTHON names the interpreter (python3), in whose environment the project's requirements are.
set -euo pipefail
house=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
PYTHONPATH=$house exec "${PYTHON:-python3}" "$house/ci/soak.py" "$@"
