"""The web application: Dagster's UI and a page of the fleet, behind one login."""
