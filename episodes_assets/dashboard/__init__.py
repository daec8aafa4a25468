"""The web application: Dagster's UI and a page of the fleet, behind one login.

Accounts are stored by `accounts/`, jobs by `ledger/`; the parts are put together in `app` alone.
"""
