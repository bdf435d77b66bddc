"""Decide and do: resolve an image, survey the machine, plan, bring layers in, verify."""
