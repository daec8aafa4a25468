"""What others own of the graph: the input's tables, where it begins, and consumers' views, where it ends.

They are external assets: Dagster shows them with what is made from them, and no run, backfill or automation
materialises them. They have no partitions, since nothing here says which days of them are there.
"""

from collections.abc import Iterator

import dagster as dg

from episodes_assets.algorithms.registry import get_registry
from episodes_assets.defs import steps, tables
from episodes_assets.postgres.databases import Database

SOURCE_SYSTEMS = ["team:source-systems"]

EPISODES = dg.AssetKey([Database.INPUT.value, "episodes"])
VIEWINGS = dg.AssetKey([Database.INPUT.value, "viewings"])
PUBLISHED = "published"


_NOT_OURS = (
    "Other teams write it and delete from it; here it is only read. Its columns may be of other types than "
    "ours: docs/bad-input.md says which are read, and how."
)


def _of_the_input(key: dg.AssetKey, description: str) -> dg.AssetSpec:
    return dg.AssetSpec(
        key,
        description=f"{description} {_NOT_OURS}",
        group_name="source",
        kinds={"postgres", "table"},
        owners=SOURCE_SYSTEMS,
        metadata={"dagster/table_name": ".".join(key.path)},
    )


INPUT_TABLES = (
    _of_the_input(
        EPISODES,
        "The catalogue's daily drops: a row for each episode and analysis that is asked for. "
        "`input_episodes` takes each drop once; if one was wrong, have it corrected here and launch "
        "`correct_day`.",
    ),
    _of_the_input(
        VIEWINGS,
        "Every viewing of an episode. `input_viewings` takes those of each UTC date once, and looks again "
        "for late ones.",
    ),
)


def consumers_views() -> Iterator[dg.AssetSpec]:
    """The view of each algorithm, from the declaration in its module's text; no module is imported.

    An algorithm with an invalid declaration is left out, since the columns of its view are not known.
    """
    for algorithm in get_registry().by_id.values():
        yield dg.AssetSpec(
            [PUBLISHED, algorithm.name],
            deps=["published_results"],
            description=f"{algorithm.description} What consumers read of algorithm {algorithm.algorithm_id}: "
            "a view on published.results, so it shows a day as soon as that is published. "
            "`episodes db init` makes it.",
            group_name="consumers",
            kinds={"postgres", "view"},
            owners=steps.TEAM,
            metadata={**tables.view_of(algorithm).metadata, "algorithm version": algorithm.version},
        )
