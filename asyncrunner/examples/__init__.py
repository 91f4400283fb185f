"""Whole training scripts on data that comes with a package; `asyncrunner new` copies them."""
