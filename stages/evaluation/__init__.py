"""Metrics, plots, sample sheets and suspects, for people to look at."""
