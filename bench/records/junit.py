"""Write JUnit XML, which the services that run tests read."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from xml.etree import ElementTree

from bench.records.text import one_line

FAILURE, ERROR, SKIPPED = "failure", "error", "skipped"
_OUTPUT = "system-out"  # of a test that passed


@dataclass(frozen=True)
class JunitTest:
    """A test and how it ended.

    Attributes:
        group: what it belongs to.
        name: its name.
        message: what is said of it; may be empty.
        ended: `FAILURE`, `ERROR`, `SKIPPED`; empty where it passed.
        kind: the kind of a failure or an error.
    """

    group: str
    name: str
    message: str = ""
    ended: str = ""
    kind: str = ""


def junit(suite: str, tests: Iterable[JunitTest]) -> str:
    """The XML of a suite of tests; whatever the texts hold, it is one."""
    tests = list(tests)
    ended = Counter(test.ended for test in tests)
    counts = {
        "tests": len(tests),
        "failures": ended[FAILURE],
        "errors": ended[ERROR],
        "skipped": ended[SKIPPED],
    }
    suites = ElementTree.Element("testsuites")
    parent = ElementTree.SubElement(
        suites, "testsuite", name=suite, attrib={name: str(count) for name, count in counts.items()}
    )
    for test in tests:
        case = ElementTree.SubElement(parent, "testcase", classname=_text(test.group), name=_text(test.name))
        if test.ended:
            kind = {"type": _text(test.kind)} if test.kind else {}
            ElementTree.SubElement(case, test.ended, attrib={**kind, "message": _text(test.message)})
        elif test.message:
            ElementTree.SubElement(case, _OUTPUT).text = _text(test.message)
    ElementTree.indent(suites)
    return ElementTree.tostring(suites, encoding="utf-8").decode() + "\n"


def _text(text: str) -> str:
    return one_line(text, None)
