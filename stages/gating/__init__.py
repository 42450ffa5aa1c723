"""The gate: evidence, criteria, controls and the verdict."""
