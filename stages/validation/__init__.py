"""What validate looks for in a table, and how it reports it."""
