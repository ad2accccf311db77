"""Which addresses are public, whatever the Python version says."""

import ipaddress

import pytest

from fxcell.host.effects import addresses


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1", "127.9.9.9", "0.0.0.0", "0.1.2.3", "10.1.2.3", "172.16.0.1", "172.31.255.255", "192.168.1.1",
        "169.254.169.254", "100.64.0.1", "100.127.255.255", "192.0.0.8", "192.0.2.1", "192.88.99.1", "198.18.0.1",
        "198.51.100.1", "203.0.113.1", "224.0.0.1", "239.1.1.1", "240.0.0.1", "255.255.255.255",
        "::", "::1", "::127.0.0.1", "::ffff:127.0.0.1", "::ffff:10.0.0.1", "::ffff:169.254.169.254", "fe80::1",
        "fe80::1%1", "fec0::1", "fc00::1", "fd12:3456::1", "ff02::1", "64:ff9b::7f00:1", "64:ff9b::10.0.0.1",
        "64:ff9b:1::808:808",
        "2002:7f00:1::1", "2002:a00:1::", "2001:0:4136:e378:8000:63bf:f5ff:fffe", "2001:0:7f00:1::", "2001:10::1",
        "2001:db8::1", "3fff::1", "100::1", "5f00::1",
    ],
)  # fmt: skip
def test_address_that_is_not_public_is_refused(address):
    assert addresses.why_refused(ipaddress.ip_address(address))


@pytest.mark.parametrize(
    "address",
    [
        "8.8.8.8", "1.1.1.1", "172.15.255.255", "172.32.0.1", "100.63.255.255", "100.128.0.1", "169.253.0.1",
        "223.255.255.255", "2606:4700:4700::1111", "2a00:1450:4001:800::200e", "2001:4860:4860::8888", "::ffff:8.8.8.8",
        "64:ff9b::808:808", "2002:808:808::1",
    ],
)  # fmt: skip
def test_public_address_is_not_refused(address):
    assert addresses.why_refused(ipaddress.ip_address(address)) is None
