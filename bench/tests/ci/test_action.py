"""`ci/action.yml` and the workflows: their form, and the action's steps as a shell runs them.

A script plays Python."""

import argparse
import os
import re
import subprocess
from pathlib import Path

import pytest

from bench.commands import check, gate

yaml = pytest.importorskip("yaml")
ROOT = Path(__file__).parents[3]
ACTION = yaml.safe_load((ROOT / "ci" / "action.yml").read_text())
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
COMPARED = "**1 SLOWER**"
# plays Python: writes its arguments down, a line each in brackets; a check and a gate end as told
PLAYER = r"""#!/usr/bin/env bash
for argument; do printf '[%s]' "$argument"; done >>"$CALLS"
echo >>"$CALLS"
[[ $3 == check ]] && { echo "said of $4 \`\`\`"; [[ $4 != *Broken ]]; exit; }
[[ $3 == gate ]] || exit 0
while [[ $1 != --markdown ]]; do shift; done
[[ ${GATE_CODE:-0} == 2 ]] || echo '**1 SLOWER**' >"$2"
exit "${GATE_CODE:-0}"
"""


def example() -> str:
    """The workflow in ci/README.md."""
    (text,) = re.findall(r"^```yaml\n(.*?)^```", (ROOT / "ci" / "README.md").read_text(), re.S | re.M)
    return text


@pytest.fixture
def run_action(tmp_path):
    """run_action(**inputs): the exit code of each step, in their order, up to the first that fails."""
    player = tmp_path / "bin" / "python"
    player.parent.mkdir()
    player.write_text(PLAYER)
    player.chmod(0o755)

    def run(gate_code: int = 0, **given: str) -> dict[str, int]:
        known = {name: str(about["default"]) for name, about in ACTION["inputs"].items()}
        values = {f"inputs.{name}": value for name, value in {**known, "base": "main", **given}.items()}
        codes: dict[str, int] = {}
        for step in ACTION["runs"]["steps"]:
            if "run" in step and (step.get("if") == "always()" or not any(codes.values())):
                codes[step["name"]] = _run_step(step, values, tmp_path, gate_code)
        return codes

    return run


def _run_step(step, values, folder: Path, gate_code: int) -> int:
    output = folder / "output"
    output.write_text("")
    given = {name: _resolved(text, values) for name, text in step.get("env", {}).items()}
    done = subprocess.run(
        ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", step["run"]],
        cwd=folder,
        env={
            **os.environ,
            **given,
            "PATH": f"{folder / 'bin'}{os.pathsep}{os.environ['PATH']}",
            "CALLS": str(folder / "calls"),
            "GATE_CODE": str(gate_code),
            "GITHUB_ACTION_PATH": str(ROOT / "ci"),
            "GITHUB_OUTPUT": str(output),
            "GITHUB_STEP_SUMMARY": str(folder / "summary.md"),
        },
        capture_output=True,
        text=True,
    )
    with (folder / "printed").open("a") as printed:
        printed.write(done.stdout + done.stderr)
    for line in output.read_text().splitlines():
        name, _, value = line.partition("=")
        values[f"steps.{step['id']}.outputs.{name}"] = value
    return done.returncode


def _resolved(text: str, values: dict[str, str]) -> str:
    return re.sub(r"\$\{\{ *(.*?) *\}\}", lambda found: values[found[1]], text)


def calls(folder: Path) -> list[list[str]]:
    lines = (folder / "calls").read_text().splitlines()
    return [line.removeprefix("[").removesuffix("]").split("][") for line in lines]


