"""A cluster: what travels to a worker, who may measure, what is written, and what a worker's loss leaves.

Two real worker processes, which stand-ins keep busy but for one test.
"""

import shutil
from dataclasses import replace

import pytest

from bench.cases.case import Case
from bench.cases.comparisons import Comparison, names_of
from bench.cases.subjects import SUBJECTS
from bench.cases.sweeps import SWEEPS
from bench.cases.user_cells import UserCellError, UserCells
from bench.cluster import admission, run, sources, station
from bench.cluster.admission import ClusterError
from bench.cluster.run import Wanted
from bench.cluster.shared_writer import SharedWriter
from bench.cluster.station import About, Setup
from bench.gate.repetition import join
from bench.records.csv_file import read_records
from bench.records.run_folder import read_environment, stored_folders, write_environment
from bench.records.schema import KILLED, TIMINGS
from bench.tests import sample_records
from bench.tests.cluster import stand_ins
from bench.timing.blocks import Budget

BUDGET = Budget(0.05, 1)
SHAPE = (2, 3, 2, 2)
VERSIONS = stand_ins.VERSIONS


def comparison(cell: str = "slstm", timesteps: int = 3, layer: str = "rnn") -> Comparison:
    case = Case(cell, layer, "infer", 2, timesteps, 2, 2)
    return Comparison("smoke", case, replace(case, cell="lstm", layer="builtin"), SWEEPS["smoke"])


# --- a cell travels as its file ---------------------------------------------------------------------------

CELL = "import helper\nfrom package import inner\nimport keras\n\n\nclass Cell:\n    pass\n"


@pytest.fixture
def cell_file(tmp_path):
    folder = tmp_path / "client"
    (folder / "package").mkdir(parents=True)
    (folder / "cell.py").write_text(CELL)
    (folder / "helper.py").write_text("import deeper\n")
    (folder / "deeper.py").write_text("import cell\n")
    (folder / "unused.py").write_text("")
    for name in ("__init__", "inner"):
        (folder / "package" / f"{name}.py").write_text("")
    return folder / "cell.py"


def test_a_cell_travels_with_the_modules_beside_it_that_it_imports(cell_file):
    cells = UserCells.of([f"{cell_file}:Cell"], baseline=f"{cell_file}:Other")
    files = sources.travelling(cells)
    ((place, of_place),) = files.items()
    names = ["cell.py", "deeper.py", "helper.py", "package/__init__.py", "package/inner.py"]
    assert place == str(cell_file) and [name for name, _ in of_place] == names
    shutil.rmtree(cell_file.parent)
    there = sources.unpacked(cells, files)
    path = sources.Path(there.targets[0].rpartition(":")[0])
    assert path.read_text() == CELL and (path.parent / "package" / "inner.py").is_file()
    assert there.targets[0].endswith("cell.py:Cell") and there.baseline == f"{path}:Other"
    assert set(there.subjects) == set(cells.subjects), "the same subjects"
    assert sources.unpacked(cells, files) == there, "each content once"


def test_another_content_is_another_file(cell_file):
    cells = UserCells.of([f"{cell_file}:Cell"])
    before = sources.unpacked(cells, sources.travelling(cells))
    (cell_file.parent / "deeper.py").write_text("# edited\n")
    assert sources.unpacked(cells, sources.travelling(cells)) != before


@pytest.mark.parametrize(
    ("target", "message"),
    [("package.module:Cell", "path/to/file.py:Name"), ("no/such.py:Cell", "cannot be read: No such file")],
)
def test_what_cannot_travel_is_refused(target, message):
    with pytest.raises(UserCellError, match=message):
        sources.travelling(UserCells.of([target]))


# --- who may measure --------------------------------------------------------------------------------------


def about(name: str, **changes) -> About:
    return replace(About(name, "host", (int(name),), "Xeon", VERSIONS), **changes)


@pytest.mark.parametrize("name", VERSIONS)
def test_other_versions_are_refused_by_name(name):
    other = about("1", versions={**VERSIONS, name: "another"})
    with pytest.raises(ClusterError, match=rf"worker 1 has {name} another instead of {VERSIONS[name]}"):
        admission.check_versions([about("0"), other], VERSIONS)
    admission.check_versions([about("0")], VERSIONS)


