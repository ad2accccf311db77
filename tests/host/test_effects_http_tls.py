"""HTTPRequest over TLS: the certificate must be for the name in the URL, not for the address that is pinned."""

import json
import socket
import ssl
import threading

import pytest

from fxcell.host.effects.http import HTTPClient
from tests.host.web import OK, Resolver, answer, ask, kind_of, policy, serve, wait_for_end

__all__ = ["serve"]


KEY_AND_CERTIFICATE = """\
-----BEGIN PRIVATE KEY-----
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgphodsLz3nGw659ae
WJ3lOATSKcbxY5B4um7FU1ghKOihRANCAASFFQbF1uP/0EW/L7HVGT4NXi4TFM+k
cqJ0w8r+H5NNPNaBxVPviyF/utIweFwE0SC0/HNhGovuJtXAx1DgYUX9
-----END PRIVATE KEY-----
-----BEGIN CERTIFICATE-----
MIIBjTCCATOgAwIBAgIUKzOLgPgWCWDkoXPSVMukOWDhKJowCgYIKoZIzj0EAwIw
FjEUMBIGA1UEAwwLZnhjZWxsIHRlc3QwIBcNMjAwMTAxMDAwMDAwWhgPMjEyMDAx
MDEwMDAwMDBaMBYxFDASBgNVBAMMC2Z4Y2VsbCB0ZXN0MFkwEwYHKoZIzj0CAQYI
KoZIzj0DAQcDQgAEhRUGxdbj/9BFvy+x1Rk+DV4uExTPpHKidMPK/h+TTTzWgcVT
74shf7rSMHhcBNEgtPxzYRqL7ibVwMdQ4GFF/aNdMFswGQYDVR0RBBIwEIIOc2Vj
dXJlLmV4YW1wbGUwDwYDVR0TAQH/BAUwAwEB/zAdBgNVHQ4EFgQUipXuIEA87hcx
xCcwXNdOME129z8wDgYDVR0PAQH/BAQDAgKEMAoGCCqGSM49BAMCA0gAMEUCIAOl
sbghAUhLlJ1pQpPFQ4Zhyk1tZ+XUe2dL7gbUQocSAiEA6D++1kog8iMzAzqvAm3t
c8G8ff/MzPnlldw/4qLeL1A=
-----END CERTIFICATE-----
"""  # for secure.example alone, its own authority, 2020 to 2120; made for these tests and used nowhere else


@pytest.fixture
def tls(tmp_path):
    """(the server's side, the trust of a client that knows its certificate)."""
    file = tmp_path / "both.pem"
    file.write_text(KEY_AND_CERTIFICATE)
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(file)
    client = ssl.create_default_context(cadata=KEY_AND_CERTIFICATE[KEY_AND_CERTIFICATE.index("-----BEGIN CERT") :])
    return server, client


def test_https_checks_the_name_while_the_address_is_pinned(tls, serve):
    server = serve(answer("200 OK", body=json.dumps([1]).encode() * 20_000), tls[0])
    client = HTTPClient(Resolver(), lambda: tls[1])
    result = ask(policy(f"secure.example:{server.port}"), f"https://secure.example:{server.port}/", client=client)
    assert len(result["body"]) == 60_000


@pytest.mark.parametrize("host", ["other.example", "127.0.0.1"])
def test_certificate_of_another_name_is_tls(host, tls, serve):
    server = serve(OK, tls[0])
    client = HTTPClient(Resolver(), lambda: tls[1])
    assert kind_of(policy(f"{host}:{server.port}"), f"https://{host}:{server.port}/", client=client) == "tls"
    assert not server.requests


def test_certificate_of_an_unknown_authority_is_tls(tls, serve):
    server = serve(OK, tls[0])
    assert kind_of(policy(f"secure.example:{server.port}"), f"https://secure.example:{server.port}/") == "tls"
    assert not server.requests


def test_server_without_tls_is_tls(tls):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]

        def say():
            connection, _ = listener.accept()
            with connection:
                connection.recv(1)
                connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
                wait_for_end(connection)

        thread = threading.Thread(target=say)
        thread.start()
        client = HTTPClient(Resolver(), lambda: tls[1])
        try:
            assert kind_of(policy(f"secure.example:{port}"), f"https://secure.example:{port}/", client=client) == "tls"
        finally:
            thread.join()


def test_tls_handshake_that_hangs_is_a_timeout():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        granted = policy(f"secure.example:{port}")
        assert kind_of(granted, f"https://secure.example:{port}/", timeout_s=0.1) == "timeout"
