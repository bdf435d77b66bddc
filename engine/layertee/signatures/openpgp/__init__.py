"""Signatures by OpenPGP keys ("simple signing"): the machine's gpg, confined."""