def test_workers_that_share_a_core_of_one_machine_are_refused():
    with pytest.raises(ClusterError, match=r"workers 0 and 1 of host .* cores 0: pin"):
        admission.check_cores([about("0"), about("1", cores=(0, 1))])
    admission.check_cores([about("0"), about("1", cores=(0,), host="another")])


def test_machines_of_several_kinds_are_refused_unless_each_is_to_be_measured():
    workers = [about("0"), about("1", machine="Epyc")]
    with pytest.raises(ClusterError, match=r"2 kinds of machine \(Xeon: 0; Epyc: 1\).*--each-machine"):
        admission.by_machine(workers, each_machine=False)
    assert list(admission.by_machine(workers, each_machine=True)) == ["Xeon", "Epyc"]


def test_a_worker_that_may_measure_several_at_once_is_refused():
    for resources in ({}, {"bench": 2}):
        with pytest.raises(ClusterError, match=r"worker 7: its resource bench is .*--resources bench=1"):
            admission.check_resources([{"name": "7", "resources": resources}])


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        (Wanted(workers=2, scheduler="tcp://a:1"), "give one of them"),
        (Wanted(each_machine=True), "--each-machine is for a cluster"),
        (Wanted(resume=sources.Path("run")), "--resume is for a cluster"),
        (Wanted(workers=2, each_machine=True, resume=sources.Path("run")), "leave out --each-machine"),
        (Wanted(scheduler=""), "--scheduler '': must be tcp://HOST:PORT"),
        (Wanted(scheduler="tcp://host:0"), "--scheduler tcp://host:0: must be"),
        (Wanted(scheduler="tcp://host:65536"), "--scheduler tcp://host:65536: must be"),
    ],
)
def test_options_that_make_no_sense_together_are_refused(wanted, message):
    with pytest.raises(ClusterError, match=message):
        wanted.check()


def test_a_run_that_goes_on_has_the_rows_that_are_asked_for_and_no_others(tmp_path):
    asked = [comparison(), comparison(timesteps=4)]
    names = [names_of(each.sweep, each.case, each.baseline, SUBJECTS) for each in [*asked, comparison("gru")]]
    stored = [{**sample_records.record("slstm-rnn"), **name, "baseline": name["baseline"]} for name in names]
    in_flight = {**stored[1], **dict.fromkeys(TIMINGS), **KILLED, "timestamp": None}
    writer = SharedWriter(tmp_path / "run")
    writer.finish(0, stored[0])
    writer.begin(1, in_flight)
    for path in (tmp_path / "run", tmp_path / "run" / "records.csv"):
        folder, kept = run.resumed(path, asked)
        assert folder == tmp_path / "run" and [record["case"] for record in kept] == [asked[0].case.id]
    with pytest.raises(ClusterError, match=r"--resume .*run: 1 of its rows are not .* smoke: infer"):
        run.resumed(tmp_path / "run", asked[:1])
    writer.finish(2, stored[2])
    with pytest.raises(ClusterError, match="of the sweep smoke: infer-gru-rnn"):
        run.resumed(tmp_path / "run", asked)
    writer.close()
    (tmp_path / "file").write_text("not a run\n")
    for odd in ("nowhere", "file", "."):
        with pytest.raises(ClusterError, match=f"--resume {tmp_path / odd}: is no run: "):
            run.resumed(tmp_path / odd, asked)


# --- the file, at every moment ----------------------------------------------------------------------------


def test_what_ended_and_what_is_in_flight_stand_in_the_file(tmp_path):
    rows = [sample_records.record("slstm-rnn", figures={"run_id": f"run {n}"}) for n in range(4)]
    in_flight = [{**row, **dict.fromkeys(TIMINGS), **KILLED} for row in rows]
    writer = SharedWriter(tmp_path / "run")

    def stored():
        return [(r["run_id"][-1], r["reason"]) for r in read_records(writer.path)]

    for number in (0, 1, 2):
        writer.begin(number, in_flight[number])
    assert stored() == [("0", "killed"), ("1", "killed"), ("2", "killed")]
    writer.finish(1, rows[1])
    assert stored() == [("1", None), ("0", "killed"), ("2", "killed")]
    writer.withdraw(0)
    writer.finish(2, rows[2])
    assert stored() == [("1", None), ("2", None)]
    writer.close()
    again = SharedWriter(tmp_path / "run", read_records(writer.path)[:1])
    assert stored() == [("1", None)]
    again.finish(3, rows[3])
    assert stored() == [("1", None), ("3", None)]
    again.close()
    with pytest.raises(FileExistsError):
        SharedWriter(tmp_path / "run")


