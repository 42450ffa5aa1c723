"""The `millrace` command, the pipeline under Prefect, intake of data, and the report of a run."""
