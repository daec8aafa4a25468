"""The foreseen errors: each says what happened, and gives a hint what to do.

A command prints such an error as one line; an asset turns it into a failed step. For any other exception
`failures.py` looks up the root cause; one without a known root cause is a defect.
"""

from typing import Self


class EpisodesError(Exception):
    """A foreseen failure.

    Args:
        what: What happened, as a clause without a full stop.
        hint: What the reader can do about it, as a clause without a full stop.
    """

    def __init__(self, what: str, hint: str = "") -> None:
        self.what = what
        self.hint = hint
        super().__init__(f"{what}: {hint}" if hint else what)

    def __reduce__(self) -> tuple[type[Self], tuple[str, str]]:
        """From one process to another, both parts."""
        return type(self), (self.what, self.hint)


class BadDay(EpisodesError):
    """A day that is misspelt, before the first one, or not over yet."""


class BadQuestion(EpisodesError):
    """What is asked about is no episode's id, or no algorithm."""


class BadSetting(EpisodesError):
    """A setting that is missing or cannot be understood."""


class BadRunConfig(EpisodesError):
    """The configuration of a run has a value out of its bounds."""


class SystemFailure(EpisodesError):
    """A machine or a server fails or refuses; no day, file or job is to blame."""


class HostUnreachable(SystemFailure):
    """A host is not known or does not answer."""


class DatabaseUnreachable(HostUnreachable):
    """No connection to a database could be made, or it was lost."""


class TooManyConnections(DatabaseUnreachable):
    """A database has no connection left for us."""


class DiskFull(SystemFailure):
    """A disk, here or of a database server, has no space left."""


class OutOfMemory(SystemFailure):
    """This process or a database server got no more memory."""


class LimitReached(SystemFailure):
    """A limit other than memory, disk and connections, such as that of open files."""


class AccessDenied(SystemFailure):
    """This user or this role may not do what is asked."""


class ReadOnly(SystemFailure):
    """A database or a file system takes no changes."""


class Damaged(SystemFailure):
    """A disk or a database cannot be read or written any more."""


class TimedOut(SystemFailure):
    """Something took longer than it may."""


class LockHeld(TimedOut):
    """A lock in a database was not acquired in time."""


class Conflict(SystemFailure):
    """Two transactions were in a deadlock, or one could not be serialised; one was ended."""


class FileMissing(SystemFailure):
    """A file or folder is not there."""


class NotProvisioned(EpisodesError):
    """A database lacks the schema or the stamp that `episodes db init` gives it."""


class WrongEnvironment(EpisodesError):
    """A database or lake is stamped with another environment than this process belongs to."""


class SchemaTooNew(EpisodesError):
    """A database's schema is of a newer release, beside which this process may not go on."""


class SchemaTooOld(EpisodesError):
    """A database's schema is of an older release than this process."""


class ViewInUse(EpisodesError):
    """A consumers' view has to get other columns, and something that others have made depends on it."""


class OlderReleaseLives(EpisodesError):
    """A process of an older release lives that needs what is to be removed."""


class CannotDrain(EpisodesError):
    """Dagster's queue cannot be held, so a code location cannot be drained."""


class DrainEnded(EpisodesError):
    """A drain that somebody waits for was ended by somebody else."""


class DrainTimedOut(EpisodesError):
    """Runs of a code location have not ended in the time that they were given."""


class UnknownCodeLocation(EpisodesError):
    """A code location of which Dagster has no record."""


class HostNotAllowed(EpisodesError):
    """A process outside production is pointed at a host that nobody has opened to it."""


class InputWritable(EpisodesError):
    """The role that reads the input could write to it."""


class RoleCanWrite(EpisodesError):
    """A role that a lab is taken through could write to its source."""


class StatementFailed(SystemFailure):
    """A database ended a statement half-way, because of a row or a function of a view of its own."""


class InputUnreadable(SystemFailure):
    """The input lacks a table or a column, or has one of a type that cannot be read exactly."""


class InputUnwritable(EpisodesError):
    """The input's tables cannot hold what is to be loaded as it is."""


class ViewingUnreadable(EpisodesError):
    """A viewing holds a value whose meaning is unknown."""


class DropNotArrived(EpisodesError):
    """The day's drop is not in the input database yet; trying later may succeed."""


class DropGone(EpisodesError):
    """The day's drop was in the input database when the lake took it, and is not there any more."""


class DropMissing(EpisodesError):
    """The lake has no drop of the day to work from."""


