"""What clients and the queue say to each other about batches. See ``aiqueue.protocol``."""

from __future__ import annotations

import msgspec

from aiqueue.protocol import BatchSpec, JobView, Wire


class BatchCall(Wire):
    """What is asked of a batch: ``status``, ``seal``, ``drop``, ``cancel``, ``pause``, ``resume``, ``retry_failed``.

    For ``drop_run`` the id is a run's, and nothing is dropped once the batch that ``token`` names exists.
    ``touch``: the submitter is alive, though its next part takes long.
    """

    batch_id: str
    action: str = "status"
    count: int = 0  #: seal: how many jobs there must be
    token: str = ""  #: retry_failed: a name for this call, to recognise its repeat; drop_run: the batch to come


class BatchView(Wire):
    """A batch as it is on disk. Counts are of jobs."""

    spec: BatchSpec
    status: str  #: open, processing, paused, stopping, completed, failed, cancelled
    total: int
    ended: dict[str, int]  #: by terminal state; a job that was retried counts by its last end
    processing: int
    waiting: int
    created_at: float
    ended_at: float
    rate: float  #: jobs that ended per second, over the last half minute of work
    errors: dict[str, int]  #: by kind
    first_errors: list[tuple[str, str, str]]  #: job id, kind, message
    reason: str = ""  #: why it was stopped
    changed: int = 0  #: jobs the action was about


class ResultsCall(Wire):
    """A page of a batch's results. ``ordered``: by index, up to the first job that has not ended; else by end.

    It ends after ``limit`` jobs, or sooner when they have some 4 MiB.
    """

    batch_id: str
    after: int = 0  #: how many were seen
    limit: int = 500
    ordered: bool = True
    with_live: bool = False  #: ordered, and with the jobs that have not ended
    wait_s: float = 0.0  #: how long to wait for the first


class ResultsReply(Wire):
    """Jobs of one page; ``after`` is where the next one begins, ``is_last`` that nothing follows."""

    jobs: list[JobView]
    after: int
    is_last: bool


decode_batch_call = msgspec.msgpack.Decoder(BatchCall).decode
decode_batch_view = msgspec.msgpack.Decoder(BatchView).decode
decode_results_call = msgspec.msgpack.Decoder(ResultsCall).decode
decode_results_reply = msgspec.msgpack.Decoder(ResultsReply).decode
