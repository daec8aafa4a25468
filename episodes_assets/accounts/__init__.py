"""Who may use the dashboard: users, sessions, service tokens, throttling of logins, the audit log.

Every statement on schema `dashboard` is here; nothing here knows HTTP.
"""
