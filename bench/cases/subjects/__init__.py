"""Name the pairs of a layer and a cell that are measured: what a subject is, what makes one, the table.

Imports the case and the contract. Nothing of Keras is imported before a subject's layer is made.
"""

from bench.cases.subjects.elsewhere import BACKENDS
from bench.cases.subjects.equations import EQUATIONS
from bench.cases.subjects.subject import (
    NeedsStaticShape,
    NotForCudnn,
    NotInstalled,
    Subject,
    UnsupportedOption,
    check_installed,
    make_layer,
)
from bench.cases.subjects.table import FROM_PAPERS, IN_PLAIN_KERAS, PEER_LAYERS, SUBJECTS, equation_of
from bench.cases.subjects.user import USER_LAYERS, WHOLE, user_subject

__all__ = [
    "BACKENDS",
    "EQUATIONS",
    "FROM_PAPERS",
    "IN_PLAIN_KERAS",
    "PEER_LAYERS",
    "SUBJECTS",
    "USER_LAYERS",
    "WHOLE",
    "NeedsStaticShape",
    "NotForCudnn",
    "NotInstalled",
    "Subject",
    "UnsupportedOption",
    "check_installed",
    "equation_of",
    "make_layer",
    "user_subject",
]
