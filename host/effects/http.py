"""HTTPRequest: one request, redirects followed by us, every step judged again.

    check (rules) -> look up once -> judge every address -> connect to exactly these -> send -> read within caps
         ^                                                                                     |
         +------------------------------------- redirect, at most MAX_REDIRECTS ---------------+

httpcore, the engine below httpx, is used without httpx.Client: the client would parse the URL a second time and more
kindly than the rules did, keep cookies, and add headers of its own. Nothing here reads the environment: no proxy
variables, no .netrc, no SSL_CERT_FILE.
"""

from __future__ import annotations

import functools
import math
import re
import ssl
import traceback
import urllib.parse
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import httpcore
import httpx

from fxcell.host import secrets
from fxcell.host.audit.redaction import URL_SAFE
from fxcell.host.effects import http_body, http_headers, http_log
from fxcell.host.effects.addresses import Resolver, public_addresses, system_resolver
from fxcell.host.effects.context import Context, Pace, pace_of
from fxcell.host.effects.pinned import PinnedBackend
from fxcell.host.secrets import Injected
from fxcell.policies import rules, targets
from fxcell.policies.builtin import HTTPRequest
from fxcell.policies.errors import EffectDenied, EffectFailed
from fxcell.policies.http_rule import HTTPRule
from fxcell.policies.names import short

MAX_REDIRECTS = 5
MAX_LOCATION_CHARACTERS = targets.MAX_URL_CHARACTERS
HOST_MAX_BODY_BYTES = 1024 * 1024 * 1024
"""The cap where no policy gives one: a request of the host for itself."""

_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_BAD_LOCATION = "a redirect leads to a URL that cannot be asked for"
_TOO_MANY = f"more than {MAX_REDIRECTS} redirects"
_UNTOLD = (_BAD_LOCATION, _TOO_MANY)
"""What follows these texts is cut short, and may be cut through a secret that a server has copied into a URL."""
_METHOD = re.compile(r"[A-Z]{1,20}", re.ASCII)
_NEVER_METHODS = frozenset({"CONNECT", "TRACE"})  # a tunnel; an echo of the host's own headers


class _Allowance(NamedTuple):
    max_body_bytes: int
    private_hosts: bool


@functools.cache
def default_trust() -> ssl.SSLContext:
    """Names and certificates are checked against the authorities that come with httpx."""
    return httpx.create_ssl_context(verify=True, trust_env=False)


@dataclass(frozen=True, slots=True)
class HTTPClient:
    """Performs HTTPRequest; resolver and trust can be given by tests and by hosts with authorities of their own."""

    resolve: Resolver = system_resolver
    trust: Callable[[], ssl.SSLContext] = default_trust

    def perform(self, effect: HTTPRequest, context: Context) -> dict[str, Any]:
        """Answer a dict: status, headers (lower-case names; repeated ones joined by ", "), body (decoded), url.

        Content-Encoding and Content-Length are reported as the server sent them, also where the body was decoded.
        Raises: EffectDenied - a redirect leads to what the policy does not grant.
                EffectFailed - no_secret, bad_request, name_not_found, refused_address, connection, tls, timeout, cancelled,
                too_large, too_many_redirects.
        """
        if not (effect.timeout_s > 0 and math.isfinite(effect.timeout_s)):
            raise _bad_request(f"timeout_s must be more than 0 and finite, not {effect.timeout_s}")
        if not _METHOD.fullmatch(effect.method) or effect.method in _NEVER_METHODS:
            raise _bad_request(f"{short(effect.method)} is not a method that can be asked for")
        injected = _secrets(context, _target(effect))
        if not injected:
            return self._follow(effect, context, injected)
        try:
            with http_log.silenced():
                answer: dict[str, Any] = injected.clean(self._follow(effect, context, injected))
            return answer
        except EffectFailed as failed:
            text = next((text for text in _UNTOLD if failed.message.startswith(text)), failed.message)
            raise EffectFailed(failed.effect, failed.kind, injected.clean(text)) from None
        except EffectDenied as denied:
            texts = (injected.clean(denied.rule), denied.policy, injected.clean(denied.suggestion))
            raise EffectDenied(denied.effect, denied.field, *texts) from None
        except KeyboardInterrupt:
            raise
        except BaseException:  # noqa: BLE001 - whatever it is, its text goes to the log, and must not take the secret there
            raise RuntimeError(injected.clean(traceback.format_exc())) from None

    def _follow(self, effect: HTTPRequest, context: Context, injected: Injected) -> dict[str, Any]:
        pace = pace_of(effect, context, effect.timeout_s)
        allowance = _allowance(context)
        origin = _target(effect)[:3]
        for _ in range(1 + MAX_REDIRECTS):
            if _target(effect)[:3] != origin:
                injected = secrets.NONE  # and it stays so, where a later redirect leads back
            answer = self._exchange(effect, pace, allowance, injected)
            if isinstance(answer, dict):
                return answer
            effect = answer
            if context.policy is not None:
                rules.check(context.policy, effect)
        raise EffectFailed("HTTPRequest", "too_many_redirects", f"{_TOO_MANY}, the last to {effect.url:.200}")

    def _exchange(
        self, effect: HTTPRequest, pace: Pace, allowance: _Allowance, injected: Injected
    ) -> dict[str, Any] | HTTPRequest:
        """One request on a connection of its own; answers the result, or the request that a redirect asks for."""
        target = _target(effect)
        headers = http_headers.to_send(effect, target, injected.values)
        addresses = public_addresses(
            target.host, target.port, self.resolve, pace, allow_private=allowance.private_hosts
        )
        origin = httpcore.Origin(target.scheme.encode(), target.host.encode(), target.port)
        backend = PinnedBackend(addresses, pace)
        request = httpcore.Request(
            effect.method,
            httpcore.URL(scheme=origin.scheme, host=origin.host, port=origin.port, target=target.path.encode()),
            headers=headers,
            content=effect.body,
        )
        trust = self.trust() if target.scheme == "https" else None
        try:
            with httpcore.HTTPConnection(origin, ssl_context=trust, network_backend=backend) as connection:
                response = connection.handle_request(request)
                try:
                    return _judge(effect, response, backend, allowance)
                finally:
                    response.close()
        except httpcore.LocalProtocolError as error:
            raise _bad_request(f"the request cannot be sent: {error}") from error
        except httpcore.RemoteProtocolError as error:
            if getattr(error.__cause__, "error_status_hint", 0) == 431:  # h11: the head is over its cap
                raise http_headers.too_large(f"more than {http_headers.MAX_BYTES} bytes") from error
            text = f"{target.host} did not answer in HTTP/1.1: {error}"
            raise EffectFailed("HTTPRequest", "connection", text) from error
        except (httpcore.NetworkError, httpcore.TimeoutException) as error:
            raise EffectFailed("HTTPRequest", "connection", f"no connection with {target.host}: {error}") from error


