"""Names for the arrays that results travel in."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np

Bools: TypeAlias = np.ndarray[Any, np.dtype[np.bool_]]
Ints: TypeAlias = np.ndarray[Any, np.dtype[np.int64]]
Floats: TypeAlias = np.ndarray[Any, np.dtype[np.float64]]
