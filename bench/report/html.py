"""The HTML report: runs as one file that needs no other.

The page is `templates/report.html`, with its style and its script put into it. Every text from a run is
escaped, and the page's own policy lets no other script run and nothing be loaded.
"""

import base64
import hashlib
import sys
from collections.abc import Sequence
from pathlib import Path

from bench.records.csv_file import records_file
from bench.records.files import write_whole
from bench.records.run_folder import check_not_mixed, read_run
from bench.records.text import one_line
from bench.report.page.machines import beside_each_other
from bench.report.page.section import Section, section
from bench.report.page.two_runs import TwoRuns, two_runs
from bench.report.table import Table, strip

REPORT_FILE = "report.html"
MOST_WHOLE = 5  # runs: of a hundred cases each takes three seconds and two megabytes


def default_target(runs: Sequence[Path]) -> Path:
    """Finds the file for the report of these runs: in the folder of one, next to the folders of several."""
    folder = records_file(runs[0]).parent
    return (folder if len(runs) == 1 else folder.parent) / REPORT_FILE


def write_report(run_folders: Sequence[Path], target: Path) -> Path:
    """Writes the page of the runs, each a folder or a CSV, to `target`, which it returns.

    What is wrong with a run is said on the page and on stderr. Of more than `MOST_WHOLE` runs the page leaves
    out what their own reports have: charts, prices, and all but its row of each case.

    Raises:
        RecordError: a run's records cannot be read, or are a rehearsal's beside a measurement's.
        OSError: `target` cannot be written.
    """
    runs = [read_run(folder) for folder in run_folders]
    check_not_mixed((run.folder, str(row["machine"])) for run in runs for row in run.records)
    for notice in (notice for run in runs for notice in run.notices):
        print(one_line(notice), file=sys.stderr)
    brief = len(runs) > MOST_WHOLE
    sections = [section(run, f"run-{number}", brief) for number, run in enumerate(runs, 1)]
    comparison = two_runs(*runs) if len(runs) == 2 else None
    page = render(sections, beside_each_other([run.records for run in runs]), comparison)
    write_whole(target, page)
    return target


def render(
    sections: Sequence[Section], machines: Sequence[Table] = (), comparison: TwoRuns | None = None
) -> str:
    """The page; `machines` are the tables of what was measured on several, `comparison` is of two runs."""
    from jinja2 import Environment, PackageLoader, StrictUndefined
    from markupsafe import Markup

    templates = Environment(loader=PackageLoader("bench.report"), autoescape=True, undefined=StrictUndefined)
    style, script = (_source(templates, name) for name in ("report.css", "report.js"))
    return templates.get_template("report.html").render(
        title="What recurrent cells cost",
        sections=sections,
        machines=machines,
        comparison=comparison,
        numeric=(int, float),
        strip=strip,
        style=Markup(style),
        script=Markup(script),
        policy=_policy(style, script),
    )


def _source(templates, name: str) -> str:
    return templates.loader.get_source(templates, name)[0]


def _policy(style: str, script: str) -> str:
    """The content security policy that allows this style, this script, and images in the page's own text."""
    allowed = (f"style-src {_hash(style)}", f"script-src {_hash(script)}", "img-src data:")
    return "; ".join(("default-src 'none'", *allowed, "base-uri 'none'", "form-action 'none'"))


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
