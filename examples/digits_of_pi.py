"""Digits of pi on every core: chunks of Chudnovsky's series in workers, put together in the host.

python examples/digits_of_pi.py [DIGITS]

`run.submit` gives a Future for each command, so the workers calculate at the same time.
"""

import os
import sys
from itertools import pairwise
from math import isqrt

from fxcell import *

TERMS_PER_DIGIT = 1 / 14.181647462725477
KNOWN = "2164201989"  # digits 991 to 1000 after the point


@zef_function
def process_chunk(first: int, last: int) -> tuple[int, int, int]:
    """P, Q and T of the terms first .. last - 1, by binary splitting."""

    def split(a: int, b: int) -> tuple[int, int, int]:
        if b - a == 1:
            p = (6 * a - 5) * (2 * a - 1) * (6 * a - 1) if a else 1
            q = a * a * a * (640320**3 // 24) if a else 1
            return p, q, p * (13591409 + 545140134 * a) * (-1 if a & 1 else 1)
        middle = (a + b) // 2
        (p1, q1, t1), (p2, q2, t2) = split(a, middle), split(middle, b)
        return p1 * p2, q1 * q2, q2 * t1 + p1 * t2

    return split(first, last)


def main() -> None:
    digits = int(sys.argv[1]) if len(sys.argv) > 1 else 20_000
    terms = int(digits * TERMS_PER_DIGIT) + 10
    count = max(2, os.cpu_count() or 2)
    bounds = [terms * i // count for i in range(count + 1)]
    chunks = list(pairwise(bounds))
    workers = [FX.StartWorkerProcess() | run for _ in chunks]
    futures = [
        run.submit(FX.SendCommandToWorkerProcess(process=w, command=process_chunk(*chunk)))
        for w, chunk in zip(workers, chunks, strict=True)
    ]
    p, q, t = 1, 1, 0
    for future in futures:
        p2, q2, t2 = future.result()
        p, q, t = p * p2, q * q2, q2 * t + p * t2
    for worker in workers:
        FX.StopWorkerProcess(process=worker) | run

    guard = 10
    scaled = q * 426880 * isqrt(10005 * 10 ** (2 * (digits + guard))) // t // 10**guard
    sys.set_int_max_str_digits(digits + 100)
    text = str(scaled)
    print(f"3.{text[1:51]}… {digits:,} digits, {len(chunks)} workers, {terms:,} terms")
    print(f"the last ten: {text[-10:]}")
    if digits >= 1000 and text[991:1001] != KNOWN:
        sys.exit(f"digits 991 to 1000 are {text[991:1001]}, they should be {KNOWN}")


if __name__ == "__main__":
    main()
