"""Measurements, and the demo that shows the main job."""