def test_it_installs_checks_and_compares(run_action, tmp_path):
    codes = run_action(cells="my_cells.py:One\nmy_cells.py:Two", shape="16,120,40,96", requirements="-e .")
    assert codes == {"install": 0, "check": 0, "gate": 0, "summary": 0, "verdict": 0}
    install, *checks, gate = calls(tmp_path)
    assert install == ["-m", "pip", "install", "--quiet", f"{ROOT}/ci/..", "-e", "."]
    assert [call[2:4] for call in checks] == [["check", "my_cells.py:One"], ["check", "my_cells.py:Two"]]
    assert gate == [
        *("-m", "bench", "gate", "--measure", "main", "HEAD"),
        *("--junit", "recurrent-cells/gate.xml", "--markdown", "recurrent-cells/gate.md"),
        *("--processes=5", "--cell=my_cells.py:One", "--cell=my_cells.py:Two", "--shape=16,120,40,96"),
    ]
    comment = (tmp_path / "recurrent-cells" / "comment.md").read_text()
    assert comment == (tmp_path / "summary.md").read_text()
    assert comment.count("```") == 4 and comment.endswith(f"{COMPARED}\n")


def test_without_cells_it_is_the_sweep(run_action, tmp_path):
    run_action(options="--threshold 7% -- -k slstm")
    _, gate = calls(tmp_path)
    assert gate[-6:] == ["--sweep=gate", "--threshold", "7%", "--", "-k", "slstm"]


@pytest.mark.parametrize(
    ("gate_code", "strict", "code", "said"),
    [
        (0, "false", 0, ""),
        (1, "false", 1, "::error::a case is slower"),
        (2, "false", 1, "::error::the revisions were not compared"),
        (3, "false", 0, "::warning::the comparison cannot tell"),
        (3, "true", 1, "::warning::the comparison cannot tell"),
    ],
)
def test_the_verdict(run_action, tmp_path, gate_code, strict, code, said):
    assert run_action(gate_code, strict=strict)["verdict"] == code
    assert said in (tmp_path / "printed").read_text()
    assert (COMPARED in (tmp_path / "summary.md").read_text()) == (gate_code != 2)


def test_a_broken_cell_fails_and_is_compared_all_the_same(run_action, tmp_path):
    codes = run_action(cells="a.py:Broken a.py:Right")
    assert codes["check"] == codes["gate"] == 0 and codes["verdict"] == 1
    assert "::error::a cell breaks the contract" in (tmp_path / "printed").read_text()
    assert len(calls(tmp_path)) == 4


def test_an_input_is_a_text_and_never_a_command(run_action, tmp_path):
    nasty = "$(touch${IFS}run) `touch run` ;touch${IFS}run *"
    codes = run_action(cells=nasty, shape=nasty, base=nasty, options=nasty, requirements=nasty)
    assert set(codes.values()) == {0} and not (tmp_path / "run").exists()
    assert "--cell=*" in calls(tmp_path)[-1]
    scripts = [step["run"] for step in ACTION["runs"]["steps"] if "run" in step]
    assert not any("${{" in script for script in scripts)


def test_options_of_the_action_are_those_of_the_commands():
    """What the steps call is what the commands take."""
    for command, options in (
        (check, ["a.py:B", "--junit", "x"]),
        (
            gate,
            [
                "--measure",
                "a",
                "b",
                "--junit",
                "x",
                "--markdown",
                "y",
                "--processes=5",
                "--cell=c",
                "--sweep=s",
            ],
        ),
    ):
        parser = argparse.ArgumentParser()
        command.add_arguments(parser)
        parser.parse_args([*options, *(["--shape=1,2,3,4"] if command is gate else [])])


def test_the_example_gives_inputs_that_there_are():
    steps = yaml.safe_load(example())["jobs"]["cells"]["steps"]
    assert len(example().splitlines()) <= 14
    (step,) = (step for step in steps if step["uses"].endswith("/ci@main"))
    assert set(step["with"]) <= set(ACTION["inputs"])
    assert steps[0]["with"]["fetch-depth"] == 0


@pytest.mark.parametrize("file", [*WORKFLOWS, "example", ROOT / "ci" / "action.yml"], ids=str)
def test_the_form_of_workflows_and_of_the_action(file, tmp_path):
    checker = pytest.importorskip("check_jsonschema")
    if file == "example":
        file = tmp_path / "example.yml"
        file.write_text(example())
    schema = "vendor.github-actions" if file.name == "action.yml" else "vendor.github-workflows"
    assert checker.main.main(["--builtin-schema", schema, str(file)], standalone_mode=False) in (0, None)
