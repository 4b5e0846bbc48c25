"""Stack datapoints into batches."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any

from ..base import ProxyDataFlow, length
from ..errors import BatchError
from ..passes import Place, Run, Walk, below, locate
from ..utils import check
from ..utils.stack import stack


class BatchData(ProxyDataFlow):
    """Stack each run of ``batch_size`` datapoints into one datapoint.

    A component of shape ``s`` comes out with shape ``(batch_size, *s)``. Arrays and numpy scalars keep their dtype;
    bool becomes bool, int int32, float float32, str and bytes the widest.

    >>> ds = DataFromList([[0, "a"], [1, "b"], [2, "c"]], shuffle=False)
    >>> list(BatchData(ds, 2))
    [[array([0, 1], dtype=int32), array(['a', 'b'], dtype='<U1')]]
    >>> list(BatchData(ds, 2, remainder=True, use_list=True))
    [[[0, 1], ['a', 'b']], [[2], ['c']]]

    Its length is ``len(ds) // batch_size``, one more for a remainder.

    Args:
        ds: flow of lists or dicts. Unless ``use_list``, components are scalars or arrays of equal shape.
        batch_size: datapoints per batch, at least 1.
        remainder: also yield what is left at the end as a smaller batch; else it is dropped.
        use_list: put components into a list instead of an array.

    Raises:
        ValueError: at construction, if ``batch_size`` is below 1, or without remainder above the length of ``ds``.
        BatchError: while iterating, if components differ in kind, dtype or shape, or an int does not fit int32.
        TypeError: while iterating, if a component is neither scalar nor array.
    """

    def __init__(self, ds: Any, batch_size: int, remainder: bool = False, use_list: bool = False) -> None:
        super().__init__(ds)
        check.integer(1, batch_size=batch_size)
        check.flag(remainder=remainder, use_list=use_list)
        size = length(self.ds)
        if not remainder and size is not None and batch_size > size:
            raise ValueError(
                f"batch_size {batch_size} is larger than the flow, which has {size} datapoints, so no batch would "
                "ever be full. Make it smaller, or pass remainder=True."
            )
        self.batch_size = int(batch_size)
        self.remainder = remainder
        self.use_list = use_list

    def __len__(self) -> int:
        full, rest = divmod(len(self.ds), self.batch_size)
        return full + (self.remainder and rest > 0)

    def _walk(self, at: Place, run: Run) -> Walk:
        path, n = at["pass"], at.get("n", 0)
        it, up = self.ds._walk(below(at), run)
        size, stacked = self.batch_size, self._stacked
        least = 1 if self.remainder else size

        def batches() -> Iterator[Any]:
            nonlocal n
            while len(rows := list(islice(it, size))) >= least:
                n += 1
                yield stacked(rows, n - 1)

        return batches(), lambda: {"pass": path, "n": n, "ds": up()}

    def _stacked(self, rows: Sequence[Any], number: int) -> Any:
        """Stack datapoints, or say at which batch that failed."""
        try:
            return stack(rows, self.use_list)
        except (BatchError, TypeError) as error:
            locate(error, self, number)
            raise

    @staticmethod
    def aggregate_batch(data_holder: Sequence[Any], use_list: bool = False) -> Any:
        """Stack a list of datapoints into one batched datapoint; see the class.

        >>> BatchData.aggregate_batch([{"x": 1}, {"x": 2}])
        {'x': array([1, 2], dtype=int32)}

        Raises:
            BatchError: if the list is empty or its datapoints cannot be stacked.
        """
        check.instance((list, tuple), "a list of datapoints", data_holder=data_holder)
        check.flag(use_list=use_list)
        return stack(data_holder, use_list)
