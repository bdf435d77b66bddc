"""What this process may still do: the rest is given away before it reads what strangers have written."""
