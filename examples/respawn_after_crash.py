"""A worker dies of native code three times; the host says why, starts the next one, and goes on.

python examples/respawn_after_crash.py
"""

from fxcell import *


@zef_function
def read_address(address: int) -> bytes:
    import ctypes

    return ctypes.string_at(address)  # what a bug in a C extension does


@zef_function
def double(number: int) -> int:
    return 2 * number


def main() -> None:
    commands = [double(1), read_address(0), double(2), read_address(8), read_address(16), double(3)]
    worker = FX.StartWorkerProcess() | run
    for potentially_dangerous_fx in commands:
        try:
            result = FX.SendCommandToWorkerProcess(process=worker, command=potentially_dangerous_fx) | run
            print(f"{potentially_dangerous_fx} = {result}")
        except WorkerCrash as e:
            print(f"worker died: {e}")
            where = next(line.strip() for line in e.evidence.python_stack.splitlines() if "in read_address" in line)
            print(f"    at {where}; dedup key {e.dedup_key}")
            worker = FX.StartWorkerProcess() | run  # respawn
    FX.StopWorkerProcess(process=worker) | run


if __name__ == "__main__":
    main()
