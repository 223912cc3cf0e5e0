"""The network: gradients against finite differences, predictions against the formula, and what learns from what."""

from dataclasses import replace

import numpy as np
import pytest
from made_up_tables import made_up

from planner.completion.configurations import METHODS
from planner.completion.ensemble import train_ensemble
from planner.completion.monolith import Monolith
from planner.completion.network import Architecture, Network
from planner.completion.parameters import Parameters, Schedule, minimise
from planner.completion.training import Recipe, train
from planner.model import InputError

SMALL = Architecture(rank=3, hidden=5, learned_inputs=2, terms=2, quantiles=(0.5, 0.9))


def batches(network, seen):
    return [network.batch(seen.take(seen.level == level), 1 / (1 + level)) for level in np.unique(seen.level)]


@pytest.mark.parametrize("loss", ["squared", "pinball", "proportional"])
@pytest.mark.parametrize(
    "architecture",
    [
        SMALL,
        replace(SMALL, free_embedding=False, quantiles=(0.5,)),
        replace(SMALL, features=False, slope=1.0),
        replace(SMALL, residual=False, terms=1),
        replace(SMALL, hidden=0, terms=0, features=False, quantiles=(0.5,)),  # factorisation
    ],
    ids=["heads", "plain", "no features", "one term", "factorisation"],
)
def test_gradients_are_finite_differences(loss, architecture):
    seen = made_up(7, 6, beside=3)
    network = Network(architecture, seen, seed=1, dtype=np.float64)
    rng = np.random.default_rng(2)
    vector = network.parameters.vector
    vector += rng.normal(0, 0.05, vector.shape)  # free embeddings begin at 0, where mistakes would hide
    rows = batches(network, seen)
    network.descend(rows, loss)
    gradient = network.parameters.gradient.copy()
    step = 1e-6
    for at in rng.permutation(len(vector))[:60]:
        kept = vector[at]
        sides = []
        for moved in (kept + step, kept - step):
            vector[at] = moved
            sides.append(network.loss(rows, loss))
        vector[at] = kept
        assert (sides[0] - sides[1]) / (2 * step) == pytest.approx(gradient[at], rel=1e-4, abs=2e-6)


@pytest.mark.parametrize("attention", [False, True])
def test_gradients_of_the_monolith_are_finite_differences(attention):
    seen = made_up(7, 6, beside=2)
    network = Monolith(hidden=6, learned_inputs=2, attention=attention).build(seen, seed=1)
    own = network.parameters = Parameters({name: part.shape for name, part in network.parameters.values.items()}, float)
    own.vector[:] = np.random.default_rng(2).normal(0, 0.5, own.vector.shape)
    rows = batches(network, seen)
    network.descend(rows, "squared")
    gradient = own.gradient.copy()
    for at in range(0, len(gradient), 3):
        kept = own.vector[at]
        sides = []
        for own.vector[at] in (kept + 1e-6, kept - 1e-6):
            sides.append(network.loss(rows, "squared"))
        own.vector[at] = kept
        assert (sides[0] - sides[1]) / 2e-6 == pytest.approx(gradient[at], rel=1e-4, abs=1e-6)


def test_predictions_are_the_formula():
    seen = made_up(6, 4, beside=2)
    network = Network(replace(SMALL, quantiles=(0.5,)), seen, seed=3, dtype=np.float64)
    values = network.parameters.values
    w, _ = network._workload_tower.forward(values)
    platform, _ = network._platform_tower.forward(values)
    p, suffers, presses = platform[:, :3], platform[:, 3:9].reshape(-1, 2, 3), platform[:, 9:].reshape(-1, 2, 3)
    predicted = network.predict(seen)
    for row in range(len(seen)):
        i, j, beside = seen.workload[row], seen.platform[row], seen.beside[row]
        expected = network._base.mean + values["a"][j] + values["b"][i, 0] + w[i] @ p[j]
        for term in range(2):
            pressure = sum(w[k] @ presses[j, term] for k in beside if k >= 0)
            expected += w[i] @ suffers[j, term] * (pressure if pressure > 0 else 0.1 * pressure)
        assert predicted[row] == pytest.approx(expected, abs=1e-12)
    alone = network.completed()
    rows = seen.level == 0
    assert alone[seen.workload[rows], seen.platform[rows]] == pytest.approx(predicted[rows])


