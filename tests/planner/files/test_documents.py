import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import planner.files
from planner.files import (
    dumps,
    load_any,
    load_cluster,
    load_plan,
    load_problem,
    load_profile,
    load_variants,
    save,
    schema_of,
)
from planner.files.documents import KINDS
from planner.model import (
    Block,
    Cluster,
    DeviceType,
    Dnn,
    InputError,
    LatencyTable,
    Link,
    Network,
    Pipeline,
    Plan,
    Problem,
    Profile,
    Provenance,
    Stage,
    TaskFlow,
    TaskPlan,
    TaskService,
)
from planner.model.observed import Observed, Run
from planner.model.variants import Variants

CLUSTER = Cluster(
    (DeviceType("L4", 2, shares=(1, 2), devices_per_server=4), DeviceType("Pi", 1, kind="cpu", price_per_hour=0.01)),
    Network(10.0, 20.0, (Link("L4", "Pi", 1.0),)),
)
PROFILE = Profile(
    "net",
    (Block(("conv", "relu"), 10, 20), Block(("gemm",))),
    (4096,),
    (LatencyTable("L4", 1, (1, 2), ((10, 20), (15, 30)), Provenance("estimated", "roofline")),),
)
PROBLEM = Problem(CLUSTER, (Dnn("net", 1000.5, (PROFILE,)),))
STAGE = Stage(0, 2, "L4", 1, 2, 2, 45, 0.0, 88888.0)
PLAN = Plan(
    "pipelines", "max_min_throughput", "optimal", 88888.0, 88888.0, "milp", "highs", 0.5, "ab", {"net/net": "cd"},
    (Pipeline("net", "net", 88888.0, 3.0, 400.0, (STAGE,)),), {"highspy": "1"},
)  # fmt: skip

OBSERVED = Observed(
    (PROFILE,), (Run("net", "L4", 1, 2, (10.5, None), Provenance("measured", "by hand"), (0.01, None), ("net",)),)
)


TASK_PLAN = TaskPlan(
    "most_accurate", "feasible", 70.5, 71.0, "worst", (TaskService("a", "t", "net", "L4", 2, 4, 3, 10.0, 4.5, 1000.5),),
    (TaskFlow("a", ("net",), 10.0),), {"a": 1000.5}, {"a": 70.5}, {"L4": 2}, None, "highs", 0.1, 1e-6, "ab",
    {"a/t/net": "cd"}, {"highspy": "1"},
)  # fmt: skip

VARIANTS = Variants((PROFILE, replace(PROFILE, name="net@seq=8")))


@pytest.mark.parametrize("record", [CLUSTER, PROFILE, VARIANTS, PROBLEM, PLAN, TASK_PLAN, OBSERVED], ids=list(KINDS))
def test_round_trips_are_the_identity(record: Any, tmp_path: Path) -> None:
    save(record, tmp_path / "file.json")
    assert load_any(tmp_path / "file.json") == record
    save(load_any(tmp_path / "file.json"), tmp_path / "again.json")
    assert (tmp_path / "again.json").read_bytes() == (tmp_path / "file.json").read_bytes()


names = st.text(min_size=1, max_size=5)


@st.composite
def profiles(draw: st.DrawFn) -> Profile:
    count = draw(st.integers(1, 4))
    numbers = st.tuples(*[st.integers(0, 10**9)] * count)
    batches = tuple(sorted(draw(st.sets(st.integers(1, 64), min_size=1, max_size=3))))
    tables = tuple(
        LatencyTable(
            name, 1, batches, tuple(draw(numbers) for _ in batches), Provenance("bound", draw(st.text()), level=0.9)
        )
        for name in sorted(draw(st.sets(names, max_size=3)))
    )
    blocks = tuple(Block((draw(names),), draw(st.integers(0, 10**12))) for _ in range(count))
    return Profile(draw(names), blocks, tuple(draw(st.integers(0, 10**9)) for _ in range(count - 1)), tables)


