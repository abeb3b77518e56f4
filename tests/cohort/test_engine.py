"""What becomes of jobs whose workers die, or that fail: a cluster that does as it is told."""

from collections.abc import Callable
from concurrent.futures import CancelledError, Future
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

distributed = pytest.importorskip("distributed")

from voxwarp.cohort import engine  # noqa: E402
from voxwarp.cohort.bids_names import BidsName  # noqa: E402
from voxwarp.cohort.dataset import CohortScan  # noqa: E402
from voxwarp.cohort.engine import Engine, read_description  # noqa: E402
from voxwarp.cohort.job import Order, register_scan  # noqa: E402
from voxwarp.cohort.outcome import Outcome  # noqa: E402
from voxwarp.cohort.settings import CohortSettings  # noqa: E402
from voxwarp.errors import InputError  # noqa: E402

DONE = "done"


class Cluster:
    """A client of dask whose workers do what ``behaviour`` says of a key and an attempt."""

    status, scheduler = "running", object()

    def __init__(self, behaviour: Callable[[str, int], Any]) -> None:
        self.behaviour = behaviour
        self.began: list[tuple[str, int]] = []  # keys, and how many were in flight
        self.tries: dict[str, int] = {}
        self.flying: list[tuple[Future, str, Any]] = []
        self.workers = 1

    def submit(self, function: Any, values: Any, *, key: Any, pure: bool, retries: int) -> Future:
        assert distributed.utils.key_split(key) == "register"  # whose time dask is told
        scan = values["scan"]["key"]
        assert values["attempt"] == self.tries.get(scan, 0) + 1
        self.tries[scan] = self.tries.get(scan, 0) + 1
        self.began.append((scan, len(self.flying) + 1))
        future: Future = Future()
        self.flying.append((future, scan, self.behaviour(scan, self.tries[scan])))
        return future

    def step(self, *_: object) -> None:
        """Finish the job that was begun first."""
        if self.flying:
            future, scan, what = self.flying.pop(0)
            if isinstance(what, BaseException):
                future.set_exception(what)
            else:
                future.set_result(asdict(what if what != DONE else Outcome(scan, DONE, {})))

    def scheduler_info(self, **_: object) -> dict[str, Any]:
        return {"workers": dict.fromkeys(range(self.workers))}

    def cancel(self, futures: Any) -> None:
        self.flying = []


def death() -> Exception:
    return distributed.KilledWorker("task", None, 0)


def orders(*keys: str) -> list[Order]:
    name = BidsName({"sub": "1"}, "T1w", ".nii.gz")
    return [
        Order(
            CohortScan(key, name, Path("a"), Path("b")), Path("s"), Path("o"), CohortSettings(), {}
        )
        for key in keys
    ]


def run(cluster: Cluster, *keys: str, most: int = 2) -> tuple[dict[str, Outcome], list[str]]:
    said: list[str] = []
    one = Engine(cluster, "", "", most)
    results = list(one.run(register_scan, orders(*keys), tick=cluster.step, say=said.append))
    assert len({order.scan.key for order, _ in results}) == len(results)
    return {order.scan.key: outcome for order, outcome in results}, said


def test_jobs_are_done_once_and_no_more_in_flight_than_allowed() -> None:
    cluster = Cluster(lambda key, number: DONE)
    outcomes, said = run(cluster, *"abcde")
    assert [outcome.state for outcome in outcomes.values()] == [DONE] * 5
    assert sorted(key for key, _ in cluster.began) == list("abcde")
    assert max(number for _, number in cluster.began) == 2
    assert said == []


def test_a_worker_that_dies_does_not_count_against_the_scan() -> None:
    """Of its walltime, or of a neighbour; again and again beside others, it is tried alone."""
    cluster = Cluster(lambda key, number: death() if key == "b" and number <= 2 else DONE)
    outcomes, said = run(cluster, *"abcd")
    assert outcomes["b"] == Outcome("b", DONE, {})
    assert cluster.tries["b"] == 3
    assert cluster.began[-1] == ("b", 1)
    assert "it is tried again" in said[0]
    assert "alone, when all others are done" in said[1]


