"""Other training runners beside ours; `__main__` says how they are run."""
