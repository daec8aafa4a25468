"""The process that processes of tests are forked from.

It has imported everything and, unlike a test's own, has no threads and no connections.
"""

import multiprocessing

FORK_SERVER = multiprocessing.get_context("forkserver")
FORK_SERVER.set_forkserver_preload(["episodes_assets_tests.support.preloaded"])