class SnapshotDamaged(EpisodesError):
    """A file of a snapshot that an older release has left is not the one its manifest describes."""


class NotBroughtIn(EpisodesError):
    """Snapshots that an older release has left are not in the lake yet."""


class LakeDamaged(SystemFailure):
    """A file of the lake is gone, or is not the one that was written."""


class LakeMissing(SystemFailure):
    """The lake lacks a version or a day that something was made from."""


class LakeReplaced(LakeMissing):
    """The lake has a version of the number that something was made from, and it is of another lake."""


class ViewingsGone(EpisodesError):
    """A published day cannot be computed again, since viewings that it was computed from are gone."""


class ViewingsLost(EpisodesError):
    """The input lacks viewings of a day that is to be taken again, and nobody has accepted that."""


class LakeMismatch(EpisodesError):
    """What is to be taken into the lake does not fit what it holds."""


class LakeOvertaken(SystemFailure):
    """Others keep writing to the lake at the same time."""


class CheckFailed(EpisodesError):
    """A day's data may not be built on."""


class StateGap(EpisodesError):
    """The accumulated state has no valid yesterday to build on."""


class LedgerBehind(EpisodesError):
    """The ledger is older than what was published from it."""


class DatabasesDisagree(EpisodesError):
    """The databases and the lake contradict each other."""


class DayNotPlanned(EpisodesError):
    """The day has no ledger of jobs."""


class PlanOvertaken(EpisodesError):
    """Another run has changed what a day's plan was made from, or has replaced the plan."""


class JobsHeld(EpisodesError):
    """Jobs of the day failed for the last time and are held."""


class NothingToWaive(EpisodesError):
    """The day has no held jobs that a decision could leave out."""


class NothingToCancel(EpisodesError):
    """The day has no unfinished jobs."""


class JobNotHeld(EpisodesError):
    """The job to retry is not there, or not held."""


class ReasonMissing(EpisodesError):
    """A decision without a reason, or without the name of who made it."""


class FleetStalled(EpisodesError):
    """No job was finished for too long."""


class ManifestDamaged(EpisodesError):
    """Something else has changed what the manifest of a published day says."""


class PlanDamaged(EpisodesError):
    """Something else has changed what the ledger says of a day's plan."""


class OutcomesChanged(EpisodesError):
    """A plan's outcomes are not those that it was published with, although they are written once."""


class DayIncomplete(EpisodesError):
    """The day cannot be published: some of its jobs have no outcome."""


class BadFile(EpisodesError):
    """A file given by the user cannot be loaded."""


class NotPublished(EpisodesError):
    """The day has no published results."""


class RunFailed(EpisodesError):
    """A Dagster run failed; the message is that of the step that failed first."""


class LockTimeout(EpisodesError):
    """Another process held a lock for too long."""


class AlreadyRunning(EpisodesError):
    """Another process runs the system in this home."""


class ProcessFailed(EpisodesError):
    """A process of the system could not be started or ended by itself."""


class ProfilerUnavailable(EpisodesError):
    """A process cannot be profiled, or not as it is asked."""


class ProfileMissing(EpisodesError):
    """There is no such profile, or it is not finished."""


class BadAccount(EpisodesError):
    """A name or a password that no account can have."""


class AccountExists(EpisodesError):
    """The name of a user or a service token is taken."""


class NoSuchAccount(EpisodesError):
    """There is no user or no service token of that name."""


class LastOperator(EpisodesError):
    """The change would leave nobody who may change anything in the dashboard with a password."""


class BadLab(EpisodesError):
    """A lab's name, days, sample or folder is invalid."""


class BundleDamaged(EpisodesError):
    """A file of a bundle is gone, or is not the one that was written."""


class BundleIncomplete(EpisodesError):
    """A bundle whose taking was interrupted."""


class TooManyRows(EpisodesError):
    """A bundle would have more rows than it may have."""


class NoSuchLab(EpisodesError):
    """There is no lab of that name."""


class LabExists(EpisodesError):
    """The name of a lab is taken."""


class LabInUse(EpisodesError):
    """Processes work in the lab."""


class LabDiffers(EpisodesError):
    """A lab is not what was taken from its source."""


class SourceDisagrees(EpisodesError):
    """A day of the source cannot be taken: its records contradict each other, or it is being changed."""


class AlertNotDelivered(EpisodesError):
    """A message about an alert could not be delivered, and is tried again."""
