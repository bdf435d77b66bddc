"""Stand-ins with scripted behaviour."""
