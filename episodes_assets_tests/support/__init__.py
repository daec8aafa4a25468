"""What tests of several folders use: whole systems, servers, plans, days and workers; no tests."""
