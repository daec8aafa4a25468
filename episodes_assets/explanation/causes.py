"""Each way in which a row of the results can be there or not be there: how it is told, and what can be done.

`Cause` is the list, from which the table in `docs/explain.md` is made. Which of them the records show is
concluded in `diagnosis`; what is on record beside the cause is put into words by `facts`.
"""

from dataclasses import dataclass
from enum import Enum

from episodes_assets.days import FIRST_DAY
from episodes_assets.explanation.records import LOOKED_BACK_DAYS

_REPAIR = "stop what writes there, then run `episodes run {day} --repair --reason WHY`"
_STATUS = "see `episodes jobs status {day}`"


@dataclass(frozen=True)
class _CauseText:
    """What is said of a cause; see `Cause`."""

    label: str
    is_there: bool
    when: str
    answer: str
    hint: str = ""


class Cause(Enum):
    """Why a row is there, or is not."""

    @property
    def label(self) -> str:
        """In a few words."""
        return self.value.label

    @property
    def is_there(self) -> bool:
        """Whether the results have the row."""
        return self.value.is_there

    @property
    def when(self) -> str:
        """How it is told from the others."""
        return self.value.when

    @property
    def answer(self) -> str:
        """What is said; names in braces stand for what is on record."""
        return self.value.answer

    @property
    def hint(self) -> str:
        """What can be done; empty where there is nothing to do."""
        return self.value.hint

    # The row is there.
    PUBLISHED = _CauseText(
        label="published",
        is_there=True,
        when="the results have the row, and it is of the day's current plan",
        answer="it is in the results, published {published}",
    )
    PUBLISHED_FROM_OLDER_PLAN = _CauseText(
        label="published from a plan that was replaced",
        is_there=True,
        when=(
            "the results have the row; the plan it came from was superseded, and the new one is not "
            "published yet"
        ),
        answer=(
            "it is in the results, published {published} from plan {published_plan}, which was replaced "
            "since; the new plan {plan} is not published yet"
        ),
        hint=f"{_STATUS}; the row stays as it is until the new plan is published",
    )
    PUBLISHED_FROM_UNKNOWN_PLAN = _CauseText(
        label="published from a plan that is not known any more",
        is_there=True,
        when=(
            "the results have the row, and the ledger does not know the plan: it was emptied, or restored "
            "to an earlier moment"
        ),
        answer=(
            "it is in the results, published {published}; plan {published_plan}, which it came from, is not"
            " known any more"
        ),
        hint="see `episodes db status`",
    )
    WRITTEN_BY_SOMETHING_ELSE = _CauseText(
        label="there, and not published",
        is_there=True,
        when="the results have the row, and the day has no manifest, or its plan no such job",
        answer=(
            "it is in the results, and nothing here published it: something else writes to the schema "
            "`published`"
        ),
        hint=_REPAIR,
    )
    # The day.
    BEFORE_FIRST_DAY = _CauseText(
        label="before the first day",
        is_there=False,
        when=f"the day lies before {FIRST_DAY}",
        answer=f"the first day is {FIRST_DAY}",
    )
    DAY_NOT_OVER = _CauseText(
        label="the day is not over",
        is_there=False,
        when="the day is today or later (UTC)",
        answer="{day} is not over yet",
        hint="it can be run from 00:00 UTC of the next day on",
    )
    BEFORE_HISTORY = _CauseText(
        label="before the tracked history",
        is_there=False,
        when="the tracked history begins later, or with a state that was imported as of that day",
        answer="the tracked history begins {first}",
    )
    DAY_NOT_TAKEN = _CauseText(
        label="the day was not run",
        is_there=False,
        when="neither the lake nor the ledger has anything of the day",
        answer="{day} was not run: the lake has no drop of it",
        hint="run `episodes run {day}`",
    )
    DROP_REFUSED = _CauseText(
        label="the day's drop was refused",
        is_there=False,
        when="the day has no plan, and more of its drop is quarantined than EPISODES_QUARANTINE_LIMIT allows",
        answer="{quarantined} rows of the day's drop were refused, so nothing is planned from it",
        hint="have it corrected at its source and run `episodes run {day} --refresh --reason WHY`",
    )
    DAY_NOT_PLANNED = _CauseText(
        label="the day is not planned",
        is_there=False,
        when="the lake has the day's drop, and the ledger no plan",
        answer="{day} is not planned: its drop is in the lake, and that is as far as it got",
        hint="run `episodes run {day}`",
    )
    # The catalogue.
    NEVER_SEEN = _CauseText(
        label="no record names the episode",
        is_there=False,
        when=(
            f"neither the day's drop nor those of the {LOOKED_BACK_DAYS} days before have it, and it was "
            "never tracked"
        ),
        answer=(
            "no record names the episode: it is neither in the day's drop nor in those of the "
            f"{LOOKED_BACK_DAYS} days before, and was never tracked{{more}}"
        ),
        hint="see that the id is the right one",
    )
    NOT_IN_DROP = _CauseText(
        label="not in the day's drop",
        is_there=False,
        when="the day's drop lacks the episode, which an earlier drop had or which is tracked",
        answer="the day's drop does not have the episode{seen}{more}",
        hint="ask whoever fills the catalogue; `episodes correct {day} --reason WHY` takes the drop again",
    )
    NOT_ASKED_FOR = _CauseText(
        label="the catalogue does not ask for it",
        is_there=False,
        when="the day's drop has the episode, for other algorithms only",
        answer="the day's drop has the episode and does not ask for {algorithm}{more}",
    )
    QUARANTINED = _CauseText(
        label="refused by validation",
        is_there=False,
        when="no row of the episode and algorithm was accepted, and one was quarantined",
        answer="validation refused its row: {rules}",
        hint="have it corrected at its source, then run `episodes correct {day} --reason WHY`",
    )
    # Due or not.
    WINDOW_NOT_BEGUN = _CauseText(
        label="its window has not begun",
        is_there=False,
        when=(
            "the window's first date lies after the day: the premiere where `reach` catches up an episode "
            "that was not tracked, else the start date"
        ),
        answer="its window begins on {window_start}, after the day",
    )
    NOT_VIEWED = _CauseText(
        label="not viewed on the day",
        is_there=False,
        when="the window has begun, nobody viewed the episode on the day, and it is not newly tracked",
        answer="it was not due: nobody viewed the episode on the day, and it is not newly tracked",
    )
    VIEWED_LATE = _CauseText(
        label="viewed on the day, and known too late",
        is_there=False,
        when=(
            "by the viewings that the plan names it is not viewed on the day, and those of the lake's newest "
            "version have it"
        ),
        answer="it was not due when the day was planned: the lake has got {late} of it on the day since then",
        hint=(
            "nothing published changes by itself; run `episodes run {day} --rework` when the difference "
            "matters, which plans the day anew from all that the lake has"
        ),
    )
    RECORDS_CHANGED = _CauseText(
        label="planned from other records",
        is_there=False,
        when=(
            "what is on record now makes it due, and the plan has no such job: it was made from other "
            "tracked episodes"
        ),
        answer="by what is on record now it is due; the plan was made when other episodes were tracked",
        hint="run `episodes run {day}`, which plans the day anew",
    )
    ALGORITHM_REMOVED = _CauseText(
        label="its algorithm was removed",
        is_there=False,
        when=(
            "what the plan was made from makes it due, for an algorithm that this release does not know: a "
            "plan that is made anew leaves such jobs out"
        ),
        answer="the day was planned without it: this release knows no algorithm {algorithm}",
    )
    JOB_MISSING = _CauseText(
        label="due, and not in the plan",
        is_there=False,
        when="what the plan was made from makes it due, and the plan has no such job",
        answer="it is due, and the plan has no such job: something else writes to the schema `ledger`",
        hint=_REPAIR,
    )
    INPUTS_UNKNOWN = _CauseText(
        label="not in the plan, and why is not known any more",
        is_there=False,
        when=(
            "the plan has no such job, and the drop or the viewings that it was made from are gone, or "
            "cannot be read"
        ),
        answer="the plan has no such job, and why is not known any more: {unknown}",
        hint="restore the lake from a backup; `episodes lake verify` names what is gone",
    )
    # The job.
    NOT_HANDED_OUT = _CauseText(
        label="its job is not handed out",
        is_there=False,
        when="the job is planned, and the plan is not with the fleet yet",
        answer="its job is planned, and not handed to the fleet yet",
        hint="switch the sensor `fan_out` on, or run `episodes run {day}`",
    )
    WAITING = _CauseText(
        label="its job waits",
        is_there=False,
        when="the job waits for a worker",
        answer="its job waits for a worker",
        hint=_STATUS,
    )
    RETRYING = _CauseText(
        label="its job failed and is tried again",
        is_there=False,
        when="the job waits for a worker, and its last start failed",
        answer="its job failed and is started again: {error}",
        hint=_STATUS,
    )
    RUNNING = _CauseText(
        label="its job is with a worker",
        is_there=False,
        when="a worker has claimed the job's chunk",
        answer="its job is with worker {worker} since {claimed}",
        hint=_STATUS,
    )
    HELD = _CauseText(
        label="its job failed",
        is_there=False,
        when="the job is held: its last attempt failed",
        answer="its job failed for the last time: {error}",
        hint=(
            "fix the cause, then run `episodes jobs retry {day}`; or `episodes jobs waive {day} --reason "
            "WHY` publishes the day without it"
        ),
    )
    CANCELLED = _CauseText(
        label="its job was cancelled",
        is_there=False,
        when="the job is held, because somebody cancelled the day",
        answer="the work of the day was {error}",
        hint="run `episodes jobs retry {day}` to go on with it",
    )
    WAIVED = _CauseText(
        label="left out by decision",
        is_there=False,
        when="the job is held, and a recorded decision lets the day be published without it",
        answer="its job failed, and the day is published without it: {decision}",
        hint="run `episodes jobs retry {day}` to have it after all",
    )
    PLAN_BEFORE_LAKE = _CauseText(
        label="its plan is of a release before the lake",
        is_there=False,
        when="the job is open, and its plan names no version of the lake: workers leave it alone",
        answer="its plan is of a release before the lake, whose jobs are not worked any more",
        hint="run `episodes run {day}`, which plans the day anew from the lake",
    )
    VIEWINGS_GONE = _CauseText(
        label="the viewings it is to be computed from are gone",
        is_there=False,
        when=(
            "the job is open, and the lake lacks what its plan names, or has something else there: the "
            "fleet waits"
        ),
        answer="its job cannot be computed: {unknown}",
        hint=(
            "restore the lake from a backup, or let EPISODES_LAKE_URL name the right one; `episodes run "
            "{day} --rework` plans the day anew from what the lake has now"
        ),
    )
    NOT_PUBLISHED_YET = _CauseText(
        label="computed, and not published yet",
        is_there=False,
        when="the job has an outcome, and its plan is not published",
        answer="it is computed, and the day is not published yet{left}",
        hint=(
            f"{_STATUS}; once all jobs are done the day is published by itself, or by `episodes run {{day}}`"
        ),
    )
    PUBLISHED_WITHOUT = _CauseText(
        label="published without it, computed since",
        is_there=False,
        when="the job was left out when its plan was published, and has an outcome by now",
        answer="the day was published without it ({published_decision}), and it is computed since",
        hint="the day is published again by itself, or by `episodes run {day}`",
    )
    ROW_MISSING = _CauseText(
        label="published, and gone",
        is_there=False,
        when="the job has an outcome, its plan is published, and the results lack the row",
        answer=(
            "its plan was published with it, and the results do not have the row: something else writes to "
            "the schema `published`"
        ),
        hint=_REPAIR,
    )
