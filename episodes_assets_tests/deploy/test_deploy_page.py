"""docs/deploy.md says which process needs which DSN, as the code has it."""

import re

from episodes_assets.postgres.databases import FLEET, ORCHESTRATOR, WEBSERVER, Purpose
from episodes_assets.settings import PROJECT_FOLDER

PAGE = (PROJECT_FOLDER / "docs" / "deploy.md").read_text(encoding="utf-8")


def test_the_table_of_processes_names_just_the_dsns_that_each_needs() -> None:
    named = {
        row[1]: set(re.findall(r"EPISODES_\w+_DSN", row[0]))
        for row in re.finditer(
            r"^\| (code location|daemon|web server|worker|autoscaler) \|.*$", PAGE, re.MULTILINE
        )
    }
    assert named == {
        "code location": {purpose.setting for purpose in ORCHESTRATOR},
        "daemon": {Purpose.DAGSTER.setting},
        "web server": {purpose.setting for purpose in WEBSERVER},
        "worker": {purpose.setting for purpose in FLEET},
        "autoscaler": {Purpose.SCALER.setting},
    }
