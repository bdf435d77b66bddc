"""Whether an image is signed as this machine wants it: signatures are found, and verified here."""
