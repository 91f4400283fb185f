"""Benchmarks; README.md says what each one asks."""
