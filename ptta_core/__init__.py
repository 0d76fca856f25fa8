"""Everything that would be true without Prefect: the stages, what "done" means, and the models."""
