"""The command line: `fxcell run`, `replay`, `demo`, `doctor`, `selftest`, `policy`, `audit`.

Only this folder imports typer, and only this file at import; rich is imported where something is drawn (and by the bar of
host/pool/progress.py): `import fxcell` stays cheap.
"""

from __future__ import annotations

import io
import platform
import sys
import traceback
from typing import Annotated

import typer

from fxcell.host.commands import exits, shown

_SETTINGS = {"help_option_names": ["-h", "--help"], "max_content_width": 110}

_DOCTOR_EXITS = """\b
Exit codes:
    0  a worker starts under the policy here
    1  it does not; the table says which layer is missing, and what to change
    2  the policy cannot be used
"""

app = typer.Typer(
    name="fxcell",
    help="Run untrusted Python in hardened worker processes whose only contact with the outside are granted effects.",
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings=_SETTINGS,
)


def main() -> None:
    """Run the command line and exit with one of the codes in exits.py."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        # What a plugin answers must not fail on a terminal that cannot show it.
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        app()
    except Exception:  # noqa: BLE001 - whatever it is, it is ours
        traceback.print_exc()
        print("fxcell: this is a bug in fxcell, not in your plugin: please report it with the lines above", file=sys.stderr)
        sys.exit(exits.SANDBOX)


def _print_version(*, wanted: bool) -> None:
    if wanted:
        import fxcell

        print(f"fxcell {fxcell.__version__}")
        raise typer.Exit


@app.callback()
def _options(
    *,
    version: Annotated[
        bool, typer.Option("--version", callback=lambda v: _print_version(wanted=v), is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    del version
    if platform.system() != "Linux":
        print(f"fxcell: workers need Linux: seccomp, Landlock and namespaces; this is {platform.system()}", file=sys.stderr)
        raise typer.Exit(exits.SANDBOX)


@app.command("run", epilog=f"{exits.HELP}\n{shown.HELP}", context_settings=_SETTINGS)
def _run(
    target: Annotated[
        str, typer.Argument(metavar="PATH[:FUNCTION]", help="A .py file (FUNCTION: main), or a folder with a plugin.toml.")
    ],
    *,
    policy: Annotated[
        str, typer.Option("--policy", "-p", metavar="P", help="A shipped profile, or the path of a TOML file.")
    ] = "compute",
    arg: Annotated[
        list[str] | None,
        typer.Option("--arg", "-a", metavar="K=V", help="A keyword argument; V is JSON if it parses, else text. Repeatable."),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object; what the plugin prints goes to stderr.")
    ] = False,
    deadline: Annotated[
        float | None, typer.Option("--deadline", metavar="SECONDS", help="For the call, at most the policy's limits.wall.")
    ] = None,
    record: Annotated[
        str | None,
        typer.Option(
            "--record", metavar="FILE",
            help="Write command, code, effects with their results, and outcome there, for `fxcell replay`; the file must not "
            "exist. Headers such as Authorization and Cookie are redacted; all else is in it as it was.",
        ),
    ] = None,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run",
            help="Perform no effect: print each that the policy would let through, and answer with a stand-in (200 and no "
            "body, an empty file, nothing).",
        ),
    ] = False,
    audit: Annotated[
        str | None, typer.Option("--audit", metavar="FILE", help="Write a line per decision here; see `fxcell audit`.")
    ] = None,
) -> None:
    """Run a plugin in a hardened worker and print its result."""
    from fxcell.host.commands.run import Manner, run_plugin

    manner = Manner(record, dry_run, audit)
    raise typer.Exit(run_plugin(target, policy, arg or [], as_json=as_json, deadline_s=deadline, manner=manner))


@app.command("replay", epilog=exits.REPLAY_HELP, context_settings=_SETTINGS)
def _replay(
    record: Annotated[str, typer.Argument(metavar="FILE", help="What `fxcell run --record FILE` wrote.")],
    plugin: Annotated[
        str | None, typer.Argument(metavar="PATH[:FUNCTION]", help="A plugin to run in place of the recorded code.")
    ] = None,
    *,
    policy: Annotated[
        str | None,
        typer.Option(
            "--policy", "-p", metavar="P",
            help="In place of the recorded policy; needed where that is not `full`, preloads modules or shows folders.",
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Run a record again in a hardened worker with the recorded answers, and say where it diverged. Nothing is performed."""
    from fxcell.host.commands.replay import replay_file

    raise typer.Exit(replay_file(record, plugin, policy, as_json=as_json))


@app.command("demo", context_settings=_SETTINGS)
def _demo(
    *,
    images: Annotated[
        str | None, typer.Option("--images", metavar="DIR", help="A folder of pictures to resize instead of drawn ones.")
    ] = None,
) -> None:
    """Run honest and hostile plugins and show what becomes of each. Exits with 0 when every one ended as expected."""
    from fxcell.host.commands.demo import run_demo

    raise typer.Exit(run_demo(images))


