"""The OpenAI-compatible gateway below /v1: routes, requests, answers, streams, and their errors."""
