"""What this machine has, as a registry that is only read: the distribution API over the store and places."""
