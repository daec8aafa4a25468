"""Row numbers of ranges of rows, such as the rows of one episode, for whole columns at once.

Which ranges are wanted, and reading them, is for the callers to decide.
"""

import numpy as np
import numpy.typing as npt


def row_numbers(starts: npt.NDArray[np.int64], counts: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """The numbers `starts[0]`, `starts[0] + 1` and so on, `counts[0]` of them, then those of the next.

    Args:
        starts: The first row of each range (int64).
        counts: Its rows (int64), which may be none.
    """
    numbers: npt.NDArray[np.int64] = np.repeat(starts - (np.cumsum(counts) - counts), counts)
    return numbers + np.arange(len(numbers))
