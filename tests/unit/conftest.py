"""How the laws are searched for counterexamples.

The same examples in every run; `pytest --hypothesis-profile=search tests/unit` looks for new ones.
"""

import pytest
from hypothesis import HealthCheck, settings

pytest.register_assert_rewrite("scenario")

LAWS = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])

settings.register_profile("steady", LAWS, max_examples=40, derandomize=True, database=None)
settings.register_profile("search", LAWS, max_examples=5_000)
settings.load_profile("steady")