# One per process: it holds nothing but two functions.
perform_http_request = HTTPClient().perform


def _judge(
    effect: HTTPRequest, response: httpcore.Response, backend: PinnedBackend, allowance: _Allowance
) -> dict[str, Any] | HTTPRequest:
    headers = http_headers.received(response.headers)
    if response.status == 101:
        raise EffectFailed("HTTPRequest", "connection", "the server wants to leave HTTP, which was not asked for")
    if response.status in _REDIRECTS and "location" in headers:
        return _redirected(effect, response.status, headers["location"])
    codings = headers.get("content-encoding", "")
    pieces = backend.count(response.iter_stream())
    body = http_body.read(pieces, codings, allowance.max_body_bytes, backend.pace)
    return {"status": response.status, "headers": headers, "body": body, "url": effect.url}


def _redirected(effect: HTTPRequest, status: int, location: str) -> HTTPRequest:
    """The request a redirect asks for.

    Source: RFC 9110, 15.4: 303 turns all but HEAD into GET; 301 and 302 turn POST into GET, as every client does.
    """
    if len(location) > MAX_LOCATION_CHARACTERS:
        raise http_headers.too_large("a Location longer than any URL may be")
    quoted = urllib.parse.quote(location, safe=URL_SAFE, encoding="latin-1")
    before = _target(effect)
    try:
        url = urllib.parse.urljoin(effect.url, quoted)
        after = targets.http_target(url)
    except ValueError as error:
        raise _bad_request(f"{_BAD_LOCATION}: {error}") from error
    method, headers, body = effect.method, effect.headers, effect.body
    if (status == 303 and method != "HEAD") or (status in (301, 302) and method == "POST"):
        method, body = "GET", b""
        headers = http_headers.without_content(headers)
    if before[:3] != after[:3]:  # scheme, host, port
        headers = http_headers.without_credentials(headers)
    return HTTPRequest(url=url, method=method, headers=headers, body=body, timeout_s=effect.timeout_s)


def _target(effect: HTTPRequest) -> targets.HTTPTarget:
    try:
        return targets.http_target(effect.url)
    except ValueError as error:
        raise _bad_request(str(error)) from error


def _allowance(context: Context) -> _Allowance:
    if context.policy is None:
        return _Allowance(HOST_MAX_BODY_BYTES, private_hosts=True)
    rule = context.policy.effects["HTTPRequest"]
    assert isinstance(rule, HTTPRule)
    return _Allowance(rule.max_body_bytes, rule.private_hosts)


def _secrets(context: Context, target: targets.HTTPTarget) -> Injected:
    rule = None if context.policy is None else context.policy.effects["HTTPRequest"]
    if not isinstance(rule, HTTPRule) or not rule.sends_secrets_to(target):
        return secrets.NONE
    return secrets.resolve("HTTPRequest", rule.secrets)


def _bad_request(message: str) -> EffectFailed:
    return EffectFailed("HTTPRequest", "bad_request", message)
