"""The public names are those of the documents: tensorpack's dataflow page, as far as it is built."""

from __future__ import annotations

import inspect

import pytest

import dataflow
from dataflow import DataFlow, ProxyDataFlow, RNGDataFlow

# name: (documented base, documented signature without `self`)
DOCUMENTED = {
    "DataFlow": (object, "()"),
    "ProxyDataFlow": (DataFlow, "(ds)"),
    "RNGDataFlow": (DataFlow, "()"),
    "TestDataSpeed": (ProxyDataFlow, "(ds, size=5000, warmup=0)"),
    "PrintData": (ProxyDataFlow, "(ds, num=1, name=None, max_depth=3, max_list=3)"),
    "BatchData": (ProxyDataFlow, "(ds, batch_size, remainder=False, use_list=False)"),
    "BatchDataByShape": ("BatchData", "(ds, batch_size, idx)"),
    "FixedSizeData": (ProxyDataFlow, "(ds, size, keep_state=True)"),
    "MapData": (ProxyDataFlow, "(ds, func)"),
    "MapDataComponent": ("MapData", "(ds, func, index=0)"),
    "RepeatedData": (ProxyDataFlow, "(ds, num)"),
    "RepeatedDataPoint": (ProxyDataFlow, "(ds, num)"),
    "RandomChooseData": (RNGDataFlow, "(df_lists)"),
    "RandomMixData": (RNGDataFlow, "(df_lists)"),
    "JoinData": (DataFlow, "(df_lists)"),
    "ConcatData": (DataFlow, "(df_lists)"),
    "SelectComponent": ("MapData", "(ds, idxs)"),
    "LocallyShuffleData": (
        (ProxyDataFlow, RNGDataFlow),
        "(ds, buffer_size, num_reuse=1, shuffle_interval=None)",
    ),
    "CacheData": (ProxyDataFlow, "(ds, shuffle=False)"),
    "LMDBData": (RNGDataFlow, "(lmdb_path, shuffle=True, keys=None)"),
    "LMDBDataDecoder": ("MapData", "(lmdb_data, decoder)"),
    "HDF5Data": (RNGDataFlow, "(filename, data_paths, shuffle=True)"),
    "CaffeLMDB": ("MapData", "(lmdb_path, shuffle=True, keys=None)"),
    "SVMLightData": (RNGDataFlow, "(filename, shuffle=True)"),
    "ImageFromFile": (RNGDataFlow, "(files, channel=3, resize=None, shuffle=False)"),
    "FakeData": (RNGDataFlow, "(shapes, size=1000, random=True, dtype='float32', domain=(0, 1))"),
    "DataFromQueue": (DataFlow, "(queue)"),
    "DataFromList": (RNGDataFlow, "(lst, shuffle=True)"),
    "DataFromGenerator": (DataFlow, "(gen)"),
    "DataFromIterable": (DataFlow, "(iterable)"),
    "LMDBSerializer": (object, "()"),
    "NumpySerializer": (object, "()"),
    "TFRecordSerializer": (object, "()"),
    "HDF5Serializer": (object, "()"),
    "MultiProcessRunner": (ProxyDataFlow, "(ds, num_prefetch, num_proc)"),
    "MultiProcessRunnerZMQ": (DataFlow, "(ds, num_proc=1, hwm=50)"),
    "MultiThreadRunner": (DataFlow, "(get_df, num_prefetch, num_thread)"),
    "MultiThreadMapData": (ProxyDataFlow, "(ds, num_thread=None, map_func=None)"),
    "MultiProcessMapDataZMQ": (ProxyDataFlow, "(ds, num_proc=None, map_func=None)"),
    "MultiProcessMapData": (ProxyDataFlow, "(ds, num_proc=None, map_func=None)"),
    "MultiProcessMapAndBatchDataZMQ": (DataFlow, "(ds, num_proc, map_func, batch_size, buffer_size=None)"),
    "MultiProcessMapAndBatchData": (DataFlow, "(ds, num_proc, map_func, batch_size, buffer_size=None)"),
}
# Documented aliases are the same object.
ALIASES = {
    "MultiProcessMapData": "MultiProcessMapDataZMQ",
    "MultiProcessMapAndBatchData": "MultiProcessMapAndBatchDataZMQ",
}
OLD = {
    "MultiProcessPrefetchData": "MultiProcessRunner",
    "MultiThreadPrefetchData": "MultiThreadRunner",
    "PrefetchData": "MultiProcessRunner",
    "PrefetchDataZMQ": "MultiProcessRunnerZMQ",
    "ThreadedMapData": "MultiThreadMapData",
}
METHODS = {
    ("LMDBSerializer", "save"): "(df, path, write_frequency=5000)",
    ("LMDBSerializer", "load"): "(path, shuffle=True)",
    ("NumpySerializer", "save"): "(df, path)",
    ("NumpySerializer", "load"): "(path, shuffle=True)",
    ("TFRecordSerializer", "save"): "(df, path)",
    ("TFRecordSerializer", "load"): "(path, size=None)",
    # In the document data_paths has no default.
    ("HDF5Serializer", "save"): "(df, path, data_paths=None)",
    ("HDF5Serializer", "load"): "(path, data_paths=None, shuffle=True)",
    ("BatchData", "aggregate_batch"): "(data_holder, use_list=False)",
    ("TestDataSpeed", "start"): "(self)",
    ("DataFlow", "reset_state"): "(self)",
    ("RNGDataFlow", "reset_state"): "(self)",
}
# Ours, beyond the document.
BEYOND = {
    "ArrowSerializer", "DataFlowTerminated", "ParquetSerializer", "Replace", "Retry", "ShuffleData", "Skip",
    "TarSerializer", "as_flow", "dumps", "load", "loads", "save", "set_seed", "set_start_method",
}  # fmt: skip


