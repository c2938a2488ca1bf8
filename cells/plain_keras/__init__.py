"""Cells in plain Keras, as papers and tutorials write them: layers with `build` and `call`, no `GatedCell`.

`cell` has what all share: units, states of zeros, a configuration. `one_product` holds those whose step has
at most one product with the state, `chained_products` those whose products wait for each other,
`matrix_states` those whose state is a matrix. Letters as in `cells/textbook.py`.
"""

from cells.plain_keras.chained_products import (
    CfCCell,
    LMUCell,
    MultiplicativeLSTMCell,
    ProjectedLSTMCell,
    RHNCell,
)
from cells.plain_keras.matrix_states import DeltaNetCell, MatrixLSTMCell
from cells.plain_keras.one_product import (
    AntisymmetricRNNCell,
    CIFGLSTMCell,
    LayerNormGRUCell,
    MinGRUCell,
    SRUCell,
)

__all__ = [
    "AntisymmetricRNNCell",
    "CIFGLSTMCell",
    "CfCCell",
    "DeltaNetCell",
    "LMUCell",
    "LayerNormGRUCell",
    "MatrixLSTMCell",
    "MinGRUCell",
    "MultiplicativeLSTMCell",
    "ProjectedLSTMCell",
    "RHNCell",
    "SRUCell",
]
