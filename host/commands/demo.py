"""`fxcell demo`: honest and hostile plugins side by side, and a host that answers on."""

from __future__ import annotations

import sys

import psutil
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from fxcell.host import shutdown
from fxcell.host.commands import exits
from fxcell.host.commands.demo_rows import ROWS, Row, Said
from fxcell.host.commands.demo_world import World, in_new_worker, plugin_call, world
from fxcell.host.effects.basic import visible
from fxcell.policies.errors import FxcellError

_PLAIN_WIDTH = 170
"""Characters of a line when stdout is no terminal."""


def run_demo(images: str | None) -> int:
    """Run every row, print the table, then one more call; answer the exit code: 0 when all ended as expected.

    images: a folder of pictures to resize instead of drawn ones.
    After:  nothing of the workers is left.
    """
    console = Console(highlight=False) if sys.stdout.isatty() else Console(highlight=False, width=_PLAIN_WIDTH)
    try:
        with world(images) as around:
            finished = _run_rows(around, console)
            console.print(_table(finished))
            lives = _answers_once_more(around, console)
    except FxcellError as error:
        print(f"fxcell: {visible(str(error))}", file=sys.stderr)
        return exits.code_of(error)
    finally:
        shutdown()
    return exits.VALUE if _conclude(console, finished) and lives else exits.PLUGIN_ERROR


def _run_rows(around: World, console: Console) -> list[tuple[Row, Said | None]]:
    finished: list[tuple[Row, Said | None]] = []
    with console.status("") as status:
        for row in ROWS:
            status.update(f"{row.plugin}: {row.tried}")
            leave_out = row.skipped or (row.plugin == "draw_images" and not around.drawn)
            finished.append((row, None if leave_out else row.run(around)))
            around.ask_neighbour()
    return finished


def _table(finished: list[tuple[Row, Said | None]]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, expand=True)
    table.add_column("plugin", no_wrap=True)
    table.add_column("what it tried", min_width=24, ratio=4)
    table.add_column("what happened", no_wrap=True)
    table.add_column("the WorkerCrash line, or the answer", ratio=6, overflow="fold")
    table.add_column("ms", justify="right", no_wrap=True)
    for number, (row, said) in enumerate(finished):
        ends_part = number + 1 < len(finished) and finished[number + 1][0].hostile and not row.hostile
        # Text, not str: what a plugin wrote is never markup.
        cells = [Text(row.plugin, style="red" if row.hostile else "green"), Text(row.tried)]
        if said is None:
            cells += [Text("skipped"), Text(f"needs {row.needs}" if row.skipped else "--images was given"), Text("")]
        else:
            right = said.ended in row.expected
            happened = said.ended if right else f"{said.ended}: NOT EXPECTED"
            cells += [Text(happened, style="" if right else "bold red"), Text(visible(said.line))]
            cells.append(Text(f"{said.seconds * 1000:,.1f}"))
        table.add_row(*cells, end_section=ends_part)
    return table


def _answers_once_more(around: World, console: Console) -> bool:
    command = plugin_call("word_count", text="still here, still here, still")
    ended = in_new_worker(around.policies["compute"], command, deadline_s=10.0)
    console.print(Text(f"One more call, in a new worker: {visible(repr(ended.outcome))} in {ended.seconds * 1000:.1f} ms."))
    console.print(Text(f"A neighbour that worked beside them all answered {around.asked} calls, each one rightly."))
    return bool(ended.outcome == [("still", 3), ("here", 2)])


def _conclude(console: Console, finished: list[tuple[Row, Said | None]]) -> bool:
    """Print the last line; True when every row that ran ended as expected and no process is left."""
    left = [process.pid for process in psutil.Process().children(recursive=True)]
    ran = [(row, said.ended in row.expected) for row, said in finished if said is not None]
    hostile = [right for row, right in ran if row.hostile]
    honest = [right for row, right in ran if not row.hostile]
    skipped = f", {len(finished) - len(ran)} skipped" if len(ran) < len(finished) else ""
    remains = f"processes {left} are left behind" if left else "no process is left behind"
    line = f"{sum(hostile)} of {len(hostile)} hostile plugins contained, {sum(honest)} of {len(honest)} honest ones "
    console.print(Text(f"{line}answered{skipped}; {remains}.", style="bold"))
    return all(hostile) and all(honest) and not left


