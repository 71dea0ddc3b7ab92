"""Quantiles are numpy's, without what numpy loads for them."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from livemig.core.quantiles import middle, quantiles

NUMBERS = st.lists(st.floats(-1e9, 1e9), min_size=1, max_size=64)


@given(NUMBERS, st.lists(st.floats(0.0, 1.0), min_size=1, max_size=4))
def test_they_are_numpys(values, shares):
    """Of any numbers, in any order, as a list or as an array."""
    expected = np.quantile(values, shares)
    assert quantiles(values, shares) == pytest.approx(expected, rel=1e-9, abs=1e-6)
    assert quantiles(np.array(values), shares) == quantiles(values, shares)
    assert middle(values) == pytest.approx(np.median(values), rel=1e-9, abs=1e-6)


def test_a_forecast_loads_no_masked_arrays():
    """They take 20 ms and some MiB, of each migration."""
    code = (
        "import sys; from livemig.core.forecaster import Forecaster; from livemig.core.plan import Plan;"
        "from livemig.core.foreknowledge import Foreknowledge;"
        "found = Forecaster.knowing(Plan(), 1 << 28, Foreknowledge());"
        "found.forecast('start', 0.0); found.left_s(0.0); print('numpy' in sys.modules, 'numpy.ma' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, timeout=60)
    assert done.stdout.split() == ["True", "False"]
