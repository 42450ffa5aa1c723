"""The Triton side: repository layout, launcher, client, and the `millrace` command."""
