"""Whether the ledger has the plan that a day was published from, and has it as it was then.

The jobs, the outcomes and the version of the viewings of a plan never change, and no role of ours can change
what the history of publications says. So a plan that is gone, that is older, or that says something else than
the history was deleted, restored or changed by something else. It is not published from. A day whose plan is
gone is planned from the version that was published, and a repair puts the rest back as well. Whether a plan
agrees with its own jobs and outcomes is `ledger/verify.py`.
"""

import datetime as dt
from dataclasses import dataclass

from episodes_assets.errors import LakeMissing, LedgerBehind, PlanDamaged
from episodes_assets.lake.versions import PinnedVersion
from episodes_assets.lake.viewings import Viewings
from episodes_assets.ledger.held import read_left_out
from episodes_assets.ledger.plans import Plan, find_plan
from episodes_assets.ledger.verify import describe_damage, stream_outcomes
from episodes_assets.postgres.connect import Connection, one_snapshot
from episodes_assets.results.publications import PublishedDay, find_last_publication
from episodes_assets.results.repairs import repair_command


@dataclass(frozen=True)
class Provenance:
    """A day's current plan, beside what was published of the day.

    Attributes:
        plan: The plan; None when the ledger has none.
        published: The last publication, by the history; None when there is none.
    """

    plan: Plan | None
    published: PublishedDay | None

    @property
    def is_from_plan(self) -> bool:
        """Whether the day was published from this plan."""
        if self.published is None or self.plan is None:
            return False
        if self.published.plan_uid is None:  # of a release that did not record it
            by_number = (self.published.plan_id, self.published.plan_checksum)
            return by_number == (self.plan.plan_id, self.plan.checksum)
        return self.published.plan_uid == self.plan.plan_uid

    @property
    def is_plan_lost(self) -> bool:
        """Whether the ledger has neither the plan that was published nor a later one."""
        if self.published is None:
            return False
        return self.plan is None or self.plan.plan_id < self.published.plan_id

    @property
    def is_repinned(self) -> bool:
        """Whether the plan names another version of the viewings than when it was published."""
        if self.plan is None or self.published is None or not self.is_from_plan:
            return False
        named = (self.plan.viewings_version, self.plan.viewings_digest)
        was = (self.published.viewings_version, self.published.viewings_digest)
        return self.published.viewings_version is not None and named != was

    def pinned_as_published(self, snapshot_id: str) -> PinnedVersion | None:
        """The version that the published plan names, or named; None where there is none to go by.

        Args:
            snapshot_id: The day's drop: one that was taken since may give other jobs.
        """
        published = self.published
        if published is None or published.viewings_version is None or published.snapshot_id != snapshot_id:
            return None
        if not (self.is_from_plan or self.is_plan_lost):
            return None
        return PinnedVersion(published.viewings_version, published.viewings_digest)

    def is_same_publication(self, left_out: int, decision: str, code_version: str) -> bool:
        """Whether the day was published from this plan, without the same jobs, by the same code.

        Then its rows are the same: a plan's outcomes are written once.
        """
        return (
            self.published is not None
            and self.is_from_plan
            and (self.published.left_out, self.published.decision, self.published.code_version)
            == (left_out, decision, code_version)
        )

    def require_pinned(self) -> None:
        """Refuse a plan whose version of the viewings was changed since it was published.

        Raises:
            PlanDamaged: If it was.
        """
        if self.is_repinned and self.plan and self.published:
            raise PlanDamaged(
                f"the plan of {self.plan.day} names version {self.plan.viewings_version} of the viewings, and"
                f" was published from version {self.published.viewings_version}: something else writes to"
                " the schema `ledger`",
                f"stop it, then run `{repair_command(self.plan.day, self.plan.day)}`",
            )

    def require_publishable(self, viewings: Viewings, left_out: int) -> None:
        """Refuse a plan that is older than what was published, or names viewings that it is not of.

        A ledger that was restored to an earlier moment has older plans. Outcomes are only added to a plan, so
        it never leaves out more than when it was published.

        Args:
            viewings: The lake's.
            left_out: How many of the plan's jobs are left out by decision.

        Raises:
            LedgerBehind: If it is an earlier plan, or lacks outcomes that were published.
            PlanDamaged: If it names another version of the viewings than when it was published, or one that
                the lake does not have.
            SystemFailure: If the lake cannot be reached.
        """
        self._require_not_older(left_out)
        self.require_pinned()
        if self.plan and not self.is_from_plan:
            _require_in_lake(self.plan, viewings)

    def _require_not_older(self, left_out: int) -> None:
        plan, published = self.plan, self.published
        if plan is None or published is None:
            return
        hint = (
            f"see `episodes db status`; `{repair_command(plan.day, plan.day)}` works the day again from what"
            " was published"
        )
        if self.is_plan_lost:
            raise LedgerBehind(
                f"{plan.day} was published from plan {published.plan_id}, and the ledger only knows it up to"
                f" plan {plan.plan_id}: `queue` was restored to an earlier moment",
                hint,
            )
        if self._lacks_outcomes(left_out):
            raise LedgerBehind(
                f"{plan.day} was published without {published.left_out:,} jobs of its plan, and now"
                f" {left_out:,} are left out: `queue` was restored to an earlier moment",
                hint,
            )

    def _lacks_outcomes(self, left_out: int) -> bool:
        return self.published is not None and self.is_from_plan and left_out > self.published.left_out

    def describe_damage(self, queue: Connection, dsn: str, code_version: str) -> str:
        """What of the day's plan something else has changed; empty when nothing.

        Args:
            queue: To `queue`, in no transaction.
            dsn: The same database.
            code_version: Of the publishing code: another one may write the same outcomes otherwise.

        Raises:
            PlanOvertaken: If it was replaced meanwhile.
        """
        if self.is_plan_lost:
            return "plan"
        if self.plan is None:
            return ""
        if self.is_repinned:
            return "version of the viewings"
        found = describe_damage(queue, dsn, self.plan)
        return found or ("outcomes" if self.has_other_outcomes(queue, code_version) else "")

    def has_other_outcomes(self, queue: Connection, code_version: str) -> bool:
        """Whether the plan has other outcomes than those that it was published with, or fewer."""
        if self.plan is None or self.published is None:
            return False
        with one_snapshot(queue):
            left_out, decision = read_left_out(queue, self.plan.plan_id)
            if self._lacks_outcomes(left_out):
                return True
            if not self.is_same_publication(left_out, decision, code_version):
                return False
            _, checksum = stream_outcomes(queue, self.plan, lambda _: None)
        return self.published.checksum != checksum


def read_provenance(queue: Connection, results: Connection, day: dt.date) -> Provenance:
    """A day's plan beside its last publication, each as it is at this moment."""
    return Provenance(find_plan(queue, day), find_last_publication(results, day))


def _require_in_lake(plan: Plan, viewings: Viewings) -> None:
    """Refuse a plan that names a version of the viewings which the lake does not have.

    Workers compare it before they compute anything, so it has changed since; a publication would keep it for
    ever. A plan of a release that recorded no digest says too little to be compared.
    """
    if plan.viewings_version is None or plan.viewings_digest is None:
        return
    try:
        viewings.at(plan.viewings_version, plan.viewings_digest, f"the plan of {plan.day}")
    except LakeMissing as error:
        raise PlanDamaged(
            f"{plan.day} is not published with a version of the viewings that is not there: {error.what}",
            "let EPISODES_LAKE_URL name the lake that the day was worked from; if it does, something else has"
            f" changed the plan in `queue`: stop it, then run `episodes run {plan.day} --rework`",
        ) from error