@app.command("doctor", epilog=_DOCTOR_EXITS, context_settings=_SETTINGS)
def _doctor(
    *,
    policy: Annotated[
        str, typer.Option("--policy", "-p", metavar="P", help="A shipped profile, or the path of a TOML file.")
    ] = "compute",
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Say which layers hold on this machine, proved by a real worker, why others do not, and what to change."""
    from fxcell.host.commands.doctor import run_doctor

    raise typer.Exit(run_doctor(policy, as_json=as_json))


_policy = typer.Typer(
    help="Explain, print, check, compare and learn policies.",
    no_args_is_help=True, rich_markup_mode=None, context_settings=_SETTINGS,
)  # fmt: skip
app.add_typer(_policy, name="policy")


@_policy.command("explain", context_settings=_SETTINGS)
def _explain(
    policy: Annotated[str, typer.Argument(metavar="P", help="A shipped profile, or the path of a TOML file.")],
    *,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    show_filter: Annotated[bool, typer.Option("--filter", help="Also print the compiled filter, disassembled.")] = False,
) -> None:
    """Say all that a worker under this policy can do, and why. Nothing is started."""
    from fxcell.host.commands.policy import explain_policy

    raise typer.Exit(explain_policy(policy, as_json=as_json, show_filter=show_filter))


@_policy.command("show", context_settings=_SETTINGS)
def _show(
    policy: Annotated[str, typer.Argument(metavar="P", help="A shipped profile, or the path of a TOML file.")],
) -> None:
    """Print the policy with everything that it inherits, as TOML that means the same."""
    from fxcell.host.commands.policy import show_policy

    raise typer.Exit(show_policy(policy))


@_policy.command("check", epilog=exits.CHECK_HELP, context_settings=_SETTINGS)
def _check(
    policy: Annotated[str, typer.Argument(metavar="P", help="A shipped profile, or the path of a TOML file.")],
    *,
    strict: Annotated[bool, typer.Option("--strict", help="Exit with 1 when there are warnings.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Say whether a policy can be used, and warn of grants that are wider than plugins usually need."""
    from fxcell.host.commands.policy_compare import check_policy

    raise typer.Exit(check_policy(policy, strict=strict, as_json=as_json))


@_policy.command("diff", epilog=exits.DIFF_HELP, context_settings=_SETTINGS)
def _diff(
    a: Annotated[str, typer.Argument(metavar="A", help="A shipped profile, or the path of a TOML file.")],
    b: Annotated[str, typer.Argument(metavar="B", help="The policy to compare it with.")],
    *,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Say in words what B allows that A does not, and the reverse: by what is granted, not by how it is written."""
    from fxcell.host.commands.policy_compare import diff_policies

    raise typer.Exit(diff_policies(a, b, as_json=as_json))


@_policy.command("learn", epilog=exits.LEARN_HELP, context_settings=_SETTINGS)
def _learn(
    target: Annotated[
        str, typer.Argument(metavar="PATH[:FUNCTION]", help="A .py file (FUNCTION: main), or a folder with a plugin.toml.")
    ],
    *,
    arg: Annotated[
        list[str] | None,
        typer.Option("--arg", "-a", metavar="K=V", help="A keyword argument; V is JSON if it parses, else text. Repeatable."),
    ] = None,
    output: Annotated[
        str | None, typer.Option("--output", "-o", metavar="FILE", help="Write the policy there; the file must not exist.")
    ] = None,
    perform: Annotated[bool, typer.Option("--perform", help="Perform every effect, also those that change things.")] = False,
    simulate: Annotated[bool, typer.Option("--simulate", help="Perform no effect at all.")] = False,
) -> None:
    """Run a plugin, with a wider filter than plugins get, and print the smallest policy under which it does the same."""
    from fxcell.host.commands.learn import learn_policy
    from fxcell.host.learning_tapes import Mode

    if perform and simulate:
        raise typer.BadParameter("--perform and --simulate exclude each other")
    mode = Mode.PERFORM if perform else Mode.SIMULATE if simulate else Mode.CAREFUL
    raise typer.Exit(learn_policy(target, arg or [], output, mode))


@app.command("selftest", epilog=exits.SELFTEST_HELP, context_settings=_SETTINGS)
def _selftest(
    *,
    policy: Annotated[
        str, typer.Option("--policy", "-p", metavar="P", help="A shipped profile, or the path of a TOML file.")
    ] = "compute",
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Attack this machine's sandbox under a policy, for real and harmlessly, and show what stopped each attack."""
    from fxcell.host.commands.selftest import run_selftest

    raise typer.Exit(run_selftest(policy, as_json=as_json))


_AUDIT_EXITS = """\b
Exit codes:
    0  every line is there and as it was written
    1  something was removed, changed, moved or torn; the line and why are printed
    2  a file cannot be read, --expect is no hash, the log is keyed and no key was given, or
       the key cannot be used
"""

_audit = typer.Typer(
    help="Check an audit log, or print its last hash.", no_args_is_help=True, rich_markup_mode=None, context_settings=_SETTINGS
)
app.add_typer(_audit, name="audit")
_AuditKey = Annotated[str | None, typer.Option("--key", metavar="FILE", help="The key file that the log was written with.")]


@_audit.command("verify", epilog=_AUDIT_EXITS, context_settings=_SETTINGS)
def _audit_verify(
    files: Annotated[list[str], typer.Argument(metavar="FILE...", help="All files of one log, in any order.")],
    *,
    expect: Annotated[
        str | None, typer.Option("--expect", metavar="HASH", help="What `fxcell audit head` said of the end.")
    ] = None,
    key: _AuditKey = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Say whether an audit log is whole, or which line is not, and why."""
    from fxcell.host.commands.audit import verify_files

    raise typer.Exit(verify_files(files, expect=expect, key_file=key, as_json=as_json))


@_audit.command("head", epilog=_AUDIT_EXITS, context_settings=_SETTINGS)
def _audit_head(file: Annotated[str, typer.Argument(metavar="FILE")], *, key: _AuditKey = None) -> None:
    """Print the hash of a whole log's last line, to be kept where who can write the log cannot write."""
    from fxcell.host.commands.audit import print_head

    raise typer.Exit(print_head(file, key_file=key))
