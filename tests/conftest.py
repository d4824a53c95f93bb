"""What unit and end-to-end tests share."""

import sys
from pathlib import Path

import pytest

# Tests are no packages: each folder of tests sees its own modules, and all of them see the contracts.
sys.path.insert(0, str(Path(__file__).parent / "contracts"))
pytest.register_assert_rewrite("event_store_contract", "views_contract")
