"""The demo upstream: a stand-in for a provider, in a process of its own."""
