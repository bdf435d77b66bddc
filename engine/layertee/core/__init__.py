"""The C core and its twin in Python: the tee, the pool of workers, what they measure."""
