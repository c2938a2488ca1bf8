"""The commands' one way out: an error that nobody foresaw is a line and the code 2, never a verdict."""

import io
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

import bench
from bench.__main__ import main
from bench.commands.parser import CommandParser

COMMANDS = {
    "advise": ["--batch-size=1", "--timesteps=1", "--features=1", "--units=1", "--mode=infer"],
    "check": ["cells:SLSTMCell"],
    "doctor": [],
    "compare": ["lstm", "--shape=1,1,1,1"],
    "gate": ["--current", "x"],
    "history": [],
    "readme": [],
    "report": [],
    "selftest": [],
}


@pytest.mark.parametrize("name", COMMANDS)
def test_what_nobody_foresaw_is_one_line_and_no_verdict(name, monkeypatch, capsys):
    def fails(_):
        raise RuntimeError("first\nsecond \x1b[31m")

    monkeypatch.setattr(f"bench.commands.{name}.main", fails)
    assert main([name, *COMMANDS[name]]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line == "error: RuntimeError: first second \\x1b[31m (--debug shows where)"
    assert main([name, *COMMANDS[name], "--debug"]) == 2
    assert "Traceback" in capsys.readouterr().err


def test_an_interrupt_is_one_line(monkeypatch, capsys):
    def interrupted(_):
        raise KeyboardInterrupt

    monkeypatch.setattr("bench.commands.history.main", interrupted)
    assert main(["history"]) == 130
    assert capsys.readouterr().err == "interrupted\n"


def test_an_interrupt_that_python_drops_is_raised_again(monkeypatch, capsys):
    class Dropping:
        def __del__(self):
            raise KeyboardInterrupt

    def works(_):
        Dropping()
        time.sleep(5)

    hook = sys.unraisablehook
    monkeypatch.setattr("bench.commands.history.main", works)
    assert main(["history"]) == 130
    assert capsys.readouterr().err == "interrupted\n"
    assert sys.unraisablehook is hook


def test_an_interrupt_while_a_command_is_imported_is_one_line(monkeypatch, capsys):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("bench.__main__._commands", interrupted)
    assert main(["history"]) == 130
    monkeypatch.setattr("bench.commands.run.run", interrupted)
    assert main(["run", "--sweep=smoke"]) == 130
    assert capsys.readouterr().err == "interrupted\n" * 2


def test_ctrl_c_in_a_run_has_the_exit_code_of_an_interrupt(monkeypatch, capfd):
    def interrupted(_):
        raise KeyboardInterrupt

    monkeypatch.setattr("bench.session.start.start_run", interrupted)
    assert main(["run", "--case=infer-lstm-rnn-b1-t1-f1-u1"]) == 130
    assert capfd.readouterr().err == "interrupted\n"


def test_what_a_terminal_cannot_write_is_an_escape(monkeypatch):
    monkeypatch.setattr("bench.commands.history.main", lambda _: print("2×, in \udcc3"))
    for encoding, said in (("ascii", b"2\\xd7, in \\udcc3\n"), ("utf-8", b"2\xc3\x97, in \\udcc3\n")):
        written = io.BytesIO()
        monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, encoding))
        main(["history"])
        assert written.getvalue() == said


def test_a_closed_output_is_no_error(monkeypatch):
    monkeypatch.setattr("bench.commands.history.main", lambda _: print("x") or 0)
    monkeypatch.setattr(sys, "stdout", None)
    assert main(["history"]) == 0


