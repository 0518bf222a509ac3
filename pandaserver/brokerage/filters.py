"""Why a queue cannot take a job: a chain of small questions, each answered with a reason or with nothing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from pandaserver.model.grid import Queue
from pandaserver.model.job import Job


@dataclass(frozen=True)
class Refusal:
    """Why not; `passing` when waiting may help (a queue that is off now may be on tomorrow)."""

    reason: str
    passing: bool = False


Question = Callable[[Job, Queue], Refusal | None]


def not_the_chosen_one(job: Job, queue: Queue) -> Refusal | None:
    """The user named a queue."""
    if job.pinned and job.site != queue.name:
        return Refusal(f"the job asks for {job.site}")
    return None


def other_cloud(job: Job, queue: Queue) -> Refusal | None:
    """The user named a cloud."""
    if job.cloud and not job.pinned and job.cloud != queue.cloud:
        return Refusal(f"the job asks for cloud {job.cloud}, the queue is in {queue.cloud}")
    return None


def other_vo(job: Job, queue: Queue) -> Refusal | None:
    """The queue serves other experiments."""
    if queue.vos and job.vo not in queue.vos:
        return Refusal(f"VO {job.vo or '(none)'} is not served, only {', '.join(queue.vos)}")
    return None


def status_closed(job: Job, queue: Queue) -> Refusal | None:
    """The queue takes nothing, or tests only."""
    if not queue.takes_label(job.label):
        return Refusal(f"the queue is {queue.status}", passing=True)
    return None


def release_not_installed(job: Job, queue: Queue) -> Refusal | None:
    """Every line of the job's release must be installed."""
    wanted = [line.strip() for line in job.release.splitlines() if line.strip()]
    lacking = [release for release in wanted if queue.releases and release not in queue.releases]
    if lacking:
        return Refusal(f"release {', '.join(lacking)} is not installed, only {', '.join(queue.releases)}")
    return None


def platform_differs(job: Job, queue: Queue) -> Refusal | None:
    """The job's binaries need a platform."""
    if job.platform and queue.platforms and job.platform not in queue.platforms:
        return Refusal(f"platform {job.platform} is not there, only {', '.join(queue.platforms)}")
    return None


def too_little_memory(job: Job, queue: Queue) -> Refusal | None:
    """The job needs more memory than a slot has."""
    if queue.memory_mb and job.memory_mb > queue.memory_mb:
        return Refusal(f"{job.memory_mb} MB of memory asked, {queue.memory_mb} MB there")
    return None


def too_little_disk(job: Job, queue: Queue) -> Refusal | None:
    """The job needs more scratch space than a slot has."""
    if queue.max_work_dir_mb and job.disk_mb > queue.max_work_dir_mb:
        return Refusal(f"{job.disk_mb} MB of disk asked, {queue.max_work_dir_mb} MB there")
    return None


def too_few_cores(job: Job, queue: Queue) -> Refusal | None:
    """The job needs more cores than a slot has."""
    if job.cores > queue.cores:
        return Refusal(f"{job.cores} cores asked, {queue.cores} there")
    return None


def too_short(job: Job, queue: Queue) -> Refusal | None:
    """The job needs more wall time than the batch system gives."""
    if queue.max_wall_time_s and job.wall_time_s > queue.max_wall_time_s:
        return Refusal(f"{job.wall_time_s} s of wall time asked, {queue.max_wall_time_s} s there")
    return None


QUESTIONS: tuple[Question, ...] = (
    not_the_chosen_one,
    other_cloud,
    other_vo,
    release_not_installed,
    platform_differs,
    too_little_memory,
    too_little_disk,
    too_few_cores,
    too_short,
    status_closed,
)


def refusal(job: Job, queue: Queue) -> Refusal | None:
    """Ask all questions; the first refusal counts."""
    return next((r for question in QUESTIONS if (r := question(job, queue)) is not None), None)
