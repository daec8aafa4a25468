"""Which assets plan a day."""

PLANNING = ["input_episodes", "tracked_episodes", "episode_jobs"]