def test_foreign_modules_in_the_folder_one_is_in_are_not_pythons(tmp_path):
    for name in ("statistics", "random", "argparse", "pytest", "numpy", "traceback"):
        (tmp_path / f"{name}.py").write_text("raise RuntimeError('a foreign module')")
    house = str(Path(bench.__file__).parents[1])
    done = subprocess.run(
        [sys.executable, "-m", "bench", "report", "nowhere"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": house},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "nowhere: no such file\n"


def test_a_reader_that_has_seen_enough_ends_it_quietly(tmp_path):
    program = (
        "import sys; from bench import __main__ as m; import bench.commands.history as h; "
        "h.main = lambda _: print('x' * 10**6) or 0; sys.exit(m.main(['history']))"
    )
    done = subprocess.run(
        f"{sys.executable} -c {program!r} | head -c 10",
        shell=True,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.stdout, done.stderr) == ("x" * 10, "")


def test_the_help_of_run_shows_our_options_first(capfd):
    assert main(["run", "--help"]) == 0
    said = capfd.readouterr().out
    assert said.startswith("usage: python -m bench run [OPTIONS]")
    assert 0 < said.index("--sweep NAME") < said.index("--benchmark-min-time")


def test_another_module_called_cells_is_said_in_one_line(tmp_path):
    (tmp_path / "cells.py").write_text("raise SystemExit('not ours')\n")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    first = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(tmp_path), str(Path(bench.__file__).parents[1])]),
    }
    done = subprocess.run(
        [sys.executable, "-m", "bench", "check", "lstm"],
        cwd=elsewhere,
        env=first,
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"error: {tmp_path / 'cells.py'} hides this project's package `cells`: rename it\n"


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (["gate", "--curent", "x"], "no option --curent; did you mean --current?"),
        (["compare", "lstm", "--shpe=1,2,3,4"], "no option --shpe; did you mean --shape?"),
        (
            ["compare", "lstm", "--shape=1,2,3,4", "-q"],
            "no option -q; there are -h, --help, --layer, --shape",
        ),
        (["check", "a.py:A", "--colour=blue"], "no option --colour; there are -h, --help, --layer, --units"),
        (["report", "--outptu", "x.html"], "no option --outptu; did you mean --output?"),
        (["doctor", "now"], "takes no argument 'now'"),
        (["history", "--resluts=x"], "no option --resluts; "),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_an_unknown_option_is_an_error_of_the_commands_own(capsys, command, said):
    with pytest.raises(SystemExit) as ended:
        main(command)
    error = capsys.readouterr().err
    assert ended.value.code == 2 and error.startswith(f"usage: python -m bench {command[0]} [-h]")
    assert f"python -m bench {command[0]}: error: {said}" in error


def test_options_behind_two_dashes_and_beginnings_of_options_are_not_looked_at():
    parser = CommandParser()
    parser.add_argument("--at-most")
    parser.add_argument("rest", nargs="*")
    chosen = parser.parse_args(["--at=2", "--", "--budget=3"])
    assert (chosen.at_most, chosen.rest) == ("2", ["--budget=3"])


def test_an_unknown_option_of_run_is_told_the_nearest(capfd):
    assert main(["run", "--subjet=lstm-rnn", "--benchmark-max-tim=1", "--nonsense"]) == 4
    error = capfd.readouterr().err
    assert "python -m bench run: error: unrecognized arguments: --subjet" in error
    assert "--subjet: did you mean: --subject?" in error
    assert "--benchmark-max-tim: did you mean: --benchmark-max-time" in error
    assert "--nonsense: did you mean" not in error


def test_run_takes_options_alone(capfd, tmp_path):
    (tmp_path / "my_cells.py").write_text("")
    for given in (str(tmp_path / "my_cells.py"), str(tmp_path)):
        assert main(["run", given, "--sweep=smoke", "--collect-only"]) == 4
        assert (
            f"{given}: python -m bench run takes options alone; a cell of yours is --cell"
            in capfd.readouterr().err
        )


@pytest.mark.parametrize(
    "command",
    [
        ["report", ""],
        ["history", "--results="],
        ["gate", "--current", " "],
        ["readme", "--file="],
        ["advise", "--results="],
        ["check", "lstm", "--junit="],
        ["selftest", "--write="],
    ],
    ids=lambda command: command[0],
)
def test_an_empty_name_of_a_file_is_refused(capsys, command):
    with pytest.raises(SystemExit) as ended:
        main(command)
    assert ended.value.code == 2
    assert "must name a file or a folder" in capsys.readouterr().err


def test_an_empty_name_of_the_results_is_refused(capfd):
    assert main(["run", "--results=", "--sweep=smoke"]) == 4
    assert "--results: '': must name a file or a folder" in capfd.readouterr().err
