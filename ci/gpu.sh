#!/usr/bin/env bash
# What a machine with a GPU does: says what it is, runs the tests that need a GPU, measures the sweeps, and
# leaves all it found in one folder. ci/README.md says more.
set -Euo pipefail

usage() {
    cat <<'USAGE'
usage: ci/gpu.sh [options] [-- PYTEST OPTIONS]

  --rehearse            the whole way on a CPU: a few small cases of each sweep, marked as a rehearsal's
  --device gpu|cpu      cpu measures the sweeps on the CPU, and tests no GPU (gpu)
  --sweep NAME          what to measure; may repeat (smoke, char_shape, options, default: what tells most first)
  --minutes N           what the sweeps may take in all (60)
  --results DIR         the folder for all it finds, which must not exist (build/gpu/TIME)
  --environment DIR     a virtual environment, made already (one in the user's cache, made if need be)

The environment variable PYTHON names the interpreter that makes the environment (python3).
Exit codes: 0 all holds; 1 a test or a case failed, or no built-in layer ran on cuDNN; 2 something could not
be run: no GPU, a wrong option; 3 the time was not enough. Of several the greatest counts.
USAGE
}

die() {
    printf 'gpu.sh: %s\n' "$*" >&2
    exit 2
}

say() { printf '\n=== %s (%s s)\n' "$*" "$SECONDS"; }

device=gpu rehearse='' sweeps=() minutes=60 results='' environment='' pytest_options=()
while (($#)); do
    case $1 in
    -h | --help) usage && exit 0 ;;
    --rehearse) rehearse=yes ;;
    --)
        shift
        pytest_options=("$@")
        break
        ;;
    --device | --sweep | --minutes | --results | --environment)
        (($# > 1)) || die "$1 takes a value"
        case $1 in
        --device) device=$2 ;;
        --sweep) sweeps+=("$2") ;;
        --minutes) minutes=$2 ;;
        --results) results=$2 ;;
        --environment) environment=$2 ;;
        esac
        shift
        ;;
    *) die "no option $1; --help says which there are" ;;
    esac
    shift
done
[[ $device == gpu || $device == cpu ]] || die "--device $device: must be gpu or cpu"
[[ $minutes =~ ^[1-9][0-9]{0,3}$ ]] || die "--minutes $minutes: must be a whole number from 1"
[[ -z $rehearse ]] || device=cpu
((${#sweeps[@]})) || sweeps=(smoke char_shape options default)

repository=$(cd "$(dirname "$0")/.." && pwd)
results=$(realpath -m -- "${results:-$repository/build/gpu/$(date -u +%Y%m%d-%H%M%S)}")
[[ ! -e $results ]] || die "--results $results: is there already"
[[ -z $environment ]] || environment=$(realpath -m -- "$environment")
[[ -z $environment || -x $environment/bin/python ]] || die "--environment $environment: has no bin/python"
cd "$repository" || die "$repository: cannot be entered"
mkdir -p "$results" || die "--results $results: cannot be made"

# outside of the checkout, which a runner wipes every night; made anew where what it is made of has changed
install() {
    local python=${PYTHON:-python3} extras='gpu,test' made_of
    [[ $device == gpu ]] || extras='test'
    environment=${XDG_CACHE_HOME:-${HOME:-/tmp}/.cache}/recurrent-cell-benchmark/$device
    made_of=$({ "$python" --version && echo "$repository" && cat pyproject.toml; } | sha256sum)
    [[ -e $environment/ready && $(<"$environment/ready") == "$made_of" ]] && return
    say "environment $environment"
    "$python" -m venv --clear "$environment" || die "cannot make an environment in $environment"
    PIP_DISABLE_PIP_VERSION_CHECK=1 "$environment/bin/python" -m pip install --quiet -e ".[$extras]" ||
        die "cannot install what it takes"
    echo "$made_of" >"$environment/ready"
}
[[ $environment ]] || install

max_time=0.5
if [[ $rehearse ]]; then
    on_device=(--rehearse) max_time=0.02
elif [[ $device == gpu ]]; then
    on_device=(--require-gpu)
else
    on_device=(--device=cpu)
fi

code=0
ended() { # what became of a step: its exit code as pytest gives it, 124 or 137 where its time was over
    local found
    case $1 in
    0) found=0 ;;
    1) found=1 ;;
    124 | 137) found=3 ;;
    *) found=2 ;;
    esac
    ((found == 0)) || printf 'gpu.sh: %s: ended with %s\n' "$2" "$1" >&2
    ((found <= code)) || code=$found
}

run_pytest() { # NAME SECONDS OPTIONS: its output also goes into NAME.txt
    local name=$1 seconds=$2 status
    shift 2
    # SIGINT: pytest then writes down what it has, and the case in flight as killed
    timeout --signal=INT --kill-after=60 "$seconds" "$environment/bin/python" -m pytest -p no:cacheprovider \
        "${on_device[@]}" "$@" 2>&1 | tee "$results/$name.txt"
    status=${PIPESTATUS[0]}
    ended "$status" "$name"
}

say "the machine"
{
    command -v nvidia-smi >/dev/null && nvidia-smi
    "$environment/bin/python" -c '
import json
from bench.backend import devices
from bench.records import environment
from bench.timing.gpu_clocks import Gpu, installed_nvml
gpu = {**devices.gpu_facts(), **Gpu(devices.gpu_name(), installed_nvml()).facts()}
print(json.dumps(environment.describe(runtime=devices.build_information(), gpu=gpu), indent=2, sort_keys=True))'
} 2>&1 | tee "$results/environment.txt"
ended "${PIPESTATUS[0]}" "the machine"

say "tests that need a GPU"
run_pytest tests 900 --benchmark-skip -m gpu -rs bench/tests/backend

deadline=$((SECONDS + 60 * minutes))
for sweep in "${sweeps[@]}"; do
    left=$((deadline - SECONDS))
    ((left > 0)) || { ended 124 "$sweep" && continue; }
    say "sweep $sweep, $left s left"
    run_pytest "$sweep" "$left" --benchmark-only --benchmark-max-time=$max_time "--sweep=$sweep" \
        "--results=$results/runs" ${pytest_options[@]+"${pytest_options[@]}"}
done

[[ $device == gpu ]] || say "on a CPU: nothing of this says anything about a GPU"
say "results in $results, exit code $code"
exit "$code"
