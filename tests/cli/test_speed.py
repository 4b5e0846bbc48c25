"""`dataflow speed`: one report of a flow, as text or as JSON."""

from __future__ import annotations

import json

from dataflow.cli import main


def test_reports_rates_times_and_memory(folder, capsys):
    assert main(["speed", "train.py:make_flow", "--size", "6", "--warmup", "4"]) == 0
    out, err = capsys.readouterr()
    assert out.startswith("6 datapoints in ")
    assert all(word in out for word in ("datapoints/s", "B/s", "median", "99 %", "peak memory"))
    assert err == ""


def test_a_flow_that_ends_early_is_measured_as_far_as_it_goes(folder, capsys):
    assert main(["speed", "train.py:make_flow"]) == 0
    assert "10 datapoints in" in capsys.readouterr().out


def test_json_is_all_there_is_on_stdout(folder, capsys):
    assert main(["speed", "train.py:chatty", "--size", "5", "--json"]) == 0
    out, err = capsys.readouterr()
    report = json.loads(out)
    assert report["datapoints"] == 5
    assert report["complete"] is True
    assert out.count("\n") == 1
    assert err.splitlines() == ["a word from the factory", *["a word from the map function"] * 5]


def test_an_endless_flow_is_measured(folder, capsys):
    assert main(["speed", "train.py:endless", "--size", "100", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["datapoints"] == 100


def test_a_warmup_that_takes_it_all_is_told_from_an_empty_flow(folder, capsys):
    assert main(["speed", "train.py:make_flow", "--warmup", "10"]) == 1
    assert capsys.readouterr().err == (
        "dataflow: 'train.py:make_flow' has no more than the 10 datapoints of --warmup: there is nothing to measure\n"
    )
