"""`FusedRNN` without the product of the inputs and the kernel, which benchmarks of kernels leave out."""

from cells import FusedRNN


class ProjectedFusedRNN(FusedRNN):
    """`FusedRNN` over inputs that have been multiplied by the kernel: [batch, timesteps, gates · units]."""

    def _inputs(self, sequences, kernel, bias, training):
        return {"inputs": sequences + bias}
