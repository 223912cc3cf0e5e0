"""The compiled parser of MAF'19 rows: ``owner,app,function,trigger,count,count,...``.

General CSV readers spend 4 s a day's file (160 MB, 1,444 columns) where a loop over its bytes takes half a
second and makes no table of zeros on the way.
"""

import numpy as np
from numpy.typing import NDArray

from planner.compilation import compiled

COMMA, NEWLINE, RETURN, ZERO = 44, 10, 13, 48
NAMES = 4


@compiled
def parse_block(
    text: NDArray[np.uint8], minutes: int, start: int, end: int
) -> tuple[int, NDArray[np.int64], NDArray[np.int32], NDArray[np.uint32], NDArray[np.uint16], NDArray[np.uint32]]:
    """Parse whole lines of ``minutes`` counts each; keep counts above 0 of minutes [start, end).

    Returns
    -------
    tuple
        The number of lines (blank ones count), or minus the number, from 1, of the first line that is wrong; per
        row the positions of its first comma plus one, its second and its third (application and function
        lie between); per row the number of minutes kept and the largest count; those minutes; their counts.
    """
    lines = 0
    for byte in text:
        lines += byte == NEWLINE
    name_at = np.empty((lines, 3), dtype=np.int64)
    filled = np.zeros(lines, dtype=np.int32)
    peak = np.zeros(lines, dtype=np.uint32)
    minute_of = np.empty(len(text) // 2 + 1, dtype=np.uint16)
    count_of = np.empty(len(text) // 2 + 1, dtype=np.uint32)
    row = line = kept = position = 0
    while position < len(text):
        line += 1
        if text[position] == NEWLINE or text[position] == RETURN:  # a blank line
            while text[position] != NEWLINE:
                position += 1
            position += 1
            continue
        for name in range(NAMES):
            while text[position] != COMMA:
                if text[position] == NEWLINE:
                    return -line, name_at, filled, peak, minute_of, count_of
                position += 1
            if name < 3:
                name_at[row, name] = position + (name == 0)
            position += 1
        for minute in range(minutes):
            count, digits = 0, 0
            while ZERO <= text[position] < ZERO + 10:
                count = min(10 * count + text[position] - ZERO, 2**31)
                digits += 1
                position += 1
            if text[position] == RETURN:
                position += 1
            expected = NEWLINE if minute == minutes - 1 else COMMA
            if digits == 0 or count >= 2**31 or text[position] != expected:
                return -line, name_at, filled, peak, minute_of, count_of
            position += 1
            if count > 0 and start <= minute < end:
                minute_of[kept], count_of[kept] = minute, count
                kept += 1
                filled[row] += 1
                peak[row] = max(peak[row], count)
        row += 1
    return line, name_at[:row], filled[:row], peak[:row], minute_of[:kept].copy(), count_of[:kept].copy()
