"""Berth beside what users would pick instead, on one machine, in one run: `make bench`."""
