"""The server: its configuration, how it starts, and what it is sent."""
