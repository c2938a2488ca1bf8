#!/usr/bin/env bash
# Measures two revisions, or two sets of requirements, on this machine, in processes that take turns
# (BASE HEAD HEAD BASE ...), and hands the runs to `python -m bench gate`. Called again, it goes on where it
# was stopped. ci/README.md says more.
set -Eeuo pipefail

readonly FEWEST=5
readonly WHOSE_CODE='
import os, sys
from importlib.util import find_spec
folders = [os.path.dirname(os.path.dirname(find_spec(name).origin)) for name in ("bench", "cells")]
sys.exit(not all(os.path.samefile(folder, ".") for folder in folders))'

usage() {
    cat <<'USAGE'
usage: ci/gate.sh [options] BASE HEAD [-- PYTEST OPTIONS]
       ci/gate.sh [options] --with REQUIREMENT [BASE HEAD] [-- PYTEST OPTIONS]

  BASE HEAD                  revisions of this repository (with a requirement: HEAD and HEAD)
  --with REQUIREMENT         as pip writes it, of the HEAD side alone: --with tensorflow==2.20; may repeat
  --base-with REQUIREMENT    the same of the BASE side
  --sweep NAME               what to measure (gate)
  --processes N              of each side (5, and no fewer)
  --environment DIR          one virtual environment, made already, for both sides; they must require the same
  --work DIR                 where to work (build/gate/SESSION)
  --plan                     print what would be done, and do nothing
  --threshold, --allow-inconclusive, --junit, --markdown VALUE    as for `python -m bench gate`

The environment variable PYTHON names the interpreter that makes the environments (python3).
Exit codes: those of the gate, 2 where something is wrong.
USAGE
}

die() {
    printf 'gate.sh: %s\n' "$*" >&2
    exit 2
}

trap 'die "stopped at its line $LINENO"' ERR # not with 1, which says that a case is slower

say() { printf '=== %s\n' "$*"; }

sweep=gate processes=5 environment='' work='' plan='' base_with=() head_with=() revisions=() pytest_options=()
gate_options=()
while (($#)); do
    case $1 in
    -h | --help) usage && exit 0 ;;
    --plan) plan=yes ;;
    --)
        shift
        pytest_options=("$@")
        break
        ;;
    --*)
        (($# > 1)) || die "$1 takes a value"
        case $1 in
        --with) head_with+=("$2") ;;
        --base-with) base_with+=("$2") ;;
        --sweep) sweep=$2 ;;
        --processes) processes=$2 ;;
        --environment) environment=$2 ;;
        --work) work=$2 ;;
        --threshold | --allow-inconclusive) gate_options+=("$1" "$2") ;;
        --junit | --markdown) gate_options+=("$1" "$(realpath -m -- "$2")") ;;
        *) die "no option $1; --help says which there are" ;;
        esac
        shift
        ;;
    *) revisions+=("$1") ;;
    esac
    shift
done

# --- what to compare ---

repository=$(git -C "$(dirname "$0")" rev-parse --show-toplevel 2>/dev/null) || die "not in a git repository"
invoked_in=$PWD
cd "$repository"

