"""Setting the databases up, and reporting their state: what administrators do, and no worker or step."""
