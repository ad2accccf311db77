"""Tests. Helpers are imported as `from tests.leaks import ...`."""
