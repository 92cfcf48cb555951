"""Calls as batch jobs, from the command line to a provider and back: what is bought, when, and how often."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from batching import CREATES, PATHS, Batch, Provider, kill_at, questions, recipe
from workdir import Run

PRICED = {"model": "fake/a+nocost", "price_usd_per_mtok": {"prompt": 1, "completion": 2}}
TWO = ("fake/a", "fake/b")
APIS = [pytest.param(api, marks=[] if api == "openai" else pytest.mark.slow) for api in PATHS]


def statuses(record: dict[str, Any]) -> list[str]:
    return [call["status"] for call in record["calls"]]


def once(provider: Provider, count: int) -> bool:
    return Counter(provider.made.values()) == {1: count}


# --- Rounds ---


@pytest.mark.parametrize("api", APIS)
def test_a_pipeline_goes_through_jobs_at_every_provider(batch: Batch, provider: Provider, api: str) -> None:
    done = batch("fuse-panel --batch | fuse-judge --batch=wait | fuse-synth --batch wait", api=api, members=TWO)

    assert done.status == 0, done.err
    assert [record["id"] for record in done.records] == ["q0", "q1", "q2"]
    assert all(record["answer"]["content"].startswith("fake/synth says") for record in done.records)
    assert all(record["analysis"]["ranking"] for record in done.records)
    assert once(provider, 12)
    assert not provider.direct
    assert provider.jobs() == [3, 3, 3, 3]


def test_records_are_those_of_calls_made_at_once(batch: Batch, tmp_path: Path) -> None:
    pipeline = "fuse-panel {0} | fuse-judge {0} | fuse-synth {0}"
    in_jobs = batch(pipeline.format("--batch"), members=TWO).records
    at_once = batch(pipeline.format(f"--journal {tmp_path / 'other.db'}"), members=TWO).records

    def apart(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return [{name: value for name, value in record.items() if name != "calls"} for record in records]

    assert apart(in_jobs) == apart(at_once)


def test_submit_exits_75_and_collect_until_all_has_come(batch: Batch, provider: Provider) -> None:
    provider.set(looks=0)

    submitted, early = batch("fuse-panel --batch submit"), batch("fuse-panel --batch collect")
    provider.end()
    collected, again = batch("fuse-panel --batch collect"), batch("fuse-panel --batch collect")

    assert (submitted.status, submitted.out) == (75, b"")
    assert "3 records wait for 1 batch job with 3 calls; come again" in submitted.err
    assert (early.status, early.out) == (75, b"")
    assert "0 records out; 3 records wait for 1 batch job (3 calls)" in early.err
    assert (collected.status, len(collected.records)) == (0, 3)
    assert collected.out == again.out
    assert once(provider, 3)


def test_a_chain_takes_a_round_for_each_of_its_steps(batch: Batch, provider: Provider) -> None:
    ask = "fuse-ask 'Why?' --json < /dev/null --batch"
    told = []
    for _ in range(3):
        told += [batch(f"{ask} submit", members=TWO), batch(f"{ask} collect", members=TWO)]

    assert [each.status for each in told] == [75, 75, 75, 75, 75, 0]
    assert "1 record waits for 1 call that `--batch submit` sends" in told[1].err
    assert told[-1].records[0]["answer"]["by"] == "synth"
    assert provider.jobs() == [1, 1, 1, 1]


def test_asking_until_it_is_sure_takes_a_job_for_each_of_its_rounds(batch: Batch, provider: Provider) -> None:
    words = "--until 0.95 --max-samples 9 --batch"
    unsure = batch(f"fuse-panel -m fake/a+text=4 -m fake/b+text=5 {words}", count=2)
    sure = batch(f"fuse-panel -m fake/a+text=4 {words}", count=2)

    assert [len(record["panel"]) for record in (*unsure.records, *sure.records)] == [9, 9, 4, 4]
    # A job for each model: of two records the first four, and then the five that may still make sure.
    assert provider.jobs() == [4, 4, 6, 4]
    assert once(provider, 18)


def test_submit_says_when_nothing_is_left_to_send(batch: Batch, provider: Provider) -> None:
    batch("fuse-panel --batch")

    done = batch("fuse-panel --batch submit")

    assert (done.status, done.out) == (0, b"")
    assert "`--batch collect` gives the records" in done.err
    assert once(provider, 3)


def test_what_is_ready_leaves_while_the_rest_waits(batch: Batch, provider: Provider) -> None:
    batch("fuse-panel --batch", count=2)
    provider.set(looks=0)
    batch("fuse-panel --batch submit", count=4)

    done = batch("fuse-panel --batch collect", count=4)

    assert done.status == 75
    assert [record["id"] for record in done.records] == ["q0", "q1"]


def test_equal_calls_of_several_records_are_one(batch: Batch, provider: Provider) -> None:
    twice = "".join(json.dumps({"id": f"q{i}", "prompt": "The same?"}) + "\n" for i in range(5))

    done = batch("fuse-panel --batch", stdin=twice)

    assert len(done.records) == 5
    assert provider.jobs() == [1]


def test_a_job_is_found_under_another_name_of_its_endpoint(
    batch: Batch, run: Run, provider: Provider, there: dict[str, str], tmp_path: Path
) -> None:
    batch("fuse-panel --batch submit")
    renamed = recipe(provider).replace('"there"', '"elsewhere"')
    (tmp_path / "fusion.yaml").write_text(renamed)

    done = run("fuse-panel --batch", questions(3), env=there)

    assert (done.status, provider.jobs()) == (0, [3])


def test_two_runs_of_the_same_questions_buy_them_once(batch: Batch, provider: Provider) -> None:
    provider.set(looks=0)
    batch("fuse-panel --batch submit")
    batch("fuse-panel --batch submit", count=4)

    assert provider.jobs() == [3, 1]


def test_no_record_is_lost_however_many_there_are(batch: Batch, provider: Provider) -> None:
    done = batch("fuse-panel --batch", count=150)

    assert [record["id"] for record in done.records] == [f"q{i}" for i in range(150)]
    assert provider.jobs() == [150]


def test_bad_lines_are_said_when_submitted(batch: Batch) -> None:
    done = batch("fuse-panel --batch submit", stdin=questions(1) + "{nonsense\n")

    assert done.status == 75
    assert "stdin:2" in done.err


def test_samples_that_share_a_kept_prompt_go_at_once(batch: Batch, provider: Provider) -> None:
    done = batch("fuse-panel --batch", count=1, api="anthropic", members=["fake/a*3"])

    assert done.status == 0, done.err
    assert provider.jobs() == [3]


# --- What comes back ---


def test_a_job_of_nothing_but_errors_gives_failed_records(batch: Batch, provider: Provider) -> None:
    done = batch("fuse-panel --batch", members=["fake/a+status=400"])

    assert done.status == 3
    assert [record["panel"][0]["error"]["code"] for record in done.records] == ["bad_request"] * 3
    assert [call["cost_usd"] for record in done.records for call in record["calls"]] == [0.0] * 3


@pytest.mark.parametrize("api", APIS)
def test_failures_are_tried_again_as_ever(batch: Batch, provider: Provider, api: str) -> None:
    done = batch("fuse-panel --batch", count=2, members=["fake/a+status=500,2"], api=api)

    assert done.status == 0, done.err
    assert provider.jobs() == [2, 2]
    assert [statuses(record) for record in done.records] == [["upstream", "ok"]] * 2
    assert [call["attempt"] for call in done.records[0]["calls"]] == [1, 2]


def test_failures_are_tried_no_oftener_than_retries_say(batch: Batch, provider: Provider) -> None:
    done = batch("fuse-panel --batch --retries 1", count=1, members=["fake/a+status=500"])

    assert done.status == 3
    assert statuses(done.records[0]) == ["upstream", "upstream"]
    assert provider.jobs() == [1, 1]


def test_what_has_failed_for_good_is_sent_anew_when_asked_for_again(batch: Batch, provider: Provider) -> None:
    batch("fuse-panel --batch", count=1, members=["fake/a+status=400,1"])

    done = batch("fuse-panel --batch", count=1, members=["fake/a+status=400,1"])

    assert done.status == 0
    assert provider.jobs() == [1, 1]


@pytest.mark.parametrize("how", ["expired", "cancelled"])
@pytest.mark.parametrize("api", APIS)
def test_of_a_job_that_ends_early_what_is_done_is_kept(batch: Batch, provider: Provider, api: str, how: str) -> None:
    if api == "gemini" and how == "expired":
        pytest.skip("an expired job of Gemini's brings nothing")
    provider.set(looks=0)
    batch("fuse-panel --batch submit", count=4, api=api)
    provider.end(how=how, share=0.5)
    provider.set(looks=1)

    done = batch("fuse-panel --batch", count=4, api=api)

    assert done.status == 0, done.err
    assert provider.jobs() == [4, 2]
    assert once(provider, 4)
    assert sorted(map(statuses, done.records)) == [["not_run", "ok"]] * 2 + [["ok"]] * 2


def test_calls_of_which_a_job_says_nothing_are_sent_again(batch: Batch, provider: Provider) -> None:
    provider.set(looks=0)
    batch("fuse-panel --batch submit", count=4)
    provider.end(lost=1)
    provider.set(looks=1)

    done = batch("fuse-panel --batch", count=4)

    assert done.status == 0
    assert provider.jobs() == [4, 1]


def test_a_job_that_is_refused_says_which_call_was_wrong(batch: Batch, provider: Provider) -> None:
    provider.set(faults=[{"code": "invalid_request", "message": "line 2 is wrong", "line": 2}])

    done = batch("fuse-panel --batch")

    failed = [record for record in done.records if "error" in record]
    assert done.status == 1
    assert [record["panel"][0]["error"]["message"] for record in failed] == ["HTTP 400: line 2 is wrong"]
    assert provider.jobs() == [3, 2]


def test_submit_says_what_a_provider_finds_wrong_and_sends_the_rest(batch: Batch, provider: Provider) -> None:
    provider.set(faults=[{"code": "invalid_request", "message": "line 2 is wrong", "line": 2}], checks=3)

    sent = batch("fuse-panel --batch submit")
    provider.end()
    done = batch("fuse-panel --batch collect")

    assert sent.status == 75
    assert "fuse-panel: q1: bad_request: HTTP 400: line 2 is wrong\n" in sent.err
    assert "2 records wait for 1 batch job with 2 calls; come again" in sent.err
    assert provider.jobs() == [3, 2]
    assert (done.status, len(done.records)) == (1, 3)


def test_a_job_that_is_refused_as_a_whole_is_said_when_it_is_submitted(batch: Batch, provider: Provider) -> None:
    provider.set(faults=[{"code": "model_not_found", "message": "no such model", "line": None}])

    sent = batch("fuse-panel --batch submit")

    assert (sent.status, provider.jobs()) == (1, [3])
    assert sent.err.count("no such model") == 3
    assert sent.err.endswith("no call is left to send; `--batch collect` gives the records\n")


def test_a_job_that_is_checked_for_long_is_left(batch: Batch, provider: Provider) -> None:
    provider.set(checks=1000)

    sent = batch("fuse-panel --batch submit")

    assert sent.status == 75
    assert "there still checks batch_00000000; the next `--batch collect` says whether it is taken" in sent.err


def test_a_queue_without_room_is_filled_in_parts(batch: Batch, provider: Provider) -> None:
    provider.set(queue=4)

    done = batch("fuse-panel --batch", count=6)

    assert done.status == 0, done.err
    assert len(done.records) == 6
    assert provider.jobs()[0] == 6
    assert max(provider.jobs()[1:]) <= 4
    assert once(provider, 6)


def test_what_has_no_room_in_a_queue_waits_for_the_next_submit_in_another_process(
    batch: Batch, provider: Provider
) -> None:
    provider.set(looks=0)
    first = batch("fuse-panel --batch submit", count=6, max_tokens=20)
    sent = provider.jobs()
    again = batch("fuse-panel --batch submit", count=6, max_tokens=20)
    unchanged = provider.jobs() == sent
    provider.end()
    rest = batch("fuse-panel --batch submit", count=6, max_tokens=20)

    assert (first.status, again.status, rest.status) == (75, 75, 75)
    assert "not sent yet)" in first.err
    assert unchanged
    assert sum(sent) < sum(provider.jobs()) <= 6


def test_a_provider_that_is_busy_is_asked_again(batch: Batch, provider: Provider) -> None:
    provider.set(refusals=[[429, "slow down"]])

    done = batch("fuse-panel --batch")

    assert done.status == 0
    assert once(provider, 3)


@pytest.mark.parametrize("api", APIS)
@pytest.mark.parametrize("status", [404, 200])
def test_a_provider_may_forget_a_job_for_a_while(batch: Batch, provider: Provider, api: str, status: int) -> None:
    provider.set(absent=3, absent_status=status)

    assert batch("fuse-panel --batch", api=api).status == 0
    assert provider.jobs() == [3]


@pytest.mark.slow
@pytest.mark.parametrize("status", [404, 200])
def test_a_job_that_is_gone_is_given_up_and_sent_anew(batch: Batch, provider: Provider, status: int) -> None:
    provider.set(absent=1000, looks=0, absent_status=status)
    batch("fuse-panel --batch submit")
    assert batch("fuse-panel --batch collect").status == 75
    provider.set(looks=1)

    while len(provider.jobs()) == 1:
        batch("fuse-panel --batch submit")
    provider.set(absent=0)
    done = batch("fuse-panel --batch")

    assert [statuses(record) for record in done.records] == [["not_run", "ok"]] * 3


# --- Limits of providers ---


def test_jobs_have_no_more_calls_and_bytes_than_a_provider_takes(batch: Batch, provider: Provider) -> None:
    by_count = batch("fuse-panel --batch", count=5, max_calls=2)
    assert (by_count.status, provider.jobs()) == (0, [2, 2, 1])

    provider.reset()
    by_size = batch("fuse-panel --batch", count=5, max_bytes=450, members=["fake/b"])
    assert by_size.status == 0, by_size.err
    assert sum(provider.jobs()) == 5
    assert max(provider.jobs()) < 5


def test_a_call_that_no_job_takes_fails_and_says_so(batch: Batch, provider: Provider) -> None:
    done = batch("fuse-panel --batch", count=1, max_bytes=50)

    assert done.status == 3
    assert "does not go into a batch job of at most 50" in done.err
    assert not provider.jobs()


def test_each_model_has_jobs_of_its_own(batch: Batch, provider: Provider) -> None:
    batch("fuse-panel --batch", members=["fake/a", "fake/b"])

    assert Counter(job["model"] for job in provider.told()["jobs"]) == {"fake/a": 1, "fake/b": 1}


def test_what_waits_in_a_queue_may_be_bounded_beforehand(batch: Batch, provider: Provider) -> None:
    done = batch("fuse-panel --batch", count=4, max_tokens=20)

    assert done.status == 0
    assert len(provider.jobs()) > 1
    assert once(provider, 4)


# --- What an endpoint wants otherwise ---


@pytest.mark.parametrize("steps", [["wait"], ["submit", "collect", "submit", "collect"]])
def test_a_refusal_teaches_and_the_call_goes_out_as_it_is_wanted(
    batch: Batch, provider: Provider, steps: list[str]
) -> None:
    members = [{"model": "fake/a+maxcompletion", "max_tokens": 50}]

    done = [batch(f"fuse-panel --batch {step}", count=2, members=members) for step in steps][-1]

    assert done.status == 0, done.err
    assert [statuses(record) for record in done.records] == [["bad_request", "ok"]] * 2
    assert provider.jobs() == [2, 2]


def test_what_is_hidden_stays_hidden_and_stands_in_the_answer(
    run: Run, provider: Provider, there: dict[str, str], tmp_path: Path
) -> None:
    said = json.loads(recipe(provider, members=["fake/a+echo"])) | {"redact": ["email"]}
    (tmp_path / "fusion.yaml").write_text(json.dumps(said))

    done = run("fuse-panel --batch", "Who is ann@example.org?", env=there)

    assert done.records[0]["panel"][0]["content"] == "Who is ann@example.org?"
    assert "ann@example.org" not in json.dumps(provider.told()["jobs"])


# --- Money ---


def test_a_call_costs_what_the_list_says_times_the_factor(batch: Batch) -> None:
    half = batch("fuse-panel --batch", count=1, members=[PRICED]).records[0]["calls"][0]
    dear = batch("fuse-panel --batch", count=2, members=[PRICED], price_factor=0.75).records[1]["calls"][0]

    tokens = half["usage"]
    assert (half["cost_source"], half["replayed"]) == ("batch", False)
    assert half["cost_usd"] == pytest.approx((tokens["prompt_tokens"] + 2 * tokens["completion_tokens"]) / 2e6)
    assert dear["cost_usd"] == pytest.approx(half["cost_usd"] * 1.5)


def test_a_cost_limit_is_kept_over_submit_and_collect(batch: Batch, provider: Provider) -> None:
    """What a call may cost is reserved: 4096 tokens of an answer at half the price are $0.0041."""
    limited = "fuse-panel --max-cost-usd 0.009 --batch"

    first = batch(f"{limited} submit", count=5, members=[PRICED])
    again = batch(f"{limited} submit", count=5, members=[PRICED])
    done = batch(f"{limited} wait", count=5, members=[PRICED])

    assert (first.status, again.status) == (75, 75)
    assert "3 calls not sent yet" in first.err
    assert provider.jobs()[0] == 2
    # Each came to $0.0001, so all of them had room in the end.
    assert (done.status, len(done.records)) == (0, 5)
    assert sum(call["cost_usd"] for record in done.records for call in record["calls"]) < 0.009


def test_a_budget_with_a_name_is_kept_over_runs(batch: Batch, provider: Provider) -> None:
    """It is reserved what calls may cost, $0.0041 each, and settled at what they have cost, $0.0001."""
    named = "fuse-panel --budget nightly --max-cost-usd 0.009"

    first = batch(f"{named} --batch submit", count=5, members=[PRICED])
    other = batch(f"{named} --batch submit", count=1, stdin=questions(9)[-80:], members=[PRICED])
    provider.end()
    done = batch(f"{named} --batch", count=5, members=[PRICED])

    assert "3 calls not sent yet" in first.err
    assert (first.status, done.status) == (75, 0), done.err
    assert other.status == 4, other.err
    assert len(done.records) == 5


def test_a_run_that_may_not_cost_so_much_stops(batch: Batch, provider: Provider) -> None:
    done = batch("fuse-panel --max-cost-usd 0.001 --batch", count=2, members=[PRICED])

    assert done.status == 4
    assert [record["error"]["code"] for record in done.records] == ["budget"] * 2
    assert not provider.jobs()


def test_a_record_may_not_cost_more_than_it_may(batch: Batch, provider: Provider) -> None:
    done = batch("fuse-panel --max-record-cost-usd 0.005 --batch", count=2, members=[{**PRICED, "samples": 3}])

    assert done.status == 0
    assert provider.jobs()[0] == 2
    assert once(provider, 6)


def test_without_a_price_no_limit_can_be_held(batch: Batch, provider: Provider) -> None:
    done = batch("fuse-panel --max-cost-usd 1 --batch", count=1)

    assert done.status == 3
    assert "no price is known" in done.err
    assert not provider.jobs()


# --- What cannot wait, and what does not go by jobs ---


def test_what_is_late_is_cancelled_and_bought_at_once(batch: Batch, provider: Provider) -> None:
    provider.set(looks=0, share=0.5, cancelling=3)
    batch("fuse-panel --batch submit", count=4)

    done = batch("fuse-panel --batch --batch-or-buy 0", count=4)

    assert done.status == 0, done.err
    assert provider.jobs() == [4]
    assert (sum(provider.made.values()), provider.direct) == (2, {"fake/a": 2})
    assert sum(line.endswith("/cancel") for line in provider.told()["log"]) == 1
    assert all(call["cost_usd"] == 0.001 for record in done.records for call in record["calls"][-1:])


def test_where_nothing_cancels_the_late_is_bought_with_a_warning(batch: Batch, provider: Provider) -> None:
    provider.set(looks=0)
    batch("fuse-panel --batch submit", api="openrouter")

    done = batch("fuse-panel --batch --batch-or-buy 0", api="openrouter")

    assert done.status == 0, done.err
    assert "cannot be cancelled" in done.err
    assert provider.direct == {"fake/a": 3}


def test_programs_and_endpoints_without_jobs_are_asked_at_once(
    run: Run, provider: Provider, there: dict[str, str], tmp_path: Path
) -> None:
    said = json.loads(recipe(provider, members=["fake/a", "fake/b@plain", "any@cat"]))
    said["endpoints"]["plain"] = {"base_url": provider.url + PATHS["openai"], "api_key_env": "FAKE_KEY"}
    said["endpoints"]["cat"] = {"api": "command", "command": ["cat"]}
    (tmp_path / "fusion.yaml").write_text(json.dumps(said))

    done = run("fuse-panel --batch", questions(2), env=there)

    assert done.status == 0, done.err
    assert done.err.count("warning: plain takes no batch jobs") == 1
    assert (provider.jobs(), provider.direct) == ([2], {"fake/b": 2})
    assert ["error" in response for record in done.records for response in record["panel"]] == [False] * 6
    paid = [Counter(call["cost_usd"] for call in record["calls"]) for record in done.records]
    assert paid == [Counter({0.001: 2, None: 1})] * 2


def test_members_with_tools_cannot_go_by_jobs(batch: Batch, provider: Provider) -> None:
    done = batch("fuse-panel --tools web_search --batch")

    assert done.status == 2
    assert "--batch: each turn of a member with tools waits for the one before" in done.err
    assert not provider.jobs()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ("--batch --no-journal", "--batch needs the journal"),
        ("--batch --offline", "--batch buys calls, and --offline none"),
        ("--batch-or-buy 5", "--batch-or-buy goes with --batch"),
    ],
)
def test_what_contradicts_itself_is_said(batch: Batch, options: str, said: str) -> None:
    done = batch(f"fuse-panel {options}")

    assert (done.status, said in done.err) == (2, True)


def test_a_provider_that_refuses_is_said_and_nothing_is_noted(batch: Batch, provider: Provider) -> None:
    provider.set(refusals=[[400, "no batches for this model"]])

    refused = batch("fuse-panel --batch")
    done = batch("fuse-panel --batch")

    assert refused.status == 1
    assert "no batches for this model" in refused.err
    assert "`batch: {api: none}`" in refused.err
    assert done.status == 0


def test_no_key_is_written_beside_the_journal(batch: Batch, provider: Provider, tmp_path: Path) -> None:
    batch("fuse-panel --batch", members=["fake/a+text=test%2Dkey"])

    kept = b"".join(path.read_bytes() for path in tmp_path.rglob("*.batches.db*"))
    assert kept
    assert b"test-key" not in kept


# --- Killed in between ---

STEPS = [
    ("POST", "/files$", "before"),
    ("POST", "/files$", "after"),
    ("POST", "/batches$", "before"),
    ("POST", "/batches$", "after"),
    ("POST", "/batches$", "never"),
    ("GET", "/batches/[^/]+$", "before"),
    ("GET", "/batches/[^/]+$", "after"),
    ("GET", "/content$", "before"),
    ("GET", "/content$", "after"),
]


@pytest.mark.slow
@pytest.mark.parametrize("hold", STEPS, ids="-".join)
def test_a_kill_between_any_two_steps_buys_nothing_twice(
    batch: Batch, provider: Provider, there: dict[str, str], tmp_path: Path, hold: tuple[str, str, str]
) -> None:
    batch("fuse-panel --help")  # writes the recipe
    kill_at(provider, hold, ["fuse-panel", "--batch", "wait"], questions(3), tmp_path, there)

    done = batch("fuse-panel --batch")

    assert (done.status, len(done.records)) == (0, 3), done.err
    assert once(provider, 3)
    assert not provider.direct


@pytest.mark.slow
@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("api", list(PATHS))
def test_a_job_whose_creation_nobody_noted_is_found(
    batch: Batch, provider: Provider, there: dict[str, str], tmp_path: Path, api: str, when: str
) -> None:
    batch("fuse-panel --batch", count=5, api=api)  # others are in the list, too
    kill_at(provider, ("POST", CREATES[api], when), ["fuse-panel", "--batch"], questions(9)[-600:], tmp_path, there)
    provider.set(unlisted=1)  # and lists come late

    done = batch("fuse-panel --batch", stdin=questions(9)[-600:], api=api)

    assert done.status in (0, 1), done.err
    assert set(provider.made.values()) == {1}


@pytest.mark.slow
def test_a_job_taken_for_another_is_given_back(
    batch: Batch, provider: Provider, there: dict[str, str], tmp_path: Path
) -> None:
    """Where a provider's jobs have no names, one of as many calls may be somebody else's."""
    batch("fuse-panel --help", api="anthropic")
    kill_at(provider, ("POST", CREATES["anthropic"], "never"), ["fuse-panel", "--batch"], questions(3), tmp_path, there)
    other = {**there, "XDG_STATE_HOME": str(tmp_path / "elsewhere")}
    kill_at(
        provider,
        ("GET", "batches/anthropic_0", "before"),
        ["fuse-panel", "--batch", "-m", "fake/b"],
        questions(3),
        tmp_path,
        other,
    )

    done = batch("fuse-panel --batch", api="anthropic")

    assert (done.status, len(done.records)) == (0, 3), done.err
    assert {response["content"][:6] for record in done.records for response in record["panel"]} == {"fake/a"}
