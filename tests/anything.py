"""A value of any type that facts and findings are made of, with hostile text wherever there can be text.

Made from the types themselves: a field that is added is filled without a word here.
"""

from __future__ import annotations

import types
from collections.abc import Callable
from dataclasses import fields, is_dataclass
from enum import Enum
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from hypothesis import strategies as st

from tests.hostile import NAMES

TEXT = st.sampled_from(NAMES) | st.text(st.characters(exclude_categories=()), max_size=20)
_BYTES = TEXT.map(lambda text: text.encode("utf-8", "surrogatepass"))
_NUMBERS = st.integers(-2, 300) | st.sampled_from([1 << 31, 4294967295, 1 << 62])
_TIMES = st.floats(0, 4e9) | st.sampled_from([float("nan"), float("inf"), -1e300])


def anything(kind: Any) -> st.SearchStrategy[Any]:
    """Values of that type."""
    origin, arguments = get_origin(kind), get_args(kind)
    if kind in _PLAIN:
        return _PLAIN[kind]
    if origin in (Union, types.UnionType):
        return st.one_of(*map(anything, arguments))
    if origin is Literal:
        return st.sampled_from(arguments)
    if origin is tuple:
        if arguments[1:] == (Ellipsis,):
            return st.lists(anything(arguments[0]), max_size=3).map(tuple)
        return st.tuples(*map(anything, arguments))
    if origin in (list, frozenset):
        return st.lists(anything(arguments[0]), max_size=3).map(origin)
    if origin is dict:
        return st.dictionaries(anything(arguments[0]), anything(arguments[1]), max_size=3)
    if isinstance(kind, type) and issubclass(kind, Enum):
        return st.sampled_from(kind)
    return st.deferred(lambda: _made(origin or kind))


def _made(kind: Any) -> st.SearchStrategy[Any]:
    """Of a dataclass or a named tuple, each field of its own type."""
    hints = get_type_hints(kind)
    names = [each.name for each in fields(kind) if each.init] if is_dataclass(kind) else kind._fields
    make: Callable[..., Any] = kind
    return st.builds(make, **{name: anything(hints[name]) for name in names})


_PLAIN: dict[Any, st.SearchStrategy[Any]] = {
    str: TEXT,
    bytes: _BYTES,
    int: _NUMBERS,
    float: _TIMES,
    bool: st.booleans(),
    type(None): st.none(),
    None: st.none(),
}
