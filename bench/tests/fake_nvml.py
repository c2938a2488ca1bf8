"""An object that stands for the module `pynvml`, with one GPU."""

from types import SimpleNamespace


class NVMLError(Exception):
    pass


class FakeNvml:
    """Answers as NVML does for one GPU.

    Args:
        reasons: the bits of what holds its clocks down, one a question; the last one goes on.
        name: the GPU's.
    """

    NVMLError = NVMLError
    NVML_CLOCK_SM, NVML_CLOCK_MEM = 1, 2

    def __init__(self, *reasons: int, name: str = "NVIDIA H100"):
        self.reasons = list(reasons) or [0]
        self.name = name
        self.memory = 80 << 30  # bytes

    def nvmlInit(self):
        pass

    def nvmlDeviceGetHandleByIndex(self, index):
        if index != 0:
            raise NVMLError("no such GPU")
        return "handle"

    def nvmlDeviceGetHandleByUUID(self, uuid):
        if uuid != "GPU-1":
            raise NVMLError("no such GPU")
        return "handle"

    def nvmlDeviceGetName(self, handle):
        return self.name.encode()  # as old versions do

    def nvmlDeviceGetMemoryInfo(self, handle):
        return SimpleNamespace(total=self.memory)

    def nvmlSystemGetDriverVersion(self):
        return "580.65.06"

    def nvmlSystemGetCudaDriverVersion_v2(self):
        return 12090

    def nvmlDeviceGetClockInfo(self, handle, clock):
        assert handle == "handle"
        return {self.NVML_CLOCK_SM: 1980, self.NVML_CLOCK_MEM: 2619}[clock]

    def nvmlDeviceGetCurrentClocksEventReasons(self, handle):
        assert handle == "handle"
        return self.reasons.pop(0) if len(self.reasons) > 1 else self.reasons[0]