# --- two real workers -------------------------------------------------------------------------------------

distributed = pytest.importorskip("distributed", reason="the extra `cluster` is not installed")

from bench.cluster.connect import local_client, remote_client  # noqa: E402
from bench.cluster.dispatch import Dispatcher, Duties  # noqa: E402
from bench.records.environment import usable_cores  # noqa: E402

two_cores = pytest.mark.skipif(usable_cores() < 2, reason="two workers need two cores")
STAND_INS = Duties(stand_ins.introduce, stand_ins.measure)
IN_PROCESSES = replace(STAND_INS, measure=stand_ins.measure_in_process)


@pytest.fixture(scope="module")
def client():
    with local_client(2) as client:
        yield client


@pytest.fixture
def dispatched(client, tmp_path):
    """comparisons, … -> a dispatcher in `tmp_path/run`, whose workers do what the stand-ins do."""
    opened = []

    def dispatched(rows, expected=VERSIONS, setup=None, client=client, **options):
        made = Dispatcher(
            client,
            tmp_path / "run",
            rows,
            SUBJECTS,
            setup or stand_ins.setup(tmp_path),
            expected,
            BUDGET,
            **{"workers": 2, "duties": STAND_INS, **options},
        )
        opened.append(made)
        return made

    yield dispatched
    for made in opened:
        made.close()


def measured(tmp_path) -> list[str]:
    """The ids of the cases that the stand-ins were given, in the order of their names."""
    return sorted(line.split()[0] for line in (tmp_path / "measured").read_text().splitlines())


@two_cores
def test_a_lost_worker_leaves_a_killed_row_that_is_measured_once_more_elsewhere(dispatched, tmp_path):
    cells = ["slstm", stand_ins.FATAL_ONCE, "lstm", stand_ins.FATAL, stand_ins.ENDS_ITS_PROCESS]
    rows = [comparison(cell) for cell in cells] + [comparison(timesteps=steps) for steps in range(4, 9)]
    made = dispatched(rows)
    records = [made.measure(row) for row in rows]
    stored = {record["case"]: record for record in read_records(tmp_path / "run")}
    assert [stored[row.case.id] for row in rows] == records and len(stored) == len(rows)
    _, once, _, twice, ended, *others = records
    assert once["status"] == "ok" and {once["worker"], once["lost_workers"]} == {"0", "1"}
    assert (twice["status"], twice["reason"], twice["lost_workers"]) == ("failed", "killed", "0, 1") or (
        twice["lost_workers"] == "1, 0"
    )
    assert "were lost while they measured it" in twice["message"]
    assert (ended["reason"], ended["message"]) == ("killed", "the worker's process ended: SIGSEGV")
    assert all(record["status"] == "ok" and record["lost_workers"] is None for record in others)
    assert {record["worker"] for record in others} <= {"0", "1"}
    assert all(record["machine"] == "one machine" and record["commit"] == "c0ffee" for record in records)
    done = measured(tmp_path)
    assert [done.count(row.case.id) for row in rows] == [1, 2, 1, 2, 1, 1, 1, 1, 1, 1]
    assert set(read_environment(tmp_path / "run")["workers"]) == {"0", "1"}


@two_cores
def test_a_run_goes_on_where_it_was_lost(dispatched, client, tmp_path):
    rows = [comparison(timesteps=steps) for steps in range(3, 7)]
    with distributed.Client(client.scheduler.address) as other:
        first = dispatched(rows[:2], client=other)
        for row in rows[:2]:
            first.measure(row)
    with pytest.raises(ClusterError, match=r"scheduler is lost; .*run, and --resume=.*run does the rest"):
        first.measure(rows[2])
    kept = [dict(record) for record in read_records(tmp_path / "run")]
    write_environment(tmp_path / "run", {"workers": {"earlier": {"host": "another", "cores": [0]}}})
    second = dispatched(rows, kept=kept)
    assert [second.measure(row)["status"] for row in rows] == ["ok"] * 4
    assert len(read_records(tmp_path / "run")) == 4
    assert measured(tmp_path) == sorted(row.case.id for row in rows), "each once"
    assert set(read_environment(tmp_path / "run")["workers"]) == {"earlier", "0", "1"}, "each row's is known"
    with pytest.raises(ClusterError, match=r"--resume: the run has keras 2, the workers 3\.15"):
        dispatched(rows, kept=[{**kept[0], "keras": "2"}])


