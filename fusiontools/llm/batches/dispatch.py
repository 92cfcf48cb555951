"""Jobs on their way: calls out, in jobs as large as a provider takes them, and what came of them in.

Nothing is bought twice: a job is noted before it leaves, one whose fate nobody noted is looked for at its provider
before anything is sent again, and of a job that has ended every answer is kept, whatever kind of end it was.
"""

from __future__ import annotations

import asyncio
import tempfile
import time
import uuid
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

from msgspec import Struct

from fusiontools.config.models import BatchTerms, Endpoint
from fusiontools.errors import CallFailed
from fusiontools.llm.batches.batch_api import (
    CANCELLED,
    COMPLETED,
    EXPIRED,
    REFUSED,
    BatchApi,
    LineAnswer,
    LineFault,
    Standing,
    unmade,
)
from fusiontools.llm.batches.job_file import BatchJob, JobFile, NewCall
from fusiontools.llm.batches.job_store import JobStore
from fusiontools.record import jsonl

_AT_ONCE = 500
_INSTEAD = "; `batch: {api: none}` under that endpoint has its calls made at once"
#: What a job is told that is longer than may wait in a provider's queue.
_QUEUE_CODES = ("token_limit_exceeded",)
#: How long a provider may not know a job until it is given up, in looks at it; it may only be forgetful.
_LOOKS_IN_VAIN = 10
#: How long a cancelled job may take to end.
_CANCELLING_S = 900.0


class SpooledCall(Struct, frozen=True):
    """A call that waits to be put into a job, as a line of it."""

    key: bytes
    sent: bytes
    bound_usd: float
    tokens: int
    line: bytes


class Spool:
    """The calls of a round, on disk until they are sent: there may be a million of them."""

    def __init__(self) -> None:
        self._files: dict[tuple[str, str], IO[bytes]] = {}
        self._keys: set[bytes] = set()

    def __len__(self) -> int:
        return len(self._keys)

    def __contains__(self, key: bytes) -> bool:
        return key in self._keys

    def add(self, endpoint: str, model: str, call: SpooledCall) -> None:
        """Add a call."""
        if (endpoint, model) not in self._files:
            self._files[endpoint, model] = tempfile.TemporaryFile(prefix="fusiontools-batch-")  # noqa: SIM115
        head = jsonl.dumps([call.key.hex(), call.sent.hex(), call.bound_usd, call.tokens])
        self._files[endpoint, model].write(b"%b\t%b\n" % (head, call.line))
        self._keys.add(call.key)

    def groups(self) -> Iterator[tuple[str, str, Iterator[SpooledCall]]]:
        """Yield the endpoint, the model and the calls of each job or more."""
        for (endpoint, model), file in self._files.items():
            file.seek(0)
            yield endpoint, model, map(_spooled, file)

    def close(self) -> None:
        """Forget all of it."""
        for file in self._files.values():
            file.close()


def api_of(endpoint: Endpoint) -> BatchApi:
    """Return the batch API of an endpoint that has one."""
    terms = endpoint.batch_terms
    assert terms is not None  # noqa: S101 - who has none is not asked
    if terms.api == "anthropic":
        from fusiontools.llm.batches.anthropic_jobs import AnthropicJobs

        return AnthropicJobs(endpoint, terms)
    if terms.api == "gemini":
        from fusiontools.llm.batches.gemini_jobs import GeminiJobs

        return GeminiJobs(endpoint, terms)
    from fusiontools.llm.batches import openai_jobs

    kinds = {"openrouter": openai_jobs.OpenRouterJobs, "mistral": openai_jobs.MistralJobs}
    return kinds.get(terms.api or "", openai_jobs.OpenAIJobs)(endpoint, terms)


def _spooled(row: bytes) -> SpooledCall:
    head, _, line = row.partition(b"\t")
    key, sent, bound_usd, tokens = jsonl.loads(head)
    return SpooledCall(bytes.fromhex(key), bytes.fromhex(sent), bound_usd, tokens, line)