def test_a_scan_that_kills_its_worker_alone_is_given_up() -> None:
    cluster = Cluster(lambda key, number: death() if key == "b" else DONE)
    outcomes, _ = run(cluster, *"abcd")
    assert outcomes["b"].state == "failed"
    assert "not enough memory" in outcomes["b"].error
    assert cluster.tries == {"a": 1, "b": 4, "c": 1, "d": 1}
    assert [began for began in cluster.began if began[0] == "b"][2:] == [("b", 1), ("b", 1)]


def test_all_workers_may_die_at_once() -> None:
    cluster = Cluster(lambda key, number: death() if number == 1 else DONE)
    outcomes, _ = run(cluster, *"abcdef", most=3)
    assert all(outcome.state == DONE for outcome in outcomes.values())


def test_errors_of_the_program_are_tried_once_more_and_wrong_input_is_not() -> None:
    bug, wrong = (
        Outcome("x", "failed", {}, error=error, is_final=is_final)
        for error, is_final in (("a bug", False), ("wrong", True))
    )
    cluster = Cluster(lambda key, number: {"a": bug, "b": wrong}.get(key, DONE))
    outcomes, said = run(cluster, *"abc")
    assert cluster.tries == {"a": 2, "b": 1, "c": 1}
    assert cluster.began[-1] == ("a", 1)
    assert outcomes["a"].error == "a bug"
    assert outcomes["b"].error == "wrong"
    assert said == ["x: a bug; it is tried again at the end"]
    cluster = Cluster(lambda key, number: bug if number == 1 else DONE)
    assert run(cluster, "a")[0]["a"].state == DONE


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (CancelledError(), "the scheduler of the embedded cluster is gone; run this command again"),
        (ModuleNotFoundError("voxwarp"), "cannot run a job .* the same version of voxwarp"),
    ],
)
def test_a_cluster_that_is_gone_or_another_ends_the_run(error, said: str) -> None:
    with pytest.raises(InputError, match=said):
        run(Cluster(lambda key, number: error), *"ab")


def test_a_result_that_was_lost_on_its_way_is_made_again() -> None:
    lost = distributed.TimeoutError()
    cluster = Cluster(lambda key, number: lost if key == "b" and number == 1 else DONE)
    outcomes, said = run(cluster, *"abc")
    assert outcomes["b"].state == DONE
    assert cluster.tries["b"] == 2
    assert said == []


def test_a_closed_client_ends_the_run() -> None:
    cluster = Cluster(lambda key, number: DONE)
    cluster.status = "closed"
    with pytest.raises(InputError, match="is gone"):
        run(cluster, *"ab")


def test_it_is_told_that_no_worker_comes_up(monkeypatch) -> None:
    now = [0.0]
    monkeypatch.setattr(engine.time, "monotonic", lambda: now[0])
    cluster, said, ticks = Cluster(lambda key, number: DONE), list[str](), [0]
    cluster.workers = 0

    def tick(running: list[str]) -> None:
        ticks[0] += 1
        now[0] += 40.0
        if ticks[0] == 6:
            cluster.workers = 1
        if ticks[0] > 8:
            cluster.step()

    monkeypatch.setattr(engine, "_TICK", 0.0)
    one = Engine(cluster, "tcp://x:1", "", 1)
    assert len(list(one.run(register_scan, orders("a"), tick=tick, say=said.append))) == 1
    assert len(said) == 2  # after 80 and 160 s
    assert "no worker of tcp://x:1 has come up for 60 s" in said[0]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "expected `cluster`"),
        ("[", "this is not a YAML file"),
        ("cluster: 3", "expected `cluster`"),
        ("cluster: a.B\noptions: 3", "expected `cluster`"),
        ("cluster: a.B\nscales: {}", "unknown key 'scales'"),
    ],
)
def test_other_descriptions_of_clusters_are_refused(tmp_path, text: str, said: str) -> None:
    (tmp_path / "c.yaml").write_text(text)
    with pytest.raises(InputError, match=f"dask_config .*{said}"):
        read_description(tmp_path / "c.yaml")


@pytest.mark.parametrize("name", ["nowhere.Cluster", "distributed.NoCluster", "Cluster"])
def test_a_cluster_that_is_not_installed_is_told(tmp_path, name: str) -> None:
    (tmp_path / "c.yaml").write_text(f"cluster: {name}")
    with (
        pytest.raises(InputError, match=f"there is no cluster {name}"),
        engine.described(tmp_path / "c.yaml"),
    ):
        pass
