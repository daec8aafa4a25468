"""Measurements that stay in the repository; run with `make benchmark`."""
