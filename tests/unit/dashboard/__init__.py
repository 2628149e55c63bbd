"""The picture of the dashboard: its own parts."""
