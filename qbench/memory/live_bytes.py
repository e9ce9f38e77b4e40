"""The bytes of tensors that are alive, counted without a value in them."""

import weakref
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.weak import WeakIdKeyDictionary


class LiveBytes(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the storages that operations make while it is entered, each until it is freed, gradients included.

    What an operation needs only within itself, such as the workspace of a convolution, is not seen.

    Args:
        known: tensors that were there before and do not count.

    Attributes:
        now: bytes alive.
        peak: the most there were since ``start_over``.
    """

    def __init__(self, known: Iterable[Tensor] = ()) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.now = 0
        self.peak = 0
        self._storages = WeakIdKeyDictionary()
        self._is_counting = True
        for tensor in known:
            self._storages[tensor.untyped_storage()] = 0

    def start_over(self) -> None:
        """Forget the peak of before."""
        self.peak = self.now

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Let what is made meanwhile never count."""
        self._is_counting = False
        try:
            yield
        finally:
            self._is_counting = True

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        for each in (result,) if isinstance(result, Tensor) else tree_leaves(result):
            if isinstance(each, Tensor):
                self._meet(each.untyped_storage())
        self.peak = max(self.peak, self.now)
        return result

    def _meet(self, storage: torch.UntypedStorage) -> None:
        if storage in self._storages:  # a view, or written in place
            return
        size = storage.nbytes() if self._is_counting else 0
        self._storages[storage] = size
        self.now += size
        weakref.finalize(storage, self._forget, size)

    def _forget(self, size: int) -> None:
        self.now -= size


class FusedAttention(TorchFunctionMode):
    """Lets attention on the meta device keep no probabilities, as it does on real devices."""

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if function is functional.scaled_dot_product_attention:
            q, k, v = (*args, *(kwargs[name] for name in ("query", "key", "value")[len(args) :]))[:3]
            return torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(q, k, v)[0]
        return function(*args, **(kwargs or {}))
