"""Bytes reach a disk whole or not at all: part files, locks, free space, foreign trees, who may write."""
