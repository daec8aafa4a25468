"""How fast a day is worked and when it will be done: pure functions of what was counted."""
