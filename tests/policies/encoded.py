"""Values of every kind that travels, and extensions made by hand."""

from __future__ import annotations

import datetime

import msgspec
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_numpy

from fxcell.policies import builtin

ZONE = st.none() | st.integers(-86399, 86399).map(lambda s: datetime.timezone(datetime.timedelta(seconds=s)))
HASHABLE = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False)
    | st.text()
    | st.text(st.characters(codec=None), max_size=5)
    | st.binary()
    | st.datetimes(timezones=st.just(datetime.UTC))
    | st.dates()
    | st.uuids()
)
SCALAR = (
    HASHABLE
    | st.floats()
    | st.complex_numbers()
    | st.datetimes(timezones=ZONE)
    | st.times(timezones=ZONE)
    | st.timedeltas()
    | st.decimals()
    | st.frozensets(HASHABLE, max_size=4)
    | st.sets(HASHABLE, max_size=4)
)
DTYPES = (
    st_numpy.boolean_dtypes()
    | st_numpy.integer_dtypes(endianness="?")
    | st_numpy.floating_dtypes(endianness="?")
    | st_numpy.complex_number_dtypes(endianness="?")
    | st_numpy.datetime64_dtypes(endianness="?")
    | st_numpy.byte_string_dtypes(max_len=8)
    | st_numpy.unicode_string_dtypes(max_len=8, endianness="?")
)
ARRAY = st_numpy.arrays(DTYPES, st_numpy.array_shapes(min_dims=0, min_side=0, max_dims=3, max_side=4))
VALUE = st.recursive(
    SCALAR,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.lists(inner, max_size=4).map(tuple)
        | st.dictionaries(HASHABLE | st.tuples(HASHABLE), inner, max_size=4)
        | st.builds(builtin.Print, content=inner)
        | st.builds(builtin.Log, message=st.text(), data=st.dictionaries(st.text(), inner, max_size=2))
    ),
    max_leaves=10,
)


def ext(code: int, data: bytes) -> bytes:
    return msgspec.msgpack.encode(msgspec.msgpack.Ext(int(code), data))
