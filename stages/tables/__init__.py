"""Raw files become a table, a table becomes arrays."""