@given(profiles())
@settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_any_profile_survives_the_round_trip(tmp_path: Path, profile: Profile) -> None:
    save(profile, tmp_path / "p.json")
    assert load_profile(tmp_path / "p.json") == profile


def test_a_problem_file_may_refer_to_others_and_be_toml(tmp_path: Path) -> None:
    save(CLUSTER, tmp_path / "clusters" / "c.json")
    save(PROFILE, tmp_path / "net.json")
    (tmp_path / "problem.toml").write_text(
        """
        schema = "problem/1"
        cluster = "clusters/c.json"
        [[dnns]]
        name = "net"
        slo_us = 1000.5
        variants = ["net.json"]
        """
    )
    assert load_problem(tmp_path / "problem.toml") == PROBLEM


def edited(change: Callable[[dict[str, Any]], Any], record: Any = PROBLEM) -> str:
    document = json.loads(dumps(record))
    change(document)
    return json.dumps(document)


BAD_PROBLEMS: list[tuple[Callable[[dict[str, Any]], Any], str]] = [
    (lambda d: d["dnns"][0].update(slo_us=-1), r"dnns\[0\].slo_us: expected a number > 0, got -1$"),
    (lambda d: d["dnns"][0].update(slo_us="fast"), r"dnns\[0\].slo_us: expected a valid number, got \"fast\""),
    (lambda d: d["dnns"][0].pop("slo_us"), r"dnns\[0\].slo_us: missing; add it"),
    (lambda d: d.update(dnns=[]), "dnns: expected at least one DNN or application, got none"),
    (lambda d: d["dnns"][0].update(name=""), r"dnns\[0\].name: expected at least 1 character, got \"\""),
    (lambda d: d.update(colour=1), "colour: unknown key; remove it or correct its spelling"),
    (lambda d: d["cluster"]["device_types"][0].update(count=-1), r"types\[0\].count: expected an integer >= 0, got -1"),
    (lambda d: d["cluster"]["device_types"][0].update(count=0.5), r"count: expected a valid integer, got 0.5"),
    (lambda d: d["cluster"]["device_types"][0].update(count="3"), r"count: expected a valid integer, got \"3\""),
    (lambda d: [t.update(count=0) for t in d["cluster"]["device_types"]], "zero devices"),
    (lambda d: d["options"].update(slack_fraction=float("nan")), "slack_fraction: expected a finite number, got NaN"),
    (lambda d: d["options"].update(objective="fun"), "options.objective: expected 'max_min_throughput'"),
    (lambda d: d["dnns"][0]["variants"].append("absent.json"), r"dnns\[0\].variants\[1\]: .*absent.json: cannot read"),
    (
        lambda d: d["dnns"][0]["variants"][0]["tables"][0].update(latency_us=[[1, 2], [3]]),
        r"variants\[0\].tables\[0\]: latency table of L4, share 1/1: latency_us: expected rows of equal length",
    ),
    (
        lambda d: d["dnns"][0]["variants"][0]["tables"][0].update(latency_us=[[1, -2], [3, 4]]),
        r"latency_us\[0\]\[1\]: expected an integer >= 0, got -2",
    ),
    (
        lambda d: d["dnns"][0]["variants"][0]["tables"][0].update(latency_us=[[1, None], [3, 4]]),
        r"latency_us\[0\]\[1\]: expected a valid integer, got null",
    ),
    (lambda d: d.update(schema="plan/1"), 'schema: expected "problem/1", got "plan/1"'),
    (lambda d: d.pop("schema"), 'schema: expected "problem/1", got null'),
]  # fmt: skip


