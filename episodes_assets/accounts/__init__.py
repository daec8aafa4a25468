"""Who may use the dashboard: users, sessions, service tokens, throttling of logins, the audit log."""
