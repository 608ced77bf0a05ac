"""The dispatcher in random calls, whatever happens: slow, late and lost actors, new ones, deaths, failures, stops."""

import random
from collections import Counter
from dataclasses import replace

import pytest

from distcalib.actors.jobs import Job
from tests.actors.simulation import Simulation, jobs


@pytest.mark.parametrize("first_seed", range(0, 400, 50))
def test_dispatcher_keeps_its_promises_whatever_happens(first_seed: int) -> None:
    for seed in range(first_seed, first_seed + 50):
        check_promises(seed)


def check_promises(seed: int) -> None:
    """A random call with slow actors, late and lost ones, new ones, deaths, failures and stops. That it ends
    without idle actors that have work left and that nothing counts twice is asserted on the way, in the simulation."""
    rng = random.Random(seed)
    n_actors = rng.choice([1, 2, 3, 8, 33])
    call = [random_job(rng, place) for place in range(rng.randint(1, 8))]
    stops = {place: rng.randint(1, job.n_iterations) for place, job in enumerate(call) if rng.random() < 0.3}
    failing = {place for place, job in enumerate(call) if job.may_fail and rng.random() < 0.5}
    deadly = {place for place, job in enumerate(call) if job.may_fail and rng.random() < 0.2}
    deaths = {(rng.randrange(n_actors), rng.randint(1, 12)) for _ in range(rng.randint(0, 2))}
    hangs = {(rng.randrange(n_actors), rng.randint(1, 12)) for _ in range(2 - len(deaths))}
    simulation = Simulation(
        call,
        n_actors,
        seconds=rng.choice([1e-4, 0.02, 0.7]),
        slow={actor: rng.choice([1.0, 1.3, 5.0]) for actor in range(n_actors)},
        dies=lambda actor, n, task: (actor, n) in deaths or (task.job in deadly and 0 in task.positions),
        fails=lambda task: task.job in failing and call[task.job].n_iterations - 1 in task.positions,
        enough=lambda place, done: len(done) >= stops.get(place, 10**9),
        hangs=lambda actor, n: (actor, n) in hangs,
        joins=[rng.uniform(0.0, 5.0) for _ in range(rng.choice([0, 0, 1, 5]))],
    ).run()
    for place, job in enumerate(call):
        ended = place in simulation.stopped or place in simulation.failed
        assert ended or simulation.iterations(place) == list(range(job.n_iterations)), seed
    handed_out = Counter((t.job, i) for _, _, t in simulation.given for i in t.positions)
    lost = Counter((task.job, i) for task in simulation.lost for i in task.positions)
    late = Counter((task.job, i) for task in simulation.n_late.elements() for i in task.positions)
    for one, n in handed_out.items():
        assert n <= 1 + lost[one] + late[one], seed
    for clock, _, task in simulation.given:
        ended_at = {**simulation.stopped, **simulation.failed}.get(task.job, clock)
        assert clock <= ended_at, "handed out after its job was ended"


def random_job(rng: random.Random, place: int) -> Job:
    [job] = jobs(rng.choice([1, 2, 7, 40, 150]))
    return replace(job, key=f"key{place}", label=f"job {place}", may_fail=rng.random() < 0.4)