@pytest.mark.parametrize(("change", "message"), BAD_PROBLEMS)
def test_bad_problems_give_one_line_that_names_the_place(
    change: Callable[[dict[str, Any]], Any], message: str, tmp_path: Path
) -> None:
    path = tmp_path / "problem.json"
    path.write_text(edited(change))
    with pytest.raises(InputError, match=message) as caught:
        load_problem(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


def test_a_bad_stage_is_named_by_its_path(tmp_path: Path) -> None:
    (tmp_path / "plan.json").write_text(edited(lambda d: d["pipelines"][0]["stages"][0].update(batch=0), PLAN))
    with pytest.raises(InputError, match=r"pipelines\[0\].stages\[0\].batch: expected an integer >= 1, got 0"):
        load_plan(tmp_path / "plan.json")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\xff\xfe\x00", "not a text file"),
        (b"{", "not valid JSON"),
        (b"[1]", "expected a document with a schema, got a list"),
        (b'{"schema": "cake/1"}', "schema: expected one of"),
        (b'{"schema": 1}', "schema: expected one of"),
    ],
)
def test_files_that_are_no_documents_are_refused(content: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / "file.json").write_bytes(content)
    with pytest.raises(InputError, match=message):
        load_any(tmp_path / "file.json")


def test_an_absent_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no.json: cannot read it"):
        load_cluster(tmp_path / "no.json")


@pytest.mark.parametrize("kind", KINDS)
def test_shipped_schemas_match_the_data_model(kind: str) -> None:
    shipped = Path(planner.files.__file__).parent / "schemas" / f"{kind}.schema.json"
    message = f"data model changed: run `python -m planner schema {kind} --out {shipped}`"
    assert json.loads(shipped.read_text()) == schema_of(kind), message


CLUSTER_TEXT = (
    '{"schema": "cluster/1", "device_types": [{"name": "A", "count": COUNT, "shares": [SHARE]}], "network": NET}'
)
NET = '{"bandwidth_gbps": 1.0}'


def cluster_text(count: str = "1", share: str = "1", network: str = NET) -> str:
    return CLUSTER_TEXT.replace("COUNT", count).replace("SHARE", share).replace("NET", network)


LINK = '{"sender": "A", "receiver": "A", "bandwidth_gbps": 1.0}'
HOSTILE = [
    # name of the file, text, what the message must say
    ("c.json", cluster_text(count="9" * 5000), "not valid JSON .a number of thousands of digits"),
    ("c.json", cluster_text(count="1000000000000000000"), r"count: expected an integer <= 10000000, got 1000"),
    ("c.json", cluster_text(share="1000000000"), r"shares\[0\]: expected an integer <= 1000, got 1000000000"),
    ("c.json", '{"a":' * 100_000, "nested too deeply"),
    (
        "c.json",
        cluster_text()[:-1] + ', "x": ' + "[" * 950 + "]" * 950 + "}",
        "nested too deeply|unknown key|recursion",
    ),
    ("c.json", cluster_text(network='{"bandwidth_gbps": 1.0, "bandwidth_gbps": 2.0}'), "'bandwidth_gbps' stands twice"),
    (
        "c.json",
        cluster_text(network=f'{{"bandwidth_gbps": 1.0, "links": [{LINK}, {LINK}]}}'),
        "network.links: two links from A to A; remove one",
    ),
    ("c.toml", 'schema = "cluster/1"\nsince = 2024-05-01\n', "since: expected a text or a number, got the date"),
    ("c.toml", "schema = " + "[" * 5000, "nested too deeply|not valid TOML"),
    ("c.toml", "a = " + "9" * 5000, "not valid TOML"),
]


