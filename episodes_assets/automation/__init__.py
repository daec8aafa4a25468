"""What happens without anybody: a schedule and the sensors, over pure decision functions.

Defaults: the daily schedule is off until somebody switches it on; the sensors and the pruning of the
message log are on, and do nothing where there is nothing to do.
"""
