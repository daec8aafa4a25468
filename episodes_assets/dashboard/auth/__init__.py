"""Who may do what in the dashboard: logging in, the auth gate, what is recorded of a change.

Accounts and sessions are stored by `accounts/`; what a page shows is not decided here.
"""
