"""Effects: Prefect drives the graph, and data are brought in."""
