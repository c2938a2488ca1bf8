"""What to change in a cell whose check failed, and where: by where the error arose."""

from bench.contract.cell_under_test import Cells
from bench.contract.check import Check, Refused
from bench.contract.report import NO_EXIT


def advice(error: BaseException, check: Check, cells: Cells) -> tuple[str, str]:
    """(what to change, `file:line` where, or "") for a check that raised `error`."""
    if isinstance(error, Refused):
        return error.change or check.change, error.at or cells.where(check.at)
    if isinstance(error, SystemExit):
        return NO_EXIT, cells.user_frame(error)
    return check.change, cells.user_frame(error) or cells.where(check.at)