class _Ahead:
    """Calls of which the next one can be seen."""

    def __init__(self, calls: Iterable[SpooledCall]) -> None:
        self._left = iter(calls)
        self.next = next(self._left, None)

    def step(self) -> None:
        self.next = next(self._left, None)

    def count(self) -> int:
        return (self.next is not None) + sum(1 for _ in self._left)


class Dispatch(Struct):
    """The way of jobs to their providers and back.

    Args:
        endpoints: by name.
        say: tells a person what goes on.
        reserve: sets aside what a job may cost before it is sent, and takes it back where it is not taken.
    """

    store: JobStore
    endpoints: Mapping[str, Endpoint]
    say: Callable[[str], None]
    reserve: Callable[[float], Awaitable[None]]
    _apis: dict[str, BatchApi] = {}
    #: The jobs of which it has been said that their provider is silent.
    _silent: set[str] = set()

    async def recover(self) -> None:
        """Find out what became of jobs that a process left while it sent them.

        Raises:
            CallFailed: a provider cannot be asked; nothing is sent again before it can.
        """
        for job in self.store.jobs("made", "creating"):
            endpoint = self._endpoint_of(job)
            if endpoint is None:
                continue  # another recipe's
            if job.state == "creating" and (found := await self._find(job, _terms(endpoint))) is not None:
                remote, guessed = found
                await self.store.write(JobFile.set_job, job, state="open", remote=remote, guessed=guessed)
                self.say(f"a job at {job.endpoint} that was left behind is found: {remote}, {job.calls:,} calls")
            else:
                await self.store.write(JobFile.drop, job)  # what another run had set aside for it stays set aside

    async def _find(self, job: BatchJob, terms: BatchTerms) -> tuple[str, bool] | None:
        api = self._api_of(job)
        while (found := await api.find(job, self.store.is_strange)) is None:
            # It may have been created a moment ago, and not be in the list yet.
            left_s = job.made_s + terms.poll_s - time.time()
            if left_s <= 0:
                return None
            await asyncio.sleep(min(left_s, 2.0))
        return found

    async def submit(self, endpoint: Endpoint, model: str, calls: Iterable[SpooledCall]) -> tuple[list[BatchJob], int]:
        """Send calls to one model; returns the jobs, and how many calls must wait for room in the provider's queue.

        Raises:
            CallFailed: the provider refuses a job, or cannot be reached; what was sent before is noted.
        """
        room = self._queue_room(endpoint, model)
        ahead, sent = _Ahead(calls), []
        with tempfile.TemporaryDirectory(prefix="fusiontools-batch-") as folder:
            path = Path(folder, "calls.jsonl")
            while ahead.next is not None:
                new, tokens = self._fill(path, ahead, endpoint, room)
                job = await self._send(endpoint, model, new, tokens, path) if new else None
                if job is not None:
                    sent.append(job)
                    room = None if room is None else room - tokens
                elif waiting := len(new) + ahead.count():
                    self.say(f"{waiting:,} calls to {model} wait until {endpoint.name} has room for them")
                    return sent, waiting
        return sent, 0

    def _fill(self, path: Path, ahead: _Ahead, endpoint: Endpoint, room: int | None) -> tuple[list[NewCall], int]:
        """Write as many of the calls ahead into a file as one job takes; returns them, and about their tokens."""
        api, terms = self.api(endpoint.name), _terms(endpoint)
        most_calls, most_bytes = terms.max_calls or api.max_calls, terms.max_bytes or api.max_bytes
        new: list[NewCall] = []
        size = tokens = 0
        with path.open("wb") as file:
            while (call := ahead.next) is not None and len(new) < most_calls:
                too_many = room is not None and tokens + call.tokens > room and (new or room <= 0)
                if too_many or (new and size + len(call.line) > most_bytes):
                    break
                if not self._is_sent(call.key):
                    file.write(call.line)
                    new.append(NewCall(call.key, call.sent, call.bound_usd))
                    size, tokens = size + len(call.line), tokens + call.tokens
                ahead.step()
        return new, tokens

    def _is_sent(self, key: bytes) -> bool:
        """Return whether another process has sent a call meanwhile."""
        known = self.store.find(key)
        return known is not None and known.state == "open"

    def _queue_room(self, endpoint: Endpoint, model: str) -> int | None:
        """Return how many tokens more may wait at an endpoint for a model; None where no limit is known."""
        learned = self.store.queue_tokens(endpoint.identity, model)
        limits = [limit for limit in (_terms(endpoint).max_tokens, learned) if limit is not None]
        if not limits:
            return None
        under_way = self.store.jobs("open", "creating")
        waiting = sum(j.tokens for j in under_way if (j.place, j.model) == (endpoint.identity, model))
        # A limit that no call keeps to is one for jobs: one after the other.
        return min(limits) - waiting if waiting else max(1, min(limits))

    async def _send(
        self, endpoint: Endpoint, model: str, calls: Sequence[NewCall], tokens: int, path: Path
    ) -> BatchJob | None:
        """Send a job; None where the provider has no room for it now."""
        api, name = self.api(endpoint.name), endpoint.name
        job = BatchJob(uuid.uuid4().hex, name, endpoint.identity, model, len(calls), tokens, time.time())
        bound_usd = sum(call.bound_usd for call in calls)
        await self.reserve(bound_usd)
        if not await self.store.write(JobFile.make, job, calls):
            await self.reserve(-bound_usd)
            raise CallFailed("not_run", "another process has sent some of these calls meanwhile", retryable=True)
        try:
            uploaded = await api.upload(job, path)
            await self.store.write(JobFile.set_job, job, state="creating", made_s=time.time())
            remote = await api.create(job, path, uploaded)
        except CallFailed as failure:
            refused = failure.status is not None and 400 <= failure.status < 500
            if refused and failure.status not in (408, 409, 425):
                await self.reserve(-await self.store.write(JobFile.drop, job))
            if failure.code == "rate_limited":
                return None
            failure.message = (
                f"a batch job of {job.calls:,} calls to {model} was not taken by {name}: {failure.message}"
                + (_INSTEAD if failure.code in ("bad_request", "not_found") else "")
            )
            raise
        await self.store.write(JobFile.set_job, job, state="open", remote=remote)
        self.say(f"{counted(job.calls, 'call')} to {model} submitted to {name}: {remote}")
        return job

    async def look(self, job: BatchJob) -> Standing | None:
        """Return how far a job is, and fetch what came of it where it has ended; None where its provider is silent.

        Raises:
            CallFailed: the key is wrong, or the like: what will not pass by itself.
        """
        try:
            standing = await self._api_of(job).look(job)
            self._silent.discard(job.id)
            if job.absent_s is not None:
                await self.store.write(JobFile.set_job, job, absent_s=None)
            if standing.end is not None:
                await self._fetch(job, standing)
            return standing
        except CallFailed as failure:
            if failure.status in (404, 410):
                return await self._note_absent(job)
            if failure.code in ("auth", "payment", "unknown_endpoint"):
                raise
            if job.id not in self._silent:
                self._silent.add(job.id)
                self.say(f"{job.endpoint} says nothing of job {job.remote} now: {failure.message}")
            return None

    async def _note_absent(self, job: BatchJob) -> Standing | None:
        """Note that its provider does not know a job; after some time it is given up."""
        endpoint = self._endpoint_of(job)
        assert endpoint is not None  # noqa: S101 - it has just been asked
        now = time.time()
        if job.absent_s is None:
            await self.store.write(JobFile.set_job, job, absent_s=now)
        elif now - job.absent_s >= _LOOKS_IN_VAIN * _terms(endpoint).poll_s:
            await self._end(job, COMPLETED, (), f"{job.endpoint} does not know the job {job.remote} any more")
            return Standing(COMPLETED)
        return None

    async def _fetch(self, job: BatchJob, standing: Standing) -> None:
        """Keep what came of the calls of a job that has ended, and end it."""
        assert standing.end is not None  # noqa: S101 - else it is not fetched
        found, batch = 0, []
        async for answer in self._api_of(job).answers(job):
            if (kept := _kept(answer)) is not None:
                batch.append(kept)
            if len(batch) >= _AT_ONCE:
                found += await self.store.write(JobFile.answer, job, batch)
                batch = []
        found += await self.store.write(JobFile.answer, job, batch)
        if job.guessed and not found and standing.end != REFUSED:
            await self.store.write(JobFile.disown, job)
            return
        faults = standing.faults
        if standing.end == REFUSED and any(fault.code in _QUEUE_CODES for fault in faults):
            await self.store.write(JobFile.learn_queue, job)
            self.say(f"{job.endpoint} has no room for {job.calls:,} calls to {job.model} at once; they go in parts")
            await self.reserve(-await self.store.write(JobFile.drop, job))
            return
        await self._end(job, standing.end, faults, "")

    async def _end(self, job: BatchJob, end: str, faults: Sequence[LineFault], why: str) -> None:
        """End a job; of each call that it did not make is kept why."""
        at_line = {fault.line: fault for fault in faults if fault.line is not None}
        general = "; ".join(f"{fault.message}" for fault in faults if fault.line is None)
        why = why or {
            COMPLETED: "the job has ended and says nothing of this call",
            EXPIRED: "the job expired before this call was made",
            CANCELLED: "the job was cancelled before this call was made",
        }.get(end, "the job was refused for another call in it")
        left: list[tuple[bytes, int, bytes]] = []
        for key, line in self.store.unanswered(job):
            fault = at_line.get(line)
            if fault is not None or (end == REFUSED and general):
                said = {"message": fault.message if fault else general, "code": fault.code if fault else "refused"}
                left.append((key, 400, jsonl.dumps({"error": said})))
            else:
                left.append((key, 0, unmade("", f"{why} ({job.endpoint}: {job.remote})").body))
        await self.store.write(JobFile.end, job, left)

    async def cut_late(self, job: BatchJob, after_s: float) -> None:
        """Have a job end that is late; where nothing can cancel it, it is given up."""
        if time.time() - job.made_s < after_s:
            return
        api = self._api_of(job)
        if api.cancels and (job.cancelled_s is None or time.time() - job.cancelled_s < _CANCELLING_S):
            if job.cancelled_s is None:
                with suppress(CallFailed):  # it may just have ended, which the next look says
                    await api.cancel(job)
                await self.store.write(JobFile.set_job, job, cancelled_s=time.time())
                self.say(f"job {job.remote} at {job.endpoint} is late and cancelled; what it lacks is bought at once")
            return
        self.say(
            f"warning: job {job.remote} at {job.endpoint} is late and cannot be cancelled; its {job.calls:,} calls are "
            "bought at once, and what it still makes of them may be billed, too"
        )
        await self._end(job, CANCELLED, (), "the job was late and given up")

    def api(self, name: str) -> BatchApi:
        """Return the batch API of an endpoint."""
        if name not in self._apis:
            self._apis[name] = api_of(self.endpoints[name])
        return self._apis[name]

    async def aclose(self) -> None:
        """Close the connections, and the notes."""
        for api in self._apis.values():
            await api.http.aclose()
        self.store.close()

    def _endpoint_of(self, job: BatchJob) -> Endpoint | None:
        """Return the endpoint of a job, whatever it was called when that was sent."""
        alike = [e for e in self.endpoints.values() if e.identity == job.place and e.batch_terms]
        return next((e for e in alike if e.name == job.endpoint), alike[0] if alike else None)

    def _api_of(self, job: BatchJob) -> BatchApi:
        endpoint = self._endpoint_of(job)
        if endpoint is None:
            where = f"job {job.remote} was sent to {job.place}, where no endpoint of this recipe takes batch jobs"
            raise CallFailed("unknown_endpoint", where)
        return self.api(endpoint.name)


def _terms(endpoint: Endpoint) -> BatchTerms:
    terms = endpoint.batch_terms
    assert terms is not None  # noqa: S101 - who has none is sent no job
    return terms


def _kept(answer: LineAnswer) -> tuple[bytes, int, bytes] | None:
    try:
        return bytes.fromhex(answer.custom_id), answer.status, answer.body
    except ValueError:
        return None  # none of ours


def counted(number: int, what: str) -> str:
    """Return a number of things in words."""
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def reason_of(body: bytes) -> str:
    """Return why a call was not made, as `unmade` wrote it."""
    said: Any = jsonl.loads(body)
    return str(said["message"])