@pytest.mark.parametrize(("name", "text", "words"), HOSTILE, ids=[words for _, _, words in HOSTILE])
def test_hostile_documents_are_one_line(tmp_path: Path, name: str, text: str, words: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(InputError, match=words) as caught:
        load_cluster(tmp_path / name)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 600


def test_byte_order_marks_are_read_over(tmp_path: Path) -> None:
    for suffix, text in ((".json", cluster_text()), (".toml", 'schema = "cluster/1"\n' + TOML)):
        (tmp_path / f"c{suffix}").write_bytes(b"\xef\xbb\xbf" + text.encode())
        assert load_cluster(tmp_path / f"c{suffix}").device_types[0].count == 1


TOML = 'network = {bandwidth_gbps = 1.0}\n[[device_types]]\nname = "A"\ncount = 1\n'


def test_documents_name_files_not_pipes_or_devices(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for target in ("pipe", "/dev/zero"):
        (tmp_path / "p.toml").write_text(f'schema = "problem/1"\ncluster = "{target}"\ndnns = []\n')
        with pytest.raises(InputError, match=rf"{target}: cannot read it \(it is no file\)"):
            load_problem(tmp_path / "p.toml")
    with pytest.raises(InputError, match=r"/dev/zero: cannot read it \(it is no file\)"):
        load_any(Path("/dev/zero"))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"slo_us": 1e19}, "slo_us: expected a number <= 1000000000000, got 1e"),
        ({"weight": -1.0}, "weight: expected a number >= 1e-15"),
        ({"weight": 1e-300}, "weight: expected a number >= 1e-15, got 1e-300"),
        ({"rate_rps": 1e300}, "rate_rps: expected a number <= 1000000000000000, got 1e"),
    ],
)
def test_fields_say_their_bounds(tmp_path: Path, change: dict[str, Any], words: str) -> None:
    document = json.loads(dumps(PROBLEM))
    document["dnns"][0] |= change
    (tmp_path / "p.json").write_text(json.dumps(document))
    with pytest.raises(InputError, match=words):
        load_problem(tmp_path / "p.json")


@pytest.mark.parametrize(("field", "value"), [("latency_us", [[10**19, 1], [1, 1]]), ("batches", [1, 10**9])])
def test_tables_say_their_bounds(tmp_path: Path, field: str, value: Any) -> None:
    document = json.loads(dumps(PROFILE))
    document["tables"][0][field] = value
    (tmp_path / "p.json").write_text(json.dumps(document))
    with pytest.raises(InputError, match=rf"tables\[0\].{field}.*expected an integer <="):
        load_profile(tmp_path / "p.json")


@pytest.mark.parametrize(("field", "value"), [("batch", 10**9), ("slices", 10**18), ("share", 10**9)])
def test_plans_say_their_bounds(tmp_path: Path, field: str, value: int) -> None:
    document = json.loads(dumps(PLAN))
    document["pipelines"][0]["stages"][0][field] = value
    (tmp_path / "p.json").write_text(json.dumps(document))
    with pytest.raises(InputError, match=rf"stages\[0\].{field}.*: expected an integer <="):
        load_plan(tmp_path / "p.json")


def test_a_file_of_several_profiles_stands_for_all_of_them(tmp_path: Path) -> None:
    save(VARIANTS, tmp_path / "net.json")
    document = json.loads(dumps(PROBLEM))
    document["dnns"][0]["variants"] = ["net.json", json.loads(dumps(replace(PROFILE, name="other")))]
    del document["dnns"][0]["variants"][1]["schema"]
    (tmp_path / "problem.json").write_text(json.dumps(document))
    names = [variant.name for variant in load_problem(tmp_path / "problem.json").dnns[0].variants]
    assert names == ["net", "net@seq=8", "other"]
    assert load_variants(tmp_path / "net.json") == VARIANTS.profiles
    with pytest.raises(InputError, match='expected "profile/1", got "variants/1"; it holds several profiles'):
        load_profile(tmp_path / "net.json")


@pytest.mark.parametrize(
    ("profiles", "message"),
    [
        ((PROFILE, PROFILE), "names must differ, got"),
        ((PROFILE, replace(PROFILE, name="other", model_sha256="ab" * 32)), "net of None, other of abababababab"),
    ],
)
def test_variants_are_profiles_of_one_model(profiles: tuple[Profile, ...], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Variants(profiles)
