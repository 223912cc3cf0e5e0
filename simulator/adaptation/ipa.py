"""IPA's programme as the planner of the loop, and its published applications as services (JSys 2024)."""

from collections.abc import Sequence
from dataclasses import replace
from math import ceil

from planner.model import InputError
from planner.planning.applications.ipa import Choice, Ipa, evaluate, least_change, optimise, optimise_from
from planner.planning.applications.ipa import Configuration as Chosen
from planner.planning.applications.ipa_published import Points, Published
from simulator.adaptation.loop import Planner
from simulator.adaptation.service import Configuration, ServedTask, Service, Setting, Variant, running

GRAIN_RPS = 0.1  # rates are planned for in these steps, so that answers can be remembered


def service_of(one: Published, points: Points) -> Service:
    """Return a published application as it is simulated: a batch takes batch / throughput."""
    tasks = []
    for number, task in enumerate(one.tasks):
        variants = []
        for name, (accuracy, cores) in task.items():
            takes_s = {batch: batch / rps for batch, (_, rps) in points[name, cores].items() if batch <= one.batch_cap}
            variants.append(Variant(name, accuracy, cores, takes_s))
        tasks.append(ServedTask(f"task {number}", tuple(variants)))
    return Service(tuple(tasks), timeout_s=1.0, drop_age_s=one.drop_age_s)


def planner_of(service: Service, programme: Ipa, switching: float = 0.0) -> Planner:
    """Return the planner that answers with the programme's optimum at a rate, None where there is none.

    Of equal optima it is one that changes the fewest variants and batch sizes of what is in use.

    Parameters
    ----------
    programme
        At any rate; its options are variants of the service, task by task.
    switching
        What a change of a task's variant or batch size costs, in the objective's unit.
    """
    names = [[variant.name for variant in task.variants] for task in service.tasks]
    answers: dict[tuple[object, ...], Configuration | None] = {}

    def plan(rate_rps: float, in_use: Configuration) -> Configuration | None:
        rate_rps = GRAIN_RPS * ceil(rate_rps / GRAIN_RPS - 1e-9)
        used = tuple((one.variant, one.batch) for one in in_use)
        if (rate_rps, used) not in answers:
            asked = replace(programme, rate_rps=rate_rps)
            try:
                found = _best(asked, names, used, switching)
            except InputError:
                answers[rate_rps, used] = None
            else:
                pairs = zip(names, found.choices, strict=True)
                answers[rate_rps, used] = tuple(_setting(known, choice) for known, choice in pairs)
        return answers[rate_rps, used]

    return plan


def _best(asked: Ipa, names: Sequence[Sequence[str]], used: Sequence[tuple[int, int]], switching: float) -> Chosen:
    pairs = zip(asked.options, names, used, strict=False)
    options = [one for own, known, entry in pairs for one in own if (known.index(one.variant), one.batch) == entry]
    if len(options) < len(asked.options):  # nothing is in use, or what the programme does not offer
        return optimise(asked)
    current = evaluate(asked, options)
    return optimise_from(asked, current, switching) if switching else least_change(asked, current)


def _setting(known: Sequence[str], choice: Choice) -> Setting:
    return running(known.index(choice.option.variant), choice.option.batch, choice.replicas)


def hedged(service: Service, planner: Planner, share: float) -> Planner:
    """Return the planner that plans for a share of the rate, with the least accurate variants beside for the rest.

    For services whose placement is *by slack*: requests get what was planned as long as that is in time.
    """
    if not 0 < share <= 1:
        raise InputError(f"share of the rate that accurate variants serve: expected above 0, at most 1, got {share}")

    def plan(rate_rps: float, in_use: Configuration) -> Configuration | None:
        found = planner(share * rate_rps, in_use)
        if found is None:
            return None
        settings = []
        for task, setting in zip(service.tasks, found, strict=True):
            batch = min(setting.batch, max(task.variants[0].batch_s))
            rest = ceil((1 - share) * rate_rps * task.variants[0].takes_s(batch) / batch - 1e-9)
            first, *others = setting.replicas
            settings.append(Setting((first + rest, *others), batch))
        return tuple(settings)

    return plan