@two_cores
def test_a_worker_of_other_versions_is_refused_before_anything_is_timed(dispatched, tmp_path):
    with pytest.raises(ClusterError, match=r"worker 0 has keras 3\.15 instead of 4; worker 1"):
        dispatched([comparison()], expected={**VERSIONS, "keras": "4"})
    assert not (tmp_path / "run").exists() and not (tmp_path / "measured").exists()


@two_cores
def test_each_kind_of_machine_measures_all_into_a_run_of_its_own(dispatched, tmp_path):
    rows = [comparison(timesteps=steps) for steps in (3, 4)]
    duties = Duties(stand_ins.introduce_two_kinds, stand_ins.measure)
    with pytest.raises(ClusterError, match="2 kinds of machine"):
        dispatched(rows, duties=duties)
    made = dispatched(rows, duties=duties, each_machine=True)
    assert [made.measure(row)["status"] for row in rows] == ["ok", "ok"]
    assert made._how_to_go_on() == (
        f"what arrived is in {tmp_path}/run and {tmp_path}/run-2; with workers of one kind --resume=RUN does "
        "the rest of each"
    )
    for number, folder in enumerate(made.folders):
        stored = read_records(folder)
        assert {record["machine"] for record in stored} == {f"machine {number}"}
        assert {record["worker"] for record in stored} == {str(number)} and len(stored) == 2


def of_processes(run) -> dict[str, list]:
    """The records of each process of a run, by the name of its folder."""
    return {folder.name: list(read_records(folder)) for folder in stored_folders(run / "processes")}


@two_cores
def test_the_processes_of_a_run_are_shared_by_the_workers(dispatched, tmp_path):
    rows = [comparison(timesteps=steps) for steps in range(3, 7)]
    made = dispatched(rows, duties=IN_PROCESSES, processes=3)
    assert [made.measure(row)["ratio"] for row in rows] == pytest.approx([0.9] * 4), "the first process's"
    rest = list(made.measure_rest())
    assert sorted(process for process, _ in rest) == [2] * 4 + [3] * 4
    stored = of_processes(tmp_path / "run")
    assert list(stored) == ["01", "02", "03"] and all(len(records) == 4 for records in stored.values())
    assert {record["run_id"] for record in stored["02"]} == {"run-02"}
    assert {record["worker"] for records in stored.values() for record in records} == {"0", "1"}
    joined = join(tmp_path / "run")
    assert [record["case"] for record in read_records(tmp_path / "run")] == [row["case"] for row in joined]
    assert {(row["processes"], row["run_id"], row["status"]) for row in joined} == {(3, "run", "ok")}
    assert all(row["ratio_low"] < 0.8 and row["ratio_high"] > 1.2 for row in joined), "over processes"
    assert set(read_environment(tmp_path / "run")["workers"]) == {"0", "1"}


@two_cores
def test_every_second_process_measures_from_the_last_case_to_the_first(dispatched):
    rows = [comparison(timesteps=steps) for steps in range(3, 9)]
    _, second, third = dispatched(rows, duties=IN_PROCESSES, processes=3)._ledgers
    assert [*second.waiting] == rows[::-1] and [*third.waiting] == rows


@two_cores
def test_a_run_over_processes_goes_on_where_it_was_lost(dispatched, client, tmp_path):
    rows = [comparison(timesteps=steps) for steps in range(3, 7)]
    with distributed.Client(client.scheduler.address) as other:
        first = dispatched(rows, client=other, duties=IN_PROCESSES, processes=3)
        for row in rows:
            first.measure(row)
        next(first.measure_rest())
    with pytest.raises(ClusterError, match="scheduler is lost"):
        list(first.measure_rest())
    for processes in (1, 4):
        with pytest.raises(ClusterError, match="was begun with --processes=3: give the same"):
            run.resumed(tmp_path / "run", rows, processes)
    folder, kept = run.resumed(tmp_path / "run", rows, 3)
    assert folder == tmp_path / "run" and 5 <= len(kept) < 12
    second = dispatched(rows, kept=kept, duties=IN_PROCESSES, processes=3)
    assert [second.measure(row)["ratio"] for row in rows] == pytest.approx([0.9] * 4)
    assert len(list(second.measure_rest())) == 8
    assert [len(records) for records in of_processes(folder).values()] == [4, 4, 4]
    assert [row["processes"] for row in join(folder)] == [3] * 4
    with pytest.raises(ClusterError, match="was begun without --processes: leave it out"):
        run.resumed(folder / "processes" / "01", rows, 3)
    (folder / "processes" / "03").rename(folder / "processes" / "20260101-1")
    with pytest.raises(ClusterError, match="was not begun in a cluster"):
        run.resumed(folder, rows, 3)


