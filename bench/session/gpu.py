"""Which device the session sees and measures on."""

import os
import sys

from _pytest.mark.expression import Expression  # pytest's own reading of -m; no public name

from bench.cases.devices import GROWTH, NO_GPU, hide_gpus, let_memory_grow, may_have_gpu, missing_gpu
from bench.session import state


def show_devices(config) -> None:
    """Decides what TensorFlow, which nobody has imported yet, is to see, for as long as the session lasts.

    `--device=cpu` sees no GPU, and neither do ordinary tests: what they ask for holds on a CPU.
    """
    before = {name: os.environ.get(name) for name in (*NO_GPU, *GROWTH)}
    config.add_cleanup(lambda: _put_back(before))
    on_cpu = config.getoption("device") == "cpu" or config.getoption("rehearse")
    if not on_cpu and (wants_gpu(config) or config.getoption("benchmark_only")):
        let_memory_grow()
        return
    if may_have_gpu() and config.getoption("device") == "auto" and not config.getoption("benchmark_skip"):
        config.stash[state.notes].append("ordinary tests see no GPU; --benchmark-only measures on it")
    hide_gpus()


def _put_back(variables: dict[str, str | None]) -> None:
    for name, value in variables.items():
        os.environ.pop(name, None)
        if value is not None:
            os.environ[name] = value


def wants_gpu(config) -> bool:
    """True where a GPU was asked for: by `--device=gpu`, `--require-gpu` or `-m gpu`."""
    return (
        config.getoption("require_gpu") or config.getoption("device") == "gpu" or has_gpu_tests_alone(config)
    )


def has_gpu_tests_alone(config) -> bool:
    """True where `-m` chooses tests marked `gpu` and none without a mark."""
    text = config.getoption("markexpr")
    try:
        chosen = Expression.compile(text) if text else None
    except SyntaxError:  # pytest says so itself
        return False
    return chosen is not None and chosen.evaluate(_is_gpu) and not chosen.evaluate(_is_none)


def _is_gpu(name: str, /, **_: object) -> bool:
    return name == "gpu"


def _is_none(name: str, /, **_: object) -> bool:
    return False


def device_of(config) -> str:
    """`cpu` or `gpu`; for `auto` TensorFlow is asked, and so imported, only where there may be a GPU."""
    if config.getoption("require_gpu") or config.getoption("rehearse"):
        return "gpu"
    if config.getoption("device") != "auto":
        return config.getoption("device")
    if not may_have_gpu():
        return "cpu"
    from bench.backend import devices

    if devices.gpu_name():
        return "gpu"
    if sys.platform == "linux":
        config.stash[state.notes].append(f"--device=auto: measures on the CPU: {missing_gpu()}")
    return "cpu"


def missing(config) -> str | None:
    """Says why this session has no GPU; None where it has one."""
    if config.getoption("device") == "cpu":
        return "--device=cpu was asked for"
    if config.getoption("rehearse"):
        return "this is a rehearsal"
    from bench.backend import devices

    return None if devices.gpu_name() else missing_gpu()


def lacks_cudnn(config) -> bool:
    run = config.stash.get(state.run, None)
    if run is None or run.folder is None or not config.getoption("require_gpu"):
        return False
    if not config.stash[state.may_use_cudnn]:
        return False
    return not any(record["layer"] == "builtin" and record["kernel"] == "cudnn" for record in run.records)
