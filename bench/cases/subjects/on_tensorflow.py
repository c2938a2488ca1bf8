"""Make the subjects that TensorFlow runs: Keras' layers and cells, the project's cells in its layers."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from bench.cases.case import Case
from bench.cases.subjects.equations import EQUATIONS
from bench.cases.subjects.subject import DEFAULTS, Subject

CELL_OPTIONS = ("activation", "use_bias", "reset_after", "dropout", "recurrent_dropout")
LAYER_OPTIONS = frozenset({"unroll", "stateful", "return_sequences", "go_backwards", "zero_output_for_mask"})
FUSED_LAYER_OPTIONS = LAYER_OPTIONS - {"unroll"}
# what is done with any layer of Keras' protocol
AROUND = frozenset(
    {
        *("masked", "bidirectional", "merge_mode", "backward_layer", "depth"),
        *("static_timesteps", "static_batch"),
    }
)

_USE_CUDNN = {"auto": "auto", "True": True, "False": False}


def cell_arguments(case: Case, options: frozenset[str]) -> dict[str, Any]:
    """The arguments of a cell for the case's options; those it leaves at the default are not passed."""
    given = {name: getattr(case, name) for name in CELL_OPTIONS if getattr(case, name) != DEFAULTS[name]}
    if "implementation" in options:
        given["implementation"] = case.implementation
    return given


def _layer_arguments(case: Case, options: frozenset[str] = LAYER_OPTIONS) -> dict[str, Any]:
    return {"return_state": True, **{name: getattr(case, name) for name in LAYER_OPTIONS & options}}


def _stacked(case: Case, make_one: Callable[[Case], Any]):
    """`depth` layers `make_one(case)` one upon another, each in both directions if the case wants it."""
    if case.depth == 1:
        return _in_its_directions(case, make_one)
    from bench.cases.layers.stack import Stack

    below = replace(case, return_sequences=True)
    levels = [below] * (case.depth - 1) + [case]
    return Stack([_in_its_directions(level, make_one) for level in levels])


def _in_its_directions(case: Case, make_one: Callable[[Case], Any]):
    """`make_one(case)`, in a `Bidirectional` if the case wants one."""
    if not case.bidirectional:
        return make_one(case)
    import keras

    from bench.cases.layers.stack import cells_of

    one_way = replace(case, bidirectional=False, merge_mode=None, backward_layer=False)
    forward = make_one(one_way)
    # `Bidirectional` makes its layers anew from their configuration, a user's unregistered cell too
    with keras.saving.custom_object_scope(
        {type(cell).__name__: type(cell) for cell in cells_of(forward, case.depth)}
    ):
        return keras.layers.Bidirectional(
            forward,
            merge_mode=None if case.merge_mode == "none" else case.merge_mode or "concat",
            backward_layer=make_one(replace(one_way, go_backwards=True)) if case.backward_layer else None,
        )


def builtin(cell: str, keras_name: str, *options: str) -> Subject:
    honoured = LAYER_OPTIONS | AROUND | set(options)

    def make_one(case):
        import keras

        make_builtin = getattr(keras.layers, keras_name)
        kernel = {"use_cudnn": _USE_CUDNN[case.use_cudnn]} if case.use_cudnn else {}
        if case.jit_compile and "use_cudnn" in honoured:  # XLA cannot compile the cuDNN call
            kernel = {"use_cudnn": False}
        return make_builtin(case.units, **kernel, **cell_arguments(case, honoured), **_layer_arguments(case))

    def make(case):
        return _stacked(case, make_one)

    return Subject(
        cell,
        "builtin",
        f"keras {keras_name}",
        EQUATIONS[cell].baseline,
        make,
        honoured,
        kind="builtin",
        equation=cell,
    )


def in_rnn(make_cell: Callable[[Case], Any]) -> Callable[[Case], Any]:
    """case -> `keras.layers.RNN` of the cells that `make_cell` makes, `depth` of them one upon another."""

    def make_one(case):
        import keras

        made = [make_cell(case) for _ in range(case.depth)]
        return keras.layers.RNN(made if case.depth > 1 else made[0], **_layer_arguments(case))

    return lambda case: _in_its_directions(case, make_one)


def in_fused_rnn(make_cell: Callable[[Case], Any]) -> Callable[[Case], Any]:
    """case -> `cells.FusedRNN` of the cell that `make_cell` makes, `depth` layers one upon another."""

    def make_one(case):
        if case.input_product:
            from cells import FusedRNN as Layer
        else:
            from bench.cases.layers.projected import ProjectedFusedRNN as Layer
        return Layer(make_cell(case), **_layer_arguments(case, FUSED_LAYER_OPTIONS))

    return lambda case: _stacked(case, make_one)


def ours(cell: str, *options: str) -> Subject:
    """One of the project's cells in `keras.layers.RNN`."""
    honoured = LAYER_OPTIONS | AROUND | set(options)
    make = in_rnn(_our_cell(cell, honoured))
    return Subject(cell, "rnn", f"{cell} in RNN", EQUATIONS[cell].baseline, make, honoured, equation=cell)


def fused(cell: str, *options: str) -> Subject:
    """One of the project's cells in `cells.FusedRNN`, where `implementation` and `unroll` mean nothing."""
    honoured = FUSED_LAYER_OPTIONS | AROUND | set(options)
    make = in_fused_rnn(_our_cell(cell, honoured))
    return Subject(
        cell, "fused", f"{cell} in FusedRNN", EQUATIONS[cell].baseline, make, honoured, equation=cell
    )


def unrolled(cell: str, function: str, *options: str) -> Subject:
    """One of the project's cells, run by `cells.static_unroll` or `cells.dynamic_unroll`."""
    honoured = frozenset({"time_major", "implementation", *options})
    make_cell = _our_cell(cell, honoured)

    def make(case):
        from bench.cases.layers.unrolled import Unrolled

        return Unrolled(make_cell(case), function, case.time_major)

    return Subject(
        cell,
        function,
        f"{cell} in {function}",
        EQUATIONS[cell].baseline,
        make,
        honoured,
        equation=cell,
        unrolls=function == "static_unroll",
    )


def _our_cell(cell: str, options: frozenset[str]) -> Callable[[Case], Any]:
    def make_cell(case):
        from cells import CELLS

        return CELLS[cell](case.units, **cell_arguments(case, options))

    return make_cell


def keras_cell(equation: str, keras_name: str, *options: str) -> Subject:
    """A cell of Keras' in `keras.layers.RNN`."""
    honoured = LAYER_OPTIONS | AROUND | set(options)

    def make_cell(case):
        import keras

        return getattr(keras.layers, keras_name)(case.units, **cell_arguments(case, honoured))

    return Subject(
        f"keras_{equation}",
        "rnn",
        f"keras {keras_name} in RNN",
        EQUATIONS[equation].baseline,
        in_rnn(make_cell),
        honoured,
        kind="keras_cell",
        equation=equation,
    )
