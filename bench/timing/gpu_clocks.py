"""What the driver says of the GPU, through NVML: versions, memory, clocks and what holds these down.

NVML comes with the package `nvidia-ml-py`, the extra `gpu`. Without it, or where it does not know the GPU
that computes, everything here is empty and nothing fails.
"""

import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from typing import Any, TypeVar

T = TypeVar("T")

# NVML's bits, and what each says. The others say why a clock is low that nothing holds down: the GPU is idle,
# or somebody has set the clock.
_HOLDING_DOWN: dict[int, str] = {
    0x04: "power cap",
    0x08: "hardware slowdown",
    0x10: "sync boost",
    0x20: "software thermal slowdown",
    0x40: "hardware thermal slowdown",
    0x80: "power brake",
}


@dataclass(frozen=True)
class ClockState:
    """A GPU at one moment.

    Attributes:
        sm_hz, memory_hz: the clocks, hertz.
        held_down_by: what keeps them lower than they could be.
    """

    sm_hz: float
    memory_hz: float
    held_down_by: tuple[str, ...]


class Gpu:
    """The GPU that computes, as NVML knows it; or none, of which everything is unknown.

    Args:
        name: what TensorFlow calls the first GPU that it uses; None: none is used.
        nvml: the module `pynvml`, None where it is not installed.
    """

    def __init__(self, name: str | None, nvml: Any = None):
        self._nvml = nvml
        self._handle = _handle(nvml, name) if nvml is not None and name is not None else None
        self.clocks: list[dict[str, Any]] = []  # of every measurement watched: what it was, before, after

    def facts(self) -> dict[str, str]:
        """Driver, and the CUDA version that it serves; empty where unknown."""
        if self._handle is None:
            return {}
        cuda = self._nvml.nvmlSystemGetCudaDriverVersion_v2()
        return {
            "driver": _text(self._nvml.nvmlSystemGetDriverVersion()),
            "driver_cuda": f"{cuda // 1000}.{cuda % 1000 // 10}",
        }

    def clock_state(self) -> ClockState | None:
        """Its clocks now; None where unknown."""
        if self._handle is None:
            return None
        try:
            reasons = _reasons(self._nvml)(self._handle)
            sm, memory = (
                1e6 * self._nvml.nvmlDeviceGetClockInfo(self._handle, clock)
                for clock in (self._nvml.NVML_CLOCK_SM, self._nvml.NVML_CLOCK_MEM)
            )
        except self._nvml.NVMLError:
            return None
        return ClockState(sm, memory, tuple(word for bit, word in _HOLDING_DOWN.items() if reasons & bit))

    def watch(self, what: str, measurement: Callable[[], T]) -> tuple[T, bool | None]:
        """Makes a measurement and notes the clocks before and after it.

        Returns:
            What `measurement` returns, and whether the GPU was throttled; None where unknown.
        """
        before = self.clock_state()
        result = measurement()
        after = self.clock_state()
        if before or after:
            self.clocks.append({"case": what, "before": _as_json(before), "after": _as_json(after)})
        return result, throttled((before, after))


@cache
def gpu_bytes() -> int | None:
    """The memory of the first GPU that TensorFlow may use, bytes; None where unknown. Asked once."""
    return memory_of(installed_nvml())


def memory_of(nvml: Any) -> int | None:
    """The same of the module `pynvml`, None where it is not installed."""
    if nvml is None:
        return None
    try:
        return int(nvml.nvmlDeviceGetMemoryInfo(_first_handle(nvml)).total)
    except nvml.NVMLError:
        return None


def installed_nvml() -> Any:
    """The module `pynvml`; None where it is not installed."""
    try:
        import pynvml
    except ImportError:
        return None
    return pynvml


def throttled(states: Sequence[ClockState | None]) -> bool | None:
    """Whether something held the clocks down at one of these moments; None where that is unknown."""
    if any(state is not None and state.held_down_by for state in states):
        return True
    return None if None in states else False


def _as_json(state: ClockState | None) -> dict[str, Any] | None:
    return None if state is None else asdict(state)


def _handle(nvml: Any, name: str) -> Any:
    """NVML's handle of the GPU that TensorFlow calls `name`; None where it cannot be told which that is.

    NVML counts all GPUs of the machine, TensorFlow those of `CUDA_VISIBLE_DEVICES` alone.
    """
    try:
        handle = _first_handle(nvml)
        return handle if _text(nvml.nvmlDeviceGetName(handle)) == name else None
    except nvml.NVMLError:
        return None


def _first_handle(nvml: Any) -> Any:
    """NVML's handle of the first GPU of `CUDA_VISIBLE_DEVICES`; raises NVMLError where there is none."""
    first = os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0].strip()
    nvml.nvmlInit()
    if first.isdigit():
        return nvml.nvmlDeviceGetHandleByIndex(int(first))
    return nvml.nvmlDeviceGetHandleByUUID(first)


def _reasons(nvml: Any) -> Any:
    """NVML's function for what holds the clocks down; its name until 2023 was another."""
    return (
        getattr(nvml, "nvmlDeviceGetCurrentClocksEventReasons", None)
        or nvml.nvmlDeviceGetCurrentClocksThrottleReasons
    )


def _text(value: str | bytes) -> str:
    """Old versions of `pynvml` give bytes."""
    return value.decode() if isinstance(value, bytes) else value
