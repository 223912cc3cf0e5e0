import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from planner.cli.app import new_app
from planner.model import InputError
from simulator.cli import workload
from simulator.workload import read_trace

GENERATORS = ["poisson", "gamma", "markov-modulated", "clustered", "bursts", "diurnal", "closed-loop"]


@pytest.fixture
def call():
    app = new_app("test")
    workload.register(app)

    def invoke(*arguments: str | Path) -> str:
        result = CliRunner().invoke(app, [str(argument) for argument in arguments])
        if result.exception and not isinstance(result.exception, SystemExit):
            raise result.exception
        assert result.exit_code == 0, result.output
        return result.output

    return invoke


@pytest.mark.parametrize("name", GENERATORS)
def test_generators_write_lists_that_read_back(call, tmp_path, name):
    out = tmp_path / "new" / "arrivals.csv.gz"
    call("generate", name, "--out", out, "--duration", "5")
    first = out.read_bytes()
    assert len(read_trace(out)) > 10
    call("generate", name, "--out", out, "--duration", "5")
    assert out.read_bytes() == first


def test_info_and_convert(call, tmp_path):
    trace, chosen, folded = tmp_path / "t.csv", tmp_path / "c.csv", tmp_path / "f.csv"
    assert "2,0" in call("generate", "maf-like", "--requests", "2000", "--out", trace)
    assert "77" in call("trace", "info", trace)
    call("trace", "convert", trace, "--busiest", "3", "--window", "0,1000", "--to", "maf21", "--out", chosen)
    assert len(read_trace(chosen).functions) <= 3
    assert read_trace(chosen).times_s.max() < 1000
    call("trace", "convert", trace, "--rate", "50", "--duration", "10", "--out", folded)
    assert len(read_trace(folded)) == pytest.approx(500, rel=0.15)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["generate", "markov-modulated", "--rates", "1,x"], "--rates: expected numbers"),
        (["generate", "poisson", "--rate", "0"], "rate: expected a number above 0"),
        (["generate", "maf-like", "--schema", "maf22"], "unknown schema 'maf22'"),
        (["generate", "poisson", "--rate", "1e-6"], "no arrival .*longer duration or a higher rate"),
        (["generate", "markov-modulated", "--rates", "0,0"], "no arrival"),
        (["generate", "maf-like", "--requests", "0"], "requests: expected at least one for each"),
        (["generate", "maf-like", "--applications", "0"], "applications: expected an integer >= 1, got 0"),
    ],
)
def test_bad_options_are_one_line_and_write_nothing(call, tmp_path, arguments, words):
    with pytest.raises(InputError, match=words):
        call(*arguments, "--out", tmp_path / "out.csv")
    assert not list(tmp_path.iterdir())


def test_convert_chooses_from_days_of_minute_counts_while_reading(call, tmp_path):
    day, out = tmp_path / "day.csv", tmp_path / "out.csv"
    call("generate", "maf-like", "--requests", "5000", "--schema", "maf19", "--out", day)
    call("trace", "convert", day, day, "--busiest", "1", "--to", "maf21", "--out", out)
    twice = read_trace(out)
    assert len(twice.functions) == 1
    assert (twice.times_s >= 86_400).sum() == len(twice) / 2
    call("trace", "convert", day, day, "--window", "86400,87000", "--keep", "0.5", "--to", "maf21", "--out", out)
    assert 86_400 <= read_trace(out).times_s.min() < read_trace(out).times_s.max() < 87_000
    with pytest.raises(InputError, match="for MAF'19 traces only"):
        call("trace", "convert", out, out, "--out", tmp_path / "none.csv")
    with pytest.raises(InputError, match="--window: expected START,END"):
        call("trace", "convert", out, "--window", "5,1", "--out", tmp_path / "none.csv")


def test_a_trace_that_is_written_to_standard_output_is_all_that_is_there(tmp_path):
    """Into a file and into a pipe: what the command says besides goes to standard error."""
    (tmp_path / "t.csv").write_text("arrival_us\n10\n2000\n30000\n")
    command = [sys.executable, "-m", "simulator", "trace", "convert", str(tmp_path / "t.csv"), "--out", "/dev/stdout"]
    with (tmp_path / "to.csv").open("wb") as file:
        done = subprocess.run(command, stdout=file, stderr=subprocess.PIPE, check=True)
    piped = subprocess.run(command, capture_output=True, check=True).stdout
    assert (tmp_path / "to.csv").read_bytes() == piped == b"arrival_us\n10\n2000\n30000\n"
    assert b"/dev/stdout: 3 requests" in done.stderr
