"""Every statement on the queue's schema `ledger` and on PgQueuer's messages, whoever makes it.

The ledger knows each job, who claims it and how often it was started; PgQueuer carries messages, each of
which names a chunk of the ledger's jobs. Workers, steps, commands and the dashboard all go through here;
how a job is computed is in `worker/`.
"""
