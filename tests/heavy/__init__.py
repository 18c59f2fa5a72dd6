"""Long runs, each a command: `python -m tests.heavy.NAME`. `scripts/test` runs small ones."""
