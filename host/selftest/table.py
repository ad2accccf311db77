"""Every attack of the selftest, by category; the order is that of the report and does not change within a version."""

from __future__ import annotations

from fxcell.host.selftest.table_files import ENVIRONMENT, FILES, WRITES
from fxcell.host.selftest.table_limits import CRASHES, PROTOCOL, RESOURCES
from fxcell.host.selftest.table_powers import NETWORK, PRIVILEGES, PROCESSES

ATTACKS = (*FILES, *WRITES, *ENVIRONMENT, *NETWORK, *PROCESSES, *PRIVILEGES, *CRASHES, *RESOURCES, *PROTOCOL)
