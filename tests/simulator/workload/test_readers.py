"""The trace readers: what they return, and one clear line for everything that they cannot use."""

import gzip
import hashlib
import io
import os
import threading
from pathlib import Path

import numpy as np
import pytest

from planner.model import InputError
from simulator.workload import (
    Trace,
    arrivals_text,
    assign,
    maf19_text,
    maf21_text,
    read_maf19,
    read_maf21,
    read_trace,
    select,
    spread,
)

REFERENCE = os.environ.get("POOLPIPE_REFERENCE")
needs_reference = pytest.mark.skipif(REFERENCE is None, reason="POOLPIPE_REFERENCE is unset")

MAF21 = "app,func,end_timestamp,duration\n"
MAF19 = "HashOwner,HashApp,HashFunction,Trigger,1,2,3\n"


def written(folder: Path, text: str, name: str = "trace.csv") -> Path:
    path = folder / name
    path.write_text(text)
    return path


def test_maf21_starts_are_ends_less_durations_sorted(tmp_path):
    path = written(tmp_path, MAF21 + "b,g,9.5,0.5\na,f,3,2.5\na,f,3,0\nb,f,0.0004,0.001\n")
    trace = read_maf21(path)
    assert trace.times_s.tolist() == [0.0, 0.5, 3.0, 9.0]  # the start at -0.6 ms is rounding of the file: 0
    assert trace.functions == (("b", "g"), ("a", "f"), ("b", "f"))
    assert trace.function.tolist() == [2, 1, 1, 0]
    assert trace.rate_rps == pytest.approx(3 / 9)


def test_maf21_names_are_the_same_across_blocks_and_gzip(tmp_path):
    rng = np.random.default_rng(1)
    names = [(hashlib.sha256(bytes([i % 7])).hexdigest(), hashlib.sha256(bytes([i])).hexdigest()) for i in range(20)]
    code = rng.integers(20, size=120_000)  # some 18 MB: three blocks
    text = MAF21 + "".join(f"{names[c][0]},{names[c][1]},{i}.25,0.25\n" for i, c in enumerate(code.tolist()))
    with gzip.open(tmp_path / "trace.csv.gz", "wt", compresslevel=1) as file:
        file.write(text)
    seen = []
    trace = read_trace(tmp_path / "trace.csv.gz", progress=seen.append)
    assert [trace.functions[c] for c in trace.function[:2000]] == [names[c] for c in code[:2000]]
    assert [trace.functions[c] for c in trace.function[-2000:]] == [names[c] for c in code[-2000:]]
    assert trace.times_s.tolist() == list(range(120_000))
    assert len(seen) > 1
    assert seen[-1] == 120_000


