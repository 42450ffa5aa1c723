"""What is live, what was, and who changed it."""