def positional(function) -> str:
    """The signature as the document prints it: what can be given by position, without annotations."""
    parameters = [
        parameter.replace(annotation=parameter.empty)
        for parameter in inspect.signature(function).parameters.values()
        if parameter.kind is parameter.POSITIONAL_OR_KEYWORD
    ]
    return str(inspect.Signature(parameters))


@pytest.mark.parametrize("name", DOCUMENTED)
def test_constructors_are_as_documented(name):
    assert positional(getattr(dataflow, name)) == DOCUMENTED[name][1]


@pytest.mark.parametrize(("name", "method"), METHODS)
def test_methods_are_as_documented(name, method):
    assert positional(getattr(getattr(dataflow, name), method)) == METHODS[name, method]


@pytest.mark.parametrize("name", DOCUMENTED)
def test_base_classes_are_as_documented(name):
    bases = DOCUMENTED[name][0]
    for base in bases if isinstance(bases, tuple) else (bases,):
        base = getattr(dataflow, base) if isinstance(base, str) else base
        assert issubclass(getattr(dataflow, name), base)


@pytest.mark.parametrize(("alias", "name"), ALIASES.items())
def test_documented_aliases_are_the_same_object(alias, name):
    assert getattr(dataflow, alias) is getattr(dataflow, name)


@pytest.mark.parametrize(("old", "name"), OLD.items())
def test_old_class_names_are_the_same_object_and_warn(old, name):
    with pytest.warns(DeprecationWarning, match=f"dataflow.{old} is an old name, use {name}"):
        assert getattr(dataflow, old) is getattr(dataflow, name)


@pytest.mark.parametrize("name", ["MultiThreadMapData", "MultiProcessMapDataZMQ"])
def test_documented_keywords_of_the_maps(name):
    parameters = inspect.signature(getattr(dataflow, name)).parameters
    assert (parameters["buffer_size"].default, parameters["strict"].default) == (200, False)
    assert parameters["buffer_size"].kind is parameters["strict"].kind is inspect.Parameter.KEYWORD_ONLY


def test_all_lists_exactly_the_public_names_in_order():
    assert set(dataflow.__all__) == DOCUMENTED.keys() | BEYOND
    assert dataflow.__all__ == sorted(dataflow.__all__)


def test_terminated_is_no_exception_that_a_flow_may_swallow():
    assert issubclass(dataflow.DataFlowTerminated, BaseException)
    assert not issubclass(dataflow.DataFlowTerminated, Exception)


@pytest.mark.parametrize("name", [name for name in dataflow.__all__ if inspect.isclass(getattr(dataflow, name))])
def test_every_public_class_says_what_it_does_in_one_line(name):
    first = inspect.getdoc(getattr(dataflow, name)).splitlines()[0]
    assert first.endswith((".", ":"))
    assert len(first) <= 120


def test_old_names_resolve_with_a_warning_and_stay_out_of_all():
    with pytest.warns(DeprecationWarning, match="LMDBDataPoint is an old name, use LMDBSerializer.load"):
        assert callable(dataflow.LMDBDataPoint)
    with pytest.warns(DeprecationWarning, match="dftools is an old name"):
        assert callable(dataflow.dftools.dump_dataflow_to_lmdb)
    assert "LMDBDataPoint" not in dataflow.__all__


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        _ = dataflow.Nothing
