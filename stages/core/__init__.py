"""What every command leans on."""