@two_cores
def test_each_kind_of_machine_has_all_processes(dispatched):
    duties = replace(IN_PROCESSES, introduce=stand_ins.introduce_two_kinds)
    with pytest.raises(ClusterError, match="2 kinds of machine"):
        dispatched([comparison()], duties=duties, processes=3)
    made = dispatched([comparison()], duties=duties, processes=3, each_machine=True)
    made.measure(comparison())
    list(made.measure_rest())
    for number, folder in enumerate(made.folders):
        (row,) = join(folder)
        assert (row["processes"], row["machine"], row["worker"]) == (3, f"machine {number}", str(number))


def test_each_process_of_a_run_has_a_station_of_its_own(monkeypatch):
    done = []

    class Worker:
        alive = True

        def __init__(self, *_):
            done.append("started")

        def close(self):
            done.append("closed")

    monkeypatch.setattr(station, "Worker", Worker)
    monkeypatch.setattr(station, "_held", None)
    monkeypatch.setattr(station, "_drop_dasks_variables", lambda: None)
    for process in ("run 1", "run 1", "run 2", "another 1"):
        station._station(Setup(process=process), (0,))
    assert done == ["started", "closed", "started", "closed", "started"]


@two_cores
def test_the_run_knows_the_peers_of_its_workers(dispatched, tmp_path):
    rows = [comparison(timesteps=steps) for steps in range(3, 9)]
    made = dispatched(rows, duties=replace(STAND_INS, peers=stand_ins.peers))
    for row in rows:
        made.measure(row)
    known = read_environment(tmp_path / "run")
    assert known["peers"]["keras_jax"] == {"jax": "1"}
    first = known["peers"]["keras_torch"]["torch"]
    (other,) = {"0", "1"} - {first}
    assert known["workers"][other]["peers"] == {"keras_torch": {"torch": other}}
    assert "peers" not in known["workers"][first]
    assert made.warnings == [f"worker {other} has other versions of peers: keras_torch"], "once"


USERS = """
import keras
from keras import ops
from beside import gain


class Own(keras.layers.Layer):
    def __init__(self, units, **kwargs):
        super().__init__(**kwargs)
        self.units = self.state_size = units

    def build(self, shape):
        self.kernel = self.add_weight(shape=(shape[-1], self.units), name="kernel")

    def call(self, inputs, states):
        h = ops.tanh(gain * ops.matmul(inputs, self.kernel) + states[0])
        return h, [h]
"""


@two_cores
def test_a_worker_proves_and_times_a_cell_whose_file_it_was_sent(client, dispatched, tmp_path):
    from bench.cluster.run import client_versions

    folder = tmp_path / "client"
    folder.mkdir()
    (folder / "own.py").write_text(USERS)
    (folder / "beside.py").write_text("gain = 0.5\n")
    cells = UserCells.of([f"{folder}/own.py:Own"])
    files = tuple(sources.travelling(cells).items())
    shutil.rmtree(folder)
    row = replace(comparison(), case=Case("Own", "rnn", "train", *SHAPE))
    row = replace(row, baseline=Case("lstm", "builtin", "train", *SHAPE))
    setup = Setup(user_cells=cells, files=files, local_workers=2)
    made = dispatched([row], client_versions(), setup, duties=Duties())
    made.subjects.update(cells.subjects)
    record = made.measure(row)
    assert (record["status"], record["message"]) == ("ok", None)
    assert record["proof"] == "consistent" and record["ratio"] > 0 and record["worker"] in "01"
    assert ", 1 core, " in record["machine"] or usable_cores() > 3, "each on its own"


def test_no_scheduler_is_an_error_with_its_address():
    for address, message in (("somewhere", "must be tcp://HOST:PORT"), ("tcp://127.0.0.1:1", "no scheduler")):
        with pytest.raises(ClusterError, match=f"--scheduler {address}: {message}"), remote_client(address):
            pass
    with pytest.raises(ClusterError, match=r"--workers 999: this machine has \d+ cores"), local_client(999):
        pass
