"""The web application: Dagster's UI and our pages (fleet, results, explain, profiles), behind one login.

Accounts are stored by `accounts/`, jobs by `ledger/`; the parts are put together in `app` alone.
"""
