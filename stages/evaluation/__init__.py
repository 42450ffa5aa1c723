"""What evaluate shows to people."""
