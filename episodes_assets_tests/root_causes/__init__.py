"""What ends a command or a run is said by its innermost cause, each kind brought about for real."""
