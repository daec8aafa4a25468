"""Setting the databases up, and looking at how they are: what an administrator does, no worker or step."""
