"""Tests of the files in `deploy/`, the wheel and the image."""