different_requirements=$((${#base_with[@]} + ${#head_with[@]}))
if ((${#revisions[@]} == 0 && different_requirements)); then revisions=(HEAD HEAD); fi
((${#revisions[@]} == 2)) || die "takes BASE and HEAD, got ${#revisions[@]} revisions; --help says more"
if ! [[ $processes =~ ^[0-9]{1,4}$ ]] || ((processes < FEWEST)); then
    die "--processes $processes: must be $FEWEST or more"
fi

resolve() {
    git rev-parse --verify --quiet --end-of-options "$1^{commit}" || die "$1: no such revision in $repository"
}
base=$(resolve "${revisions[0]}") || exit 2
head=$(resolve "${revisions[1]}") || exit 2

requirements_of() { # the dependencies that a revision declares
    git show "$1:pyproject.toml" | "${PYTHON:-python3}" -c \
        'import sys, tomllib; print(sorted(tomllib.load(sys.stdin.buffer)["project"]["dependencies"]))'
}
if [[ $environment ]]; then
    [[ $environment = /* ]] || environment=$invoked_in/$environment
    [[ -x $environment/bin/python ]] || die "--environment $environment: has no bin/python"
    ((different_requirements == 0)) || die "--environment and --with: one environment holds one set of requirements"
    requires=$(requirements_of "$base") || die "${revisions[0]}: its pyproject.toml cannot be read"
    [[ $(requirements_of "$head") == "$requires" ]] ||
        die "--environment: the two revisions require different packages"
fi

settings="base $base ${base_with[*]-}
head $head ${head_with[*]-}
sweep $sweep
pytest ${pytest_options[*]-}
environment $environment"
session=${base:0:10}-${head:0:10}-$(cksum <<<"$settings" | cut -d' ' -f1)
[[ -z $work || $work = /* ]] || work=$invoked_in/$work
work=${work:-$repository/build/gate/$session}

side_of() { # whose turn number $1, from 0, is: BASE HEAD HEAD BASE
    case $(($1 % 4)) in 0 | 3) echo base ;; *) echo head ;; esac
}
commit_of() { if [[ $1 == base ]]; then echo "$base"; else echo "$head"; fi; }
python_of() { echo "${environment:-$work/environment-$1}/bin/python"; }

turns_done() { if [[ -f $work/session.tsv ]]; then wc -l <"$work/session.tsv"; else echo 0; fi; }

adopt() { # a run that was put in its place, but not yet written down when the session was stopped
    local side run
    for side in base head; do
        for run in "$work/$side"/*/; do
            run=$(basename "$run")
            [[ -f $work/$side/$run/records.csv ]] || continue
            grep -qsF -- "$run" "$work/session.tsv" || printf '%s\t%s\n' "$side" "$run" >>"$work/session.tsv"
        done
    done
}

# --- what it takes ---

prepare() { # the side's work tree and environment
    local tree=$work/tree-$1 commit
    commit=$(commit_of "$1")
    if [[ ! -e $tree/.git ]]; then
        say "$1: work tree of ${commit:0:12}"
        git worktree prune
        git worktree add --quiet --force --detach "$tree" "$commit" || die "$1: cannot make a work tree in $tree"
    fi
    [[ $(git -C "$tree" rev-parse HEAD) == "$commit" ]] || die "$tree: is not at $commit; remove it"
    [[ $environment ]] || install "$1" "$tree"
    (cd "$tree" && PYTHONPATH=$tree "$(python_of "$1")" -c "$WHOSE_CODE") ||
        die "$1: its environment does not import the code of $tree"
}

install() {
    local home=$work/environment-$1 requirements=()
    [[ -e $home/ready ]] && return
    if [[ $1 == base ]]; then requirements=(${base_with[@]+"${base_with[@]}"}); else
        requirements=(${head_with[@]+"${head_with[@]}"}); fi
    say "$1: environment ${requirements[*]-}"
    "${PYTHON:-python3}" -m venv --clear "$home" || die "$1: cannot make an environment in $home"
    PIP_DISABLE_PIP_VERSION_CHECK=1 "$home/bin/python" -m pip install --quiet -e "$2" ${requirements[@]+"${requirements[@]}"} ||
        die "$1: cannot install its requirements"
    touch "$home/ready"
}

measure() { # turn number $1
    local side tree log code=0 run
    side=$(side_of "$1")
    tree=$work/tree-$side
    log=$work/logs/$(printf '%02d' "$1")-$side.txt
    say "process $(($1 + 1)) of $((2 * processes)): $side"
    rm -rf "$work/running"
    (cd "$tree" && PYTHONPATH=$tree exec "$(python_of "$side")" -m pytest -p no:cacheprovider --benchmark-only \
        --sweep "$sweep" --results "$work/running" --benchmark-max-time=2.5 ${pytest_options[@]+"${pytest_options[@]}"}) >"$log" 2>&1 || code=$?
    # 1: a case failed, which is in the records
    ((code <= 1)) || { tail -n 15 "$log" >&2 && die "$side: pytest ended with $code; all it said is in $log"; }
    run=$(find "$work/running" -mindepth 2 -maxdepth 2 -name records.csv -printf '%h\n' 2>/dev/null) || true
    [[ -n $run && $(wc -l <<<"$run") == 1 ]] || { tail -n 15 "$log" >&2 && die "$side: no run; see $log"; }
    mkdir -p "$work/$side"
    mv "$run" "$work/$side/"
    printf '%s\t%s\n' "$side" "$(basename "$run")" >>"$work/session.tsv"
}

judge() {
    say "python -m bench gate --baseline $work/base --current $work/head"
    PYTHONPATH=$repository "$(python_of head)" -m bench gate --baseline "$work/base" --current "$work/head" \
        ${gate_options[@]+"${gate_options[@]}"}
}

# --- the session ---

if [[ $plan ]]; then
    printf '%s\nwork %s\nturns' "$settings" "$work"
    for ((turn = 0; turn < 2 * processes; turn++)); do printf ' %s' "$(side_of "$turn")"; done
    printf '\ndone %s\n' "$(turns_done)"
    exit 0
fi

mkdir -p "$work/logs" || die "$work: cannot be made"
exec 9>"$work/lock"
flock --nonblock 9 || die "$work: another session is at work there"
if [[ -f $work/settings ]]; then
    [[ $(<"$work/settings") == "$settings" ]] || die "$work: holds a session with other settings; remove it"
else
    printf '%s\n' "$settings" >"$work/settings"
fi
trap 'die "stopped; the same command goes on"' INT TERM
adopt

prepare base
prepare head
for ((turn = $(turns_done); turn < 2 * processes; turn++)); do measure "$turn"; done
judge || exit $?
