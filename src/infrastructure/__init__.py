"""The outside world: PostgreSQL, the providers, the processes that serve."""
