"""What a policy grants that is seldom meant: the warnings of `fxcell policy check`. The policy itself is valid."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from fxcell.policies.environment_rule import EnvironmentRule
from fxcell.policies.http_rule import HTTPRule
from fxcell.policies.policy import Isolation, Policy
from fxcell.policies.targets import host_entry
from fxcell.policies.under_rule import UnderRule

_READING = frozenset({"GET", "HEAD", "OPTIONS"})
_PRIVATE_FOLDERS = ("/root", "/home", "/etc", "/run", "/var/run", "/var/lib", "/boot", "/dev")
_RUN_FROM = frozenset({"bin", "sbin", "site-packages", "dist-packages"})
"""A folder of this name, anywhere in a path, is one that programs are run or imported from."""
_SYSTEM_FOLDERS = ("/etc", "/usr", "/lib", "/lib32", "/lib64", "/libx32", "/bin", "/sbin", "/boot")
_SECRET_WORDS = ("KEY", "TOKEN", "SECRET", "PASSWORD", "PASSWD", "CREDENTIAL")
_METADATA = frozenset({"169.254.169.254", "169.254.170.2", "fd00:ec2::254", "100.100.100.200", "metadata.google.internal"})
"""Where clouds answer every process of a machine, with the machine's own credentials among the rest."""
_HOME_DEPTH = 2
"""/home/ada is one person's everything; a folder in it is not."""


def wide_grants(policy: Policy) -> list[tuple[str, str]]:
    """(key, what it opens and what to write instead) of every grant that is wider than plugins usually need."""
    return [*_isolation(policy), *_words(policy), *_directories("visible", policy.visible), *_rules(policy), *_pairs(policy)]


def _isolation(policy: Policy) -> Iterator[tuple[str, str]]:
    if policy.isolation is Isolation.TRUSTED:
        yield "isolation", '"trusted" is no sandbox: code that means harm can do what the host\'s user can; write "full"'
    if policy.isolation is Isolation.UNPRIVILEGED:
        text = '"unprivileged" also accepts a worker without namespaces; write "full" where the machine has them'
        yield "isolation", text


def _words(policy: Policy) -> Iterator[tuple[str, str]]:
    if "writable_code" in policy.allow:
        yield "allow", '"writable_code" lets injected machine code run; leave it out unless a JIT compiler needs it'
    if "processes" in policy.allow:
        yield "allow", '"processes" opens fork and some twenty system calls; leave it out unless the plugin forks'
    if policy.preload:
        yield "preload", f"the code of {', '.join(policy.preload)} runs outside the sandbox; name only what you would import"


def _rules(policy: Policy) -> Iterator[tuple[str, str]]:
    for name, rule in policy.effects.items():
        if isinstance(rule, HTTPRule):
            yield from _requests(f"effects.{name}", rule)
        elif isinstance(rule, EnvironmentRule):
            yield from _variables(f"effects.{name}.names", rule.names)
        elif isinstance(rule, UnderRule):
            at = f"effects.{name}.under"
            yield from _directories(at, rule.under)
            if name in ("WriteFile", "DeleteFile"):
                yield from _changed(at, rule.under)


def _variables(at: str, names: Iterable[str]) -> Iterator[tuple[str, str]]:
    for name in names:
        if any(word in name.upper() for word in _SECRET_WORDS):
            text = f"{name} looks like a secret, and the plugin would hold it; a header can be filled by the host: "
            yield at, text + "write it into secrets of effects.HTTPRequest"


def _changed(at: str, directories: Iterable[str]) -> Iterator[tuple[str, str]]:
    for path in directories:
        system = any(f"{path}/".startswith(f"{folder}/") for folder in _SYSTEM_FOLDERS)
        if system or _RUN_FROM.intersection(path.split("/")):
            text = f"{path} is a folder that programs are run, imported or configured from, outside the sandbox: what changes "
            yield at, text + "there can take over the host; name a folder of data"


def _requests(at: str, rule: HTTPRule) -> Iterator[tuple[str, str]]:
    patterns = [host_entry(text).pattern for text in rule.hosts]
    if rule.private_hosts:
        text = "opens addresses of the host itself and of its network, which trust whoever can reach them; leave it out"
        yield f"{at}.private_hosts", f"true {text} unless the plugin is about such a service"
        for pattern in patterns:
            if pattern in _METADATA or pattern == "*":
                where = "every metadata service" if pattern == "*" else f"{pattern}, a metadata service"
                yield f"{at}.hosts", f"{where} of a cloud answers with credentials of the machine; leave it out"
    if "*" in patterns:
        whose = "every host, those of the host's own network included" if rule.private_hosts else "every public host"
        yield f"{at}.hosts", f'"*" is {whose}: a plugin can send all that it knows to any of them; name the hosts you mean'
    for pattern in patterns:
        if pattern.startswith("*.") and pattern.count(".") == 1:
            yield f"{at}.hosts", f'"{pattern}" is a whole top-level domain, in which anybody can have a name'
    writing = sorted(set(rule.methods) - _READING)
    if writing and any(pattern.startswith("*") for pattern in patterns):
        yield f"{at}.methods", f"{', '.join(writing)} change things, at hosts that the policy does not name one by one"


def _directories(at: str, directories: Iterable[str]) -> Iterator[tuple[str, str]]:
    for path in directories:
        depth = path.count("/")
        if path in _PRIVATE_FOLDERS or (path.startswith("/home/") and depth <= _HOME_DEPTH):
            yield at, f"{path} holds secrets and settings of the host and its users; name a folder of data"
        elif depth == 1:
            yield at, f"{path} is a top-level folder; name the folder below it that the plugin needs"


def _pairs(policy: Policy) -> Iterator[tuple[str, str]]:
    asks = policy.effects.get("HTTPRequest")
    reads = [name for name in ("ReadFile", "GetEnvironment") if name in policy.effects]
    if isinstance(asks, HTTPRule) and reads and any(host_entry(text).pattern == "*" for text in asks.hosts):
        yield "effects", f"{' and '.join(reads)} beside HTTPRequest to any host: what is read can be sent anywhere"