def test_maf19_counts_spread_within_their_minutes(tmp_path):
    day = written(tmp_path, MAF19 + "o,a,f,http,2,0,300\no,b,f,timer,0,1,0\n")
    counts = read_maf19([day, day])
    assert counts.functions == (("a", "f"), ("b", "f"))
    assert counts.calls_per_function().tolist() == [604, 2]
    trace = spread(counts, np.random.default_rng(1))
    minutes = np.bincount((trace.times_s // 60).astype(int))
    assert {minute: count for minute, count in enumerate(minutes) if count} == {
        0: 2,
        1: 1,
        2: 300,
        1440: 2,
        1441: 1,
        1442: 300,
    }
    assert trace.times_s.tolist() == spread(counts, np.random.default_rng(1)).times_s.tolist()
    even = spread(read_maf19(day, apps=["a"], minutes=(0, 1)))
    assert even.times_s.tolist() == [15.0, 45.0]


def test_maf19_chooses_functions_and_keeps_a_share(tmp_path):
    day = written(tmp_path, MAF19 + "o,a,f,http,2000,0,3\no,b,long-name-1,timer,0,1,0\r\n\no,b,long-name-2,timer,5,1,0")
    assert read_maf19(day, busiest=1).functions == (("a", "f"),)
    assert read_maf19(day, functions=["long-name-2"]).calls_per_function().tolist() == [6]
    assert len(spread(read_maf19(day), np.random.default_rng(1), keep=0.1)) == pytest.approx(200, abs=45)
    with pytest.raises(InputError, match="matches 2 of 2"):
        read_maf19(day, functions=["long-n"])
    with pytest.raises(InputError, match="20100000 calls .*keep a share of them .at most 1"):
        spread(read_maf19(written(tmp_path, MAF19 + "o,a,f,http,20100000,0,0\n", "huge.csv")), None)


BAD = [
    # file, what the message must say
    ("", "line 1: the file is empty"),
    ("start,end\n1,2\n", "line 1: expected the header of a known schema"),
    ("3\n4\n", "line 1: .*give the list the header arrival_us"),
    (MAF21, "line 2: the trace has no rows"),
    (MAF21 + "a,f,1,0\na,f,-1,0\n", "line 3: end_timestamp: expected a time >= 0, got '-1'"),
    (MAF21 + "a,f,1,-0.5\n", "line 2: duration: expected a time >= 0"),
    (MAF21 + "a,f,1,2\n", "line 2: the invocation starts at -1 s"),
    (MAF21 + "a,f,nan,0\n", "line 2: end_timestamp: expected a finite number, got 'nan'"),
    (MAF21 + "a,f,,0\n", "line 2: end_timestamp: expected a number, got ''"),
    (MAF21 + "a,f,1e18,0\n", "line 2: end_timestamp: expected a time <= 4e.09, got '1e18'; is the unit right"),
    (MAF21 + "a,f,x,0\n", "line 2: end_timestamp: expected a number, got 'x'"),
    (MAF21 + "a,f,1,0\na,f,1\n", "line 3: expected 4 columns .*, got 3"),
    (MAF19, "no invocation is left"),
    (MAF19 + "o,a,f,http,1,0,0\no,a,f,http,0,-1,0\n", "line 3: minute 2: expected an integer >= 0 .*, got '-1'"),
    (MAF19 + "o,a,f,http,0,nan,0\n", "line 2: minute 2: .*got 'nan'"),
    (MAF19 + "o,a,f,http,0,2.5,0\n", "line 2: minute 2: .*got '2.5'"),
    (MAF19 + "o,a,f,http,0,,0\n", "line 2: minute 2: .*got ''"),
    (MAF19 + "o,a,f,http,0,99999999999,0\n", "line 2: minute 2: .*got '99999999999'"),
    (MAF19 + "o,a,f,http,1,0\n", "line 2: expected 7 columns, got 6"),
    (MAF19 + "o,a\n", "line 2: expected 7 columns, got 2"),
    (MAF19 + "o,a,f,http,0,0,0\n", "no invocation is left"),
    ("HashOwner,HashApp,HashFunction,Trigger,2,1\no,a,f,http,1,1\n", "line 1: expected HashOwner"),
    ("arrival_us\n", "the list has no arrivals"),
    ("arrival_us\n5\n3\n", "line 3: 3 is earlier than the line before; sort the list, or read it with --sort"),
    ("arrival_us\n5\n-3\n", "line 3: expected a time >= 0, got '-3'"),
    ("arrival_s\nNaN\n", "line 2: expected a finite number"),
    ("arrival_ms\n1e30\n", "line 2: expected a time <= 4e.12"),
    ("func_name,invoke_time_ms\na\n", "line 2: expected 2 columns, got 1"),
    ("TIMESTAMP,ContextTokens,GeneratedTokens\n2023-13-99,1,2\n", "line 2: expected a date"),
    ("arrival_us\n5\n12,345\n", r"line 3: expected 1 column, got 2 \(12,345\); numbers have no commas"),
    ("arrival_s\n1,5\n", r"line 2: expected 1 column, got 2 \(1,5\)"),
    ("1.5,2\n3,4,5\n", "line 2: expected 2 columns, got 3"),
    ("arrival_us\n1_000\n", "line 2: expected a number, got '1_000'"),
    ("arrival_us\n" + "9" * 5000 + "\n", "line 2: expected a finite number, got '9999"),
    ("arrival_s\n0\n1700000000\n1700000001\n", "53.9 years pass between the arrivals at 0 s and at 1.7e"),
    (MAF21 + "a,f,0,0\na,f,1700000000,0\n", "53.9 years pass"),
    (MAF19 + "o,a,f,http,0," + "9" * 5000 + ",0\n", "line 2: minute 2: .*got '9999"),
    ('{"timestamp": 0}\n{"time": 3}\n', "line 2: has no 'timestamp'"),
    ('{"timestamp": 0}\n[' + "[" * 5000 + "\n", "line 2: expected a JSON object"),
    ('{"timestamp": "x"}\n', "line 1: expected a number, got 'x'"),
    (
        "TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:15:46,1,2\n2023-11-16 18:15:47+01:00,1,2\n",
        "line 3: .*expected a UTC offset on every date or on none",
    ),
]


@pytest.mark.parametrize(("text", "words"), BAD, ids=[words[:40] for _, words in BAD])
def test_bad_traces_are_one_line_that_names_file_and_place(tmp_path, text, words):
    path = written(tmp_path, text)
    with pytest.raises(InputError, match=words) as caught:
        read_trace(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_files_that_cannot_be_read_say_so(tmp_path):
    (tmp_path / "cut.csv.gz").write_bytes(gzip.compress((MAF21 + "a,f,1,0\n" * 500).encode())[:60])
    (tmp_path / "binary.csv").write_bytes(b"\xff\xfe\x00" * 30)
    for name in ("missing.csv", "cut.csv.gz", "binary.csv"):
        with pytest.raises(InputError, match=f"{name}: cannot read it"):
            read_trace(tmp_path / name)
    with pytest.raises(InputError, match="schema: expected auto, maf21"):
        read_trace(written(tmp_path, MAF21 + "a,f,1,0\n"), schema="maf22")


def test_plain_lists(tmp_path):
    assert read_trace(written(tmp_path, "arrival_ms\n1\n2.5\n")).times_s.tolist() == [0.001, 0.0025]
    assert read_trace(written(tmp_path, "arrival_us\n5\n3\n"), sort=True).times_s.tolist() == [3e-6, 5e-6]
    assert read_trace(written(tmp_path, "4.0,1001\n33.0,7\n")).times_s.tolist() == [0.004, 0.033]
    named = read_trace(written(tmp_path, "func_name,invoke_time_ms\ng,1\nf,2\ng,3\n"))
    assert named.functions == (("", "g"), ("", "f"))
    assert named.function.tolist() == [0, 1, 0]
    dates = (
        "TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:15:46.6800000,1,2\n2023-11-16 18:15:50.9300000,1,2\n"
    )
    assert read_trace(written(tmp_path, dates)).times_s.tolist() == pytest.approx([0.0, 4.25], abs=1e-6)
    assert read_trace(written(tmp_path, "0\n2\n"), schema="minute-counts").times_s.tolist() == [75.0, 105.0]


def test_texts_read_back(tmp_path):
    trace = Trace(np.array([0.0, 61.25, 200.0]), np.array([0, 1, 0], np.int32), (("a", "f"), ("b", "g")), "example")
    again = read_trace(written(tmp_path, maf21_text(trace)))
    assert again.times_s.tolist() == trace.times_s.tolist()
    assert again.functions == trace.functions
    minutes = read_trace(written(tmp_path, maf19_text(trace)))
    assert (minutes.times_s // 60).tolist() == [0, 1, 3]
    arrivals_us = np.array([1, 5, 5])
    assert read_trace(written(tmp_path, arrivals_text(arrivals_us))).times_s.tolist() == [1e-6, 5e-6, 5e-6]


def test_selection_and_round_robin():
    names = tuple((f"application-{i}", f"function-{i}") for i in range(5))
    code = np.array([0, 1, 2, 3, 4, 4, 4, 2, 2, 0], np.int32)
    trace = Trace(np.arange(10.0), code, names, "example")
    assert select(trace, apps=["application-1"]).times_s.tolist() == [1.0]
    assert select(trace, busiest=2).functions == (names[2], names[4])
    assert select(trace, window_s=(2.0, 5.0)).times_s.tolist() == [2.0, 3.0, 4.0]
    by_dnn = assign(trace, 2)  # functions 0, 2, 4 and 1, 3
    assert [len(times_s) for times_s in by_dnn] == [8, 2]
    for wrong in ({"apps": ["applic"]}, {"functions": ["none"]}, {"window_s": (50.0, 60.0)}):
        with pytest.raises(InputError, match="example"):
            select(trace, **wrong)
    with pytest.raises(InputError, match="expected 1 to 5 DNNs"):
        assign(trace, 6)


@needs_reference
@pytest.mark.parametrize(
    ("name", "schema", "sort", "requests", "functions"),
    [  # the figures of the folder's README, where it gives them
        ("maf21_invitro/Azure2021_200.csv", "auto", False, 199, 31),
        ("maf21_invitro/Azure2021_30.csv", "auto", False, 29, 14),
        ("maf19_invitro/invocations.csv", "auto", False, 4525, 4),
        ("maf_diffserve/sdturbo_sdv15.txt", "auto", True, 88_333, 1),
        ("maf_iluvatar/trace.csv", "auto", False, 11_868, 21),
        ("maf19_smartpred/40d07b99_per_minute.csv", "minute-counts", False, 154_118, 1),
        ("azure_llm_2023/AzureLLMInferenceTrace_code.csv", "auto", False, 8_819, 1),
        ("azure_llm_2023/AzureLLMInferenceTrace_conv.csv", "auto", False, 19_366, 1),
    ],
)
def test_every_kind_of_published_list_reads(name, schema, sort, requests, functions):
    trace = read_trace(Path(REFERENCE) / "traces" / name, schema=schema, sort=sort)
    assert (len(trace), len(trace.functions)) == (requests, functions)


LLM = "TIMESTAMP,ContextTokens,GeneratedTokens\n"


@pytest.mark.parametrize(
    ("dates", "seconds"),
    [
        # Six seconds around the end of summer time in Berlin: 02:59:57+02:00 is followed by 02:00:03+01:00.
        (["2023-10-29T02:59:57+02:00", "2023-10-29T02:00:03+01:00"], 6.0),
        # And around its beginning: 01:59:57+01:00 is followed by 03:00:03+02:00.
        (["2024-03-31 01:59:57.5+01:00", "2024-03-31 03:00:03.5+02:00"], 6.0),
        (["2023-11-16T18:15:46.6800001Z", "2023-11-16T18:15:50.9300000Z"], 4.25),
        (["2023-11-16 23:00:00+00:00", "2023-11-17 00:00:05+01:00"], 5.0),
    ],
)
def test_utc_offsets_count(tmp_path, dates, seconds):
    trace = read_trace(written(tmp_path, LLM + "".join(f"{date},1,2\n" for date in dates)))
    assert trace.times_s.tolist() == pytest.approx([0.0, seconds], abs=2e-6)


TEXTS = {
    "maf21": MAF21 + "a,f,1,0\nb,g,3,0\n",
    "maf19": MAF19 + "o,a,f,http,2,000000000001,0\n",
    "list": "arrival_s\n1\n3\n",
    "mooncake": '{"timestamp": 1000, "input_length": 3}\n{"timestamp": 3000, "hash_ids": [1]}\n',
}


@pytest.mark.parametrize("kind", TEXTS)
@pytest.mark.parametrize("dress", ["plain", "mark", "blank lines", ".GZ", "two members", "pipe", "stdin"])
def test_dress_of_files_does_not_matter(tmp_path, monkeypatch, kind, dress):
    plain = TEXTS[kind].encode()
    path = tmp_path / "t.csv"
    if dress == "pipe":
        os.mkfifo(path)
        threading.Thread(target=path.write_bytes, args=(plain,)).start()
    elif dress == "stdin":
        path, stdin = Path("-"), io.TextIOWrapper(io.BytesIO(plain))
        monkeypatch.setattr("sys.stdin", stdin)
    elif dress == ".GZ":
        path = tmp_path / "t.csv.GZ"
        path.write_bytes(gzip.compress(plain))
    else:
        cut = plain.index(b"\n") + 1
        path.write_bytes(
            {
                "plain": plain,
                "mark": b"\xef\xbb\xbf" + plain,
                "blank lines": b"\n\r\n" + plain + b"\n\n",
                "two members": gzip.compress(plain[:cut]) + gzip.compress(plain[cut:]),
            }[dress]
        )
    trace = read_trace(path)
    expected = [15.0, 45.0, 90.0] if kind == "maf19" else [1.0, 3.0]
    assert trace.times_s.tolist() == expected
    assert trace.source == str(path)


def test_devices_are_refused_and_errors_name_the_pipe(tmp_path):
    with pytest.raises(InputError, match="/dev/zero: is a device; give a file"):
        read_trace(Path("/dev/zero"))
    os.mkfifo(tmp_path / "pipe")
    threading.Thread(target=(tmp_path / "pipe").write_text, args=("arrival_us\nx\n",)).start()
    with pytest.raises(InputError, match=f"{tmp_path}/pipe: line 2: expected a number"):
        read_trace(tmp_path / "pipe")


def test_traces_that_people_have_beside_maf(tmp_path):
    burst = (
        "Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type\n5,ChatGPT,1,2,3,x\n45,GPT-4,1,2,3,x\n"
    )
    trace = read_trace(written(tmp_path, burst))
    assert trace.times_s.tolist() == [5.0, 45.0]
    assert trace.functions == (("", "ChatGPT"), ("", "GPT-4"))
    vidur = "arrived_at,num_prefill_tokens,num_decode_tokens,pd_ratio\n0.5,100,3,1\n2.25,7,3,1\n"
    assert read_trace(written(tmp_path, vidur)).times_s.tolist() == [0.5, 2.25]
    any_csv = written(tmp_path, "id,when,what\n1,2500,a\n2,3000,b\n")
    assert read_trace(any_csv, time_column="when", unit="ms").times_s.tolist() == [2.5, 3.0]
    assert read_trace(written(tmp_path, "id;when\n1;2500\n"), time_column="when", unit="ms").times_s.tolist() == [2.5]
    any_csv = written(tmp_path, "id,when,what\n1,2500,a\n2,3000,b\n")
    with pytest.raises(InputError, match="line 1: expected the columns then; then missing"):
        read_trace(any_csv, time_column="then")
    with pytest.raises(InputError, match="unit: expected one of us, ms, s, date, got 'h'"):
        read_trace(any_csv, time_column="when", unit="h")


def test_epochs_are_counted_from_the_first_arrival(tmp_path):
    path = written(tmp_path, "arrival_us\n1700000000000000\n1700000000500000\n")
    assert read_trace(path).times_s.tolist() == [0.0, 0.5]


@pytest.mark.parametrize("name", ["a,b", 'say "hi"', '"', "=cmd", "NA", " x ", "é"])
def test_names_come_back_as_they_were_written(tmp_path, name):
    trace = Trace(np.array([0.5, 1.0]), np.array([0, 1], np.int32), ((name, "f"), ("a", name)), "example")
    (tmp_path / "trace.csv").write_text(maf21_text(trace), encoding="utf-8")
    assert read_trace(tmp_path / "trace.csv").functions == trace.functions
    if set(name) & {",", '"'}:
        with pytest.raises(InputError, match="which names in MAF'19 files cannot have; write it in the MAF'21"):
            maf19_text(trace)
        return
    (tmp_path / "day.csv").write_text(maf19_text(trace), encoding="utf-8")
    assert set(read_trace(tmp_path / "day.csv").functions) == set(trace.functions)


@pytest.mark.parametrize("text", [maf21_text, maf19_text])
def test_names_that_do_something_elsewhere_are_data_and_come_back(tmp_path: Path, text) -> None:
    names = (("a\nb", "=cmd"), ("\x1b[2J\x07", "+1+1"), ("a\\x1b", "'@x"), ("\u202egnp", "-"))
    trace = Trace(np.arange(4) + 0.5, np.arange(4, dtype=np.int32), names, "example")
    written = text(trace)
    assert written.count("\n") == 5
    assert written.replace("\n", "").isprintable()
    cells = [cell for line in written.splitlines()[1:] for cell in line.split(",")]
    assert not [cell for cell in cells if cell.startswith(("=", "+", "-", "@"))]
    (tmp_path / "trace.csv").write_text(written, encoding="utf-8")
    assert read_trace(tmp_path / "trace.csv").functions == names


@pytest.mark.parametrize("text", ["12,345\n", "1,5\n2,5\n", "1,204,224\n"])
def test_numbers_with_commas_are_not_taken_for_two(tmp_path: Path, text: str) -> None:
    path = tmp_path / "list.csv"
    path.write_text(text)
    with pytest.raises(InputError, match="line 1: .*(may be one number or two|expected the header of a known schema)"):
        read_trace(path)


def test_a_query_beside_each_time_is_read_where_it_is_said(tmp_path: Path) -> None:
    path = tmp_path / "list.txt"
    path.write_text("4,1001\n33,4046\n")
    assert len(read_trace(path, schema="ms-query")) == 2
    path.write_text("4.0,1001\n33.0,4046\n")
    assert len(read_trace(path)) == 2
