"""The composition root: the only package that knows both the web and the infrastructure.

start ──> what a worker is told ──> its parts, wired ──> its application
"""
