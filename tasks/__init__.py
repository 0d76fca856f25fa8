"""How hard Prefect tries: one line a stage, no logic."""
