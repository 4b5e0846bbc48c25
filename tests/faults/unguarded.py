"""A script as people write it: no functions, and no ``if __name__ == "__main__"``."""

import sys

import dataflow

_, kind, method = sys.argv
dataflow.set_start_method(method)
factor = 10
ds = dataflow.DataFromList([[1], [2], [3]], shuffle=False)
if kind == "process":
    df = dataflow.MultiProcessRunner(dataflow.MapData(ds, lambda dp: [dp[0] * factor]), 10, 1)
elif kind == "zmq-run":
    df = dataflow.MultiProcessRunnerZMQ(dataflow.MapData(ds, lambda dp: [dp[0] * factor]), 1)
else:
    df = dataflow.MultiProcessMapDataZMQ(ds, 1, lambda dp: [dp[0] * factor], strict=True)
print(list(df))  # noqa: T201
