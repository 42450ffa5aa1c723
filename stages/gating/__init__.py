"""What the gate judges by."""
