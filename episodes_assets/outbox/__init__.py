"""Messages about alerts: what is on record of them, and how they reach people.

Every statement on schema `alerts` of the database `queue` is here. Which alerts are open, and what is to be
told, is `alerts/`.
"""