def test_the_order_of_those_beside_changes_nothing():
    seen = made_up(8, 5, beside=3)
    network = Network(SMALL, seen, seed=0)
    turned = replace(seen, beside=seen.beside[:, ::-1].copy())
    assert network.predict(turned) == pytest.approx(network.predict(seen), rel=1e-5)


def test_the_optimiser_finds_a_minimum_and_decays_to_zero():
    found = Parameters({"x": (3,), "unused": (1,)}, np.float64)
    found.vector[:] = 5.0
    target = np.array([1.0, -2.0, 3.0])

    def gradient():
        found.gradients["x"][:] = found.values["x"] - target

    minimise(found, np.array([0, 0, 0, 1.0]), Schedule(2000, 0.05), gradient)
    assert found.values["x"] == pytest.approx(target, abs=1e-3)
    assert abs(found.values["unused"][0]) < 1e-6


QUICK = Recipe(Architecture(rank=8, hidden=16, learned_inputs=1), Schedule(400, 1e-2), batch_alone=256)


def test_training_completes_a_table_better_than_the_additive_baseline():
    world = made_up(40, 24, rows=None)
    rows = np.random.default_rng(0).permutation(len(world))
    learn, test = world.take(rows[:480]), world.take(rows[480:])
    errors = []
    for recipe in (replace(QUICK, schedule=Schedule(1, 0.0)), QUICK):  # untrained: a, b, and small random products
        errors.append(np.abs(train(recipe, learn, 0).predict(test) - test.log_time).mean())
    assert errors[1] < 0.3 * errors[0]
    assert errors[1] < 0.1


def test_what_is_beside_is_learned():
    world = made_up(30, 18, beside=2)
    rows = np.random.default_rng(1).permutation(len(world))
    learn, test = world.take(rows[:400]), world.take(rows[400:])
    test = test.take(test.level == 2)
    errors = {}
    for interference in ("modelled", "ignored", "discarded"):
        terms = 2 if interference == "modelled" else 0
        architecture = replace(QUICK.architecture, terms=terms)
        network = train(replace(QUICK, architecture=architecture, interference=interference), learn, 0)
        errors[interference] = np.abs(network.predict(test) - test.log_time).mean()
    assert errors["modelled"] < 0.6 * min(errors["ignored"], errors["discarded"])


def test_same_seed_same_bits_and_other_seed_other_network():
    seen = made_up(10, 6, beside=1)
    recipe = replace(QUICK, schedule=Schedule(20, 1e-2))
    first, second, third = (train(recipe, seen, seed).completed() for seed in (0, 0, 1))
    assert (first == second).all()
    assert (first != third).any()


def test_members_have_not_seen_their_fold():
    """A label moved in fold m leaves member m as it was, and every other member changes."""
    seen = made_up(10, 6)
    recipe = replace(QUICK, schedule=Schedule(20, 1e-2))
    before = train_ensemble(recipe, seen, 3, seed=0)
    fold = np.random.default_rng([0, 5]).integers(0, 3, len(seen))
    moved = seen.log_time.copy()
    moved[np.flatnonzero(fold == 1)[0]] += 3
    after = train_ensemble(recipe, replace(seen, log_time=moved), 3, seed=0)
    same = [(b.completed() == a.completed()).all() for b, a in zip(before.members, after.members, strict=True)]
    assert same == [False, True, False]


@pytest.mark.parametrize("name", [name for name in METHODS if name != "ours"])
def test_every_configuration_trains(name):
    seen = made_up(12, 6, beside=1)
    method = METHODS[name](len(seen))
    recipe = replace(method.recipe, schedule=replace(method.recipe.schedule, steps=5))
    assert np.isfinite(train(recipe, seen, 0).predict(seen)).all()


def test_nothing_measured_alone_is_refused():
    seen = made_up(6, 4, beside=1)
    with pytest.raises(InputError, match="no workload was measured alone"):
        train(QUICK, seen.take(seen.level == 1), 0)
